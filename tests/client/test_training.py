"""Local training: compiled graphs that change no figure, and rounds that end within a step."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import AveragingAggregator
from declearn.main.config import EvaluateConfig
from declearn.metrics import MetricSet, MulticlassAccuracyPrecisionRecall
from declearn.model.tensorflow import TensorflowModel
from declearn.optimizer import Optimizer

from services.client.dataset import SCALE, ImageDataset
from services.client.training import CompiledModel, LocalTraining
from services.errors import DistrustError
from services.experiment import Plan
from services.server.model import build_model
from tests.support import deadline

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 50, dtype=np.uint8)


@pytest.fixture(scope="module")
def eager() -> TensorflowModel:
    """A model as the server sends it."""
    return cast("TensorflowModel", build_model(Plan.model_validate({"model": "cnn"})))


@pytest.fixture(scope="module")
def compiled(eager: TensorflowModel) -> CompiledModel:
    """The same model, compiled; one for all tests, as tracing takes a second."""
    return CompiledModel.of(eager)


def manager(model: TensorflowModel, seed: int = 0) -> LocalTraining:
    """Train `model` by plain SGD on the images above."""
    return LocalTraining(
        model=model,
        optim=Optimizer(lrate=0.1),
        aggrg=AveragingAggregator(),
        train_data=ImageDataset(IMAGES[:40], LABELS[:40], seed=seed),
        valid_data=ImageDataset(IMAGES[40:], LABELS[40:]),
        metrics=MetricSet([MulticlassAccuracyPrecisionRecall(labels=list(range(10)))]),
        verbose=False,
    )


def request(passes: int) -> messaging.TrainRequest:
    """Ask for a round of that many passes, four batches of ten images each."""
    return messaging.TrainRequest(
        round_i=1, weights=None, aux_var={}, batches={"batch_size": 10}, n_epoch=passes, n_steps=None, timeout=None
    )


@pytest.mark.parametrize("size", [1, 20, 7, 50])
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_predictions_are_the_eager_ones(
    eager: TensorflowModel, compiled: CompiledModel, size: int, *, weighted: bool
) -> None:
    """For batches of any size, labels and weights come back as upstream gives them, predictions to rounding."""
    weights = np.arange(size, dtype=np.float32) if weighted else None
    batch = (SCALE[IMAGES[:size]], LABELS[:size], weights)
    for mine, theirs in zip(
        compiled.compute_batch_predictions(batch), eager.compute_batch_predictions(batch), strict=True
    ):
        if theirs is None:
            assert mine is None
        else:
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [1, 20, 7])
def test_compiled_losses_are_the_eager_ones(eager: TensorflowModel, compiled: CompiledModel, size: int) -> None:
    """Losses have upstream's shape and values: one a sample, certain mistakes included."""
    labels, outputs, _ = eager.compute_batch_predictions((SCALE[IMAGES[:size]], LABELS[:size], None))
    outputs[0] = 0
    outputs[0, (LABELS[0] + 1) % 10] = 1
    mine, theirs = compiled.loss_function(labels, outputs), eager.loss_function(labels, outputs)
    assert mine.shape == theirs.shape == (() if size == 1 else (size,))
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_weights_are_shared_with_the_model_that_was_sent(eager: TensorflowModel, compiled: CompiledModel) -> None:
    """The network is wrapped, not copied; what is set through one is what the other predicts with."""
    assert compiled.get_wrapped_model() is eager.get_wrapped_model()
    batch = (SCALE[IMAGES[:5]], LABELS[:5], None)
    before = compiled.compute_batch_predictions(batch)[1]
    kept = eager.get_weights(trainable=True)
    try:
        eager.set_weights(kept * 0.5, trainable=True)
        after = compiled.compute_batch_predictions(batch)[1]
        np.testing.assert_allclose(after, eager.compute_batch_predictions(batch)[1], rtol=1e-5)
        assert not np.allclose(before, after)
    finally:
        eager.set_weights(kept, trainable=True)


def test_an_evaluation_round_is_the_one_of_upstream(eager: TensorflowModel, compiled: CompiledModel) -> None:
    """Loss, accuracy and number of steps of a whole round are those of a manager that evaluates eagerly."""
    batches = EvaluateConfig(batch_size=4).message_params
    ask = messaging.EvaluationRequest(round_i=1, weights=None, **batches)
    mine, theirs = manager(compiled).evaluation_round(ask), manager(eager).evaluation_round(ask)
    assert isinstance(mine, messaging.EvaluationReply)
    assert isinstance(theirs, messaging.EvaluationReply)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-6)
    assert mine.n_steps == theirs.n_steps == 3
    states: Any = mine.metrics["multi-classif"]
    expected: Any = theirs.metrics["multi-classif"]
    np.testing.assert_array_equal(states.confmat, expected.confmat)
    assert states.confmat.sum() == 10


class Counting(LocalTraining):
    """Counts local steps, and calls `at` after the one that it names."""

    steps = 0
    at: tuple[int, Any] = (0, None)

    def run_train_step(self, batch: Any) -> None:
        super().run_train_step(batch)
        self.steps += 1
        number, call = self.at
        if self.steps == number:
            call()


def counting(model: TensorflowModel) -> Counting:
    """Count the steps of `manager`."""
    made = manager(model)
    made.__class__ = Counting
    assert isinstance(made, Counting)
    return made


def test_a_round_takes_the_steps_asked_for(compiled: CompiledModel) -> None:
    """A round that nobody interrupts takes all its steps and reports them."""
    training = counting(compiled)
    reply = training.training_round(request(2))
    assert isinstance(reply, messaging.TrainReply)
    assert (training.steps, reply.n_steps, reply.n_epoch) == (8, 8, 2)


def test_an_interrupted_round_takes_no_further_step(compiled: CompiledModel) -> None:
    """Interrupted after its third step a round ends at once, though ninety-nine passes are left to do."""
    training = counting(compiled)
    training.at = (3, training.interrupt)
    reply = training.training_round(request(100))
    assert isinstance(reply, messaging.TrainReply)
    assert (training.steps, reply.n_steps) == (3, 3)


def test_an_interrupt_from_another_thread_ends_a_round(compiled: CompiledModel) -> None:
    """A round that runs in a thread, as in a client, is ended from the event loop."""
    training = counting(compiled)
    begun = threading.Event()
    training.at = (1, begun.set)

    async def scene() -> None:
        work = asyncio.create_task(asyncio.to_thread(training.training_round, request(500)))
        try:
            assert await asyncio.to_thread(begun.wait, deadline(30))
        finally:
            training.interrupt()
            await work

    asyncio.run(scene())
    assert training.steps < 2000


def test_interrupted_training_takes_no_round_until_it_is_resumed(compiled: CompiledModel) -> None:
    """While it is interrupted no step is taken; once resumed, rounds are whole again."""
    training = counting(compiled)
    training.interrupt()
    training.training_round(request(1))
    assert training.steps == 0
    training.resume()
    training.training_round(request(1))
    assert training.steps == 4


def test_a_round_out_of_reach_is_refused(compiled: CompiledModel) -> None:
    """A schedule that begins anew is taken through all steps before: a round that takes hours to reach is refused."""
    training = manager(compiled)
    asked = messaging.TrainRequest(10**6, None, {}, {"batch_size": 1}, n_epoch=10, n_steps=None)
    with pytest.raises(DistrustError, match="the server asks for round 1000000 of 400 steps each; wanted at most"):
        training.check_pace(asked)
    training.check_pace(messaging.TrainRequest(10**6, None, {}, {"batch_size": 1}, n_epoch=10, n_steps=100))


class _Failing(LocalTraining):
    """Fails as a library does that names what it failed on."""

    def run_train_step(self, batch: Any) -> None:
        raise ValueError(f"bad labels: {batch[1]}")


def test_an_error_in_a_round_is_told_by_its_kind(compiled: CompiledModel) -> None:
    """What an error says of the data stays here; of the client's own errors the server learns all."""
    training = manager(compiled)
    training.__class__ = _Failing
    assert training.training_round(request(1)) == messaging.Error("training failed (ValueError; its own log says more)")
    ask = messaging.EvaluationRequest(1, None, {"batch_size": 0}, None, None)
    assert training.evaluation_round(ask) == messaging.Error(
        "evaluation failed (ZeroDivisionError; its own log says more)"
    )


def test_the_loss_alone_is_one_of_images_and_the_rest_of_none(compiled: CompiledModel) -> None:
    """States that are kept back add nothing to others'."""
    training = manager(compiled)
    _, states, _ = training.evaluate_under_constraints({"batch_size": 10, "drop_remainder": False})
    kept: Any = training.loss_alone(dict(states))
    assert kept["loss"] == states["loss"]
    assert kept["multi-classif"].confmat.sum() == 0
