"""DP-SGD on a client: steps that are announced and no others, noise of the right size, a budget that holds."""

from __future__ import annotations

from typing import Any, cast

import keras
import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import AveragingAggregator
from declearn.model.tensorflow import TensorflowModel
from declearn.optimizer import Optimizer
from keras import layers

from services.accounting import Budget, Steps
from services.client.dataset import ImageDataset
from services.client.privacy import CHUNK, MOST_RISE, PrivateTraining, chunk
from services.client.training import CompiledModel
from services.errors import DistrustError, TrainingError
from services.experiment import Plan
from services.server.model import build_model

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (200, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 200, dtype=np.uint8)
BUDGET = Budget(3.0, 1e-5)


def request(**changes: Any) -> messaging.PrivacyRequest:
    """Ask for DP-SGD: epsilon 3, batches of 20, four rounds of one pass."""
    asked: dict[str, Any] = {
        "budget": (3.0, 1e-5),
        "sclip_norm": 1.0,
        "accountant": "rdp",
        "use_csprng": True,
        "seed": None,
        "rounds": 4,
        "batches": {"batch_size": 20, "poisson": True},
        "n_epoch": 1,
        "n_steps": None,
    }
    return messaging.PrivacyRequest(**(asked | changes))


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    """A model of few parameters, compiled once."""
    return CompiledModel.of(cast("TensorflowModel", build_model(Plan.model_validate({"model": "cnn-tanh"}))))


def manager(model: TensorflowModel, asked: messaging.PrivacyRequest | None = None, images: int = 200) -> Any:
    """Train `model` by DP-SGD with plain steps of length 1."""
    made = PrivateTraining(
        model=model,
        optim=Optimizer(lrate=1.0),
        aggrg=AveragingAggregator(),
        train_data=ImageDataset(IMAGES[:images], LABELS[:images]),
        verbose=False,
    )
    made.make_private(asked or request())
    return made


def train(training: Any, number: int = 1) -> Any:
    """Run a round."""
    return training.training_round(
        messaging.TrainRequest(
            round_i=number,
            weights=None,
            aux_var={},
            batches={"batch_size": 20},
            n_epoch=1,
            n_steps=None,
            timeout=None,
        )
    )


def test_steps_and_noise_follow_from_the_request(model: CompiledModel) -> None:
    """A round takes a pass of steps at the rate of the batch, with the least noise that all rounds keep to."""
    training = manager(model)
    steps = training.spend(1, [], [])
    assert (steps.rate, steps.count) == (0.1, 10)
    assert 2.9 < BUDGET.spent([Steps(0.1, steps.noise, 40)]) <= 3
    limited = manager(model, request(n_steps=3)).spend(1, [], [])
    assert limited.count == 3
    assert limited.noise < steps.noise
    assert manager(model, images=12).spend(1, [], []).rate == 1.0, "fewer images than a batch are all taken"


def test_a_round_takes_the_announced_steps_once(model: CompiledModel) -> None:
    """A round runs the steps that were announced for it; a second one, unannounced, is refused."""
    training = manager(model)
    steps = training.spend(1, [], [])
    reply = train(training)
    assert isinstance(reply, messaging.TrainReply)
    assert reply.n_steps == steps.count
    again = train(training)
    assert isinstance(again, messaging.Error)
    assert "unannounced" in again.message


def test_noise_has_the_announced_size(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no image in a batch, a step is pure noise: noise multiplier times norm, by the expected batch."""
    monkeypatch.setattr("services.randomness.chosen", lambda count, rate: np.zeros(0, np.intp))  # noqa: ARG005
    training = manager(model, request(sclip_norm=0.5))
    before = model.get_weights(trainable=True)
    training.take_step(Steps(0.1, 3.0, 1))
    moved = before - model.get_weights(trainable=True)
    noise = np.concatenate([np.ravel(part) for part in moved.coefs.values()])
    assert noise.std() == pytest.approx(3.0 * 0.5 / 20, rel=0.03)
    assert abs(noise.mean()) < 0.003
    model.set_weights(before, trainable=True)


def test_a_step_without_noise_is_the_clipped_mean(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all images in the batch, a norm that clips none and no noise, a step is the plain gradient's."""
    monkeypatch.setattr("services.randomness.chosen", lambda count, rate: np.arange(count))  # noqa: ARG005
    training = manager(model, request(sclip_norm=1e6, batches={"batch_size": 200}))
    before = model.get_weights(trainable=True)
    plain = model.compute_batch_gradients(((IMAGES / 255).astype(np.float32)[..., None], LABELS, None))
    training.take_step(Steps(1.0, 0.0, 1))
    moved = before - model.get_weights(trainable=True)
    for name, gradient in plain.coefs.items():
        np.testing.assert_allclose(moved.coefs[name], gradient, rtol=1e-3, atol=1e-5)
    model.set_weights(before, trainable=True)


def test_noise_stays_within_a_deal_and_is_chosen_anew_after_one(model: CompiledModel) -> None:
    """What the account says of this deal sets the noise; what it says of earlier ones leaves less to spend."""
    training = manager(model)
    first = training.spend(1, [], [])
    assert training.spend(2, [], [first]).noise == first.noise
    dealt = training.spend(2, [Steps(0.1, 0.95 * first.noise, 10)], [])
    assert first.noise < dealt.noise < MOST_RISE * first.noise
    assert dealt.count == 10


def test_lost_rounds_are_missing_at_the_end(model: CompiledModel) -> None:
    """With a round spent that nobody learned from, the last one is cut short, and then there is none."""
    training = manager(model)
    first = training.spend(1, [], [])
    lost = Steps(first.rate, first.noise, 35)
    last = training.spend(4, [], [lost])
    assert 0 < last.count < 10
    assert BUDGET.spent([lost, last]) <= 3
    assert training.spend(4, [], [Steps(first.rate, first.noise, 41)]).count == 0
    reply = train(training, 4)
    assert isinstance(reply, messaging.Error)
    assert "the privacy budget is spent" in reply.message


def test_a_remainder_that_only_noise_could_keep_to_is_spent(model: CompiledModel) -> None:
    """When a new deal leaves next to nothing of the budget, no round is trained that would be noise alone."""
    training = manager(model)
    noise = training.spend(1, [], []).noise
    assert training.spend(4, [Steps(0.1, noise, 40)], []).count == 0


def test_a_server_that_forgets_is_not_believed(model: CompiledModel) -> None:
    """Asked with an empty account, a client goes by its own count of what it has done."""
    training = manager(model)
    first = training.spend(1, [], [])
    train(training)
    own = training.spend(2, [], [])
    assert BUDGET.spent([first, Steps(own.rate, own.noise, 30)]) <= 3


@pytest.mark.parametrize("layer", [layers.BatchNormalization(), layers.Dense(4, kernel_regularizer="l2")])
def test_a_network_whose_images_have_no_gradient_of_their_own_is_refused(layer: Any) -> None:
    """Batch normalization and Keras regularizers are refused, with the reason."""
    network = keras.Sequential(
        [layers.Input((28, 28, 1)), layers.Flatten(), keras.Sequential([layer]), layers.Dense(10, activation="softmax")]
    )
    with pytest.raises(TrainingError, match=r"can't train this network: layer"):
        manager(TensorflowModel(network, loss="sparse_categorical_crossentropy"))


@pytest.mark.parametrize("batch_size", [1, 20, 64, 128, 512, 1000])
def test_batches_fill_their_chunks(batch_size: int) -> None:
    """Chunks are of bounded size, and a batch two deviations above the expected one fits into whole chunks."""
    size = chunk(batch_size)
    likely = batch_size + 2 * batch_size**0.5
    chunks = -(-likely // size)
    assert size <= CHUNK
    assert likely <= chunks * size <= likely + 8 * chunks


def test_more_steps_than_can_be_accounted_for_are_refused(model: CompiledModel) -> None:
    """A plan, or a past, of so many steps that to account for them takes hours is refused before that begins."""
    training = manager(model)
    with pytest.raises(DistrustError, match=r"the server asks for .* steps of DP-SGD; wanted at most 1,000,000 in all"):
        training.spend(1, [Steps(0.1, 1.0, 10**6)], [])
