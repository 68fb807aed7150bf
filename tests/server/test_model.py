"""The model and the optimizers that a plan names."""

from __future__ import annotations

from typing import Any, get_args

import keras
import numpy as np
import pytest

from services.errors import ExperimentError
from services.experiment import Plan
from services.experiment.algorithm import Aggregator, Module, Regularizer
from services.experiment.model import Preset
from services.schedules import ScheduledOptimizer
from services.server.engines.tensorflow import PRESETS
from services.server.model import build_model, build_optim

Weights = list[Any]


def plan(**content: Any) -> Plan:
    """Make a plan of what differs from the default."""
    return Plan.model_validate(content)


def weights(of: Plan) -> Weights:
    """Draw the initial weights of a plan."""
    drawn: Weights = build_model(of).get_wrapped_model().get_weights()
    return drawn


def test_every_preset_can_be_built() -> None:
    """The presets that a file may name are those there are layers for."""
    assert set(PRESETS) == set(get_args(Preset)) == set(COUNTS)


COUNTS = {
    "cnn": 54_410,
    "cnn-strided": 106_122,
    "cnn-large": 218_490,
    "mlp": 199_210,
    "logistic": 7_850,
    "cnn-tanh": 26_010,
}
"""Parameters of each preset."""


@pytest.mark.parametrize(("preset", "count"), COUNTS.items())
def test_a_preset_has_as_many_parameters_as_it_says(preset: str, count: int) -> None:
    """The number of parameters is the documented one, and all of them are trained."""
    network = build_model(plan(model=preset)).get_wrapped_model()
    assert network.count_params() == count
    assert sum(int(np.prod(variable.shape)) for variable in network.trainable_variables) == count
    assert network.name == preset


def test_the_cnn_is_that_of_the_example() -> None:
    """Preset `cnn` has the layers of declearn's MNIST example, in order, with their settings."""
    conv, pool, dropout, flatten, dense = build_model(plan(model="cnn")).get_wrapped_model().layers
    assert isinstance(conv, keras.layers.Conv2D)
    assert (conv.filters, conv.kernel_size, conv.strides, conv.padding) == (32, (3, 3), (1, 1), "valid")
    assert isinstance(pool, keras.layers.MaxPooling2D)
    assert pool.pool_size == (2, 2)
    assert isinstance(dropout, keras.layers.Dropout)
    assert dropout.rate == 0.25
    assert isinstance(flatten, keras.layers.Flatten)
    assert isinstance(dense, keras.layers.Dense)
    assert (dense.units, conv.activation.__name__, dense.activation.__name__) == (10, "relu", "softmax")


@pytest.mark.parametrize("preset", PRESETS)
def test_features_become_probabilities_or_are_refused(preset: str) -> None:
    """Networks of dense layers take vectors of features; those of convolutions say which do."""
    if preset in {"mlp", "logistic"}:
        network = build_model(plan(model=preset), (12,), 3).get_wrapped_model()
        assert (network.input_shape, network.output_shape) == ((None, 12), (None, 3))
        return
    with pytest.raises(ExperimentError) as caught:
        build_model(plan(model=preset), (12,), 3)
    assert caught.value.found.startswith(f"model {preset} can't take images of shape (12,)")
    assert caught.value.wanted == "model mlp or logistic, which take vectors"


@pytest.mark.parametrize("preset", PRESETS)
def test_images_that_are_too_small_are_refused(preset: str) -> None:
    """A network takes images of any size down to one that its layers leave nothing of, and then says so in one line."""
    if preset in {"mlp", "logistic"}:
        assert build_model(plan(model=preset), (1, 1, 3), 2).get_wrapped_model().input_shape == (None, 1, 1, 3)
        return
    build_model(plan(model=preset), (16, 16, 3), 2)
    with pytest.raises(ExperimentError) as caught:
        build_model(plan(model=preset), (1, 1, 3), 2)
    assert caught.value.wanted == "larger images, or another model"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 28, 28, 1)])
def test_images_become_probabilities(preset: str, shape: tuple[int, ...]) -> None:
    """Images with or without the axis of channels give ten probabilities each, which sum to one."""
    images = np.random.default_rng(0).random(shape, np.float32)
    labels = np.zeros(5, np.uint8)
    _, outputs, _ = build_model(plan(model=preset)).compute_batch_predictions((images, labels, None))
    assert outputs.shape == (5, 10)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_seed_gives_its_weights_again(preset: str) -> None:
    """The same seed draws the same initial weights, whatever was drawn before; another seed draws others."""
    first = weights(plan(model=preset, seed=1))
    np.random.default_rng().random()
    keras.random.uniform((3,))
    for one, other in zip(first, weights(plan(model=preset, seed=1)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], weights(plan(model=preset, seed=2))[0])


def test_the_plan_is_what_the_optimizers_do() -> None:
    """Rates, decay, regularizers, modules and aggregator are those of the plan, with their parameters."""
    optim = build_optim(
        plan(
            aggregator={"averaging": {"steps_weighted": False}},
            optimizer={
                "client": {"lrate": 0.1, "w_decay": 0.01, "regularizers": [{"fedprox": {"alpha": 0.5}}], "modules": []},
                "server": {"lrate": 0.7, "modules": [{"momentum": {"beta": 0.8, "nesterov": True}}]},
            },
        )
    )
    assert optim.aggregator.get_config() == {"name": "averaging", "steps_weighted": False}
    client, server = optim.client_opt, optim.server_opt
    assert (client.lrate, client.w_decay, server.lrate, server.w_decay) == (0.1, 0.01, 0.7, 0.0)
    assert [(plugin.name, plugin.alpha) for plugin in client.regularizers] == [("fedprox", 0.5)]
    assert client.modules == []
    (momentum,) = server.modules
    assert (momentum.name, momentum.get_config()) == ("momentum", {"beta": 0.8, "nesterov": True})


def test_a_rate_may_be_scheduled() -> None:
    """A scheduler stands for a rate on either side; a warm-up may lead to another schedule."""
    optim = build_optim(
        plan(
            optimizer={
                "client": {"lrate": {"warmup": {"base": {"linear-decay": {"base": 1, "rate": 0.1}}, "warmup": 3}}},
                "server": {"w_decay": {"inverse-scaling": {"base": 1.0, "rate": 1, "step_level": False}}},
            }
        )
    )
    decay = ("linear-decay", {"base": 1.0, "rate": 0.1, "step_level": True})
    assert optim.client_opt.get_config()["lrate"] == ("warmup", {"base": decay, "warmup": 3})
    assert optim.server_opt.w_decay == 1.0
    assert isinstance(optim.server_opt, ScheduledOptimizer)


@pytest.mark.parametrize("name", get_args(Module))
def test_every_module_can_be_made(name: str) -> None:
    """Each module that a file may name can be made without parameters."""
    partner = {"scaffold-client": "scaffold-server", "scaffold-server": "scaffold-client"}.get(name)
    here, there = ("server", "client") if name == "scaffold-server" else ("client", "server")
    optimizer = {here: {"modules": [name]}, there: {"modules": [partner] if partner else []}}
    optim = build_optim(plan(optimizer=optimizer))
    (module,) = (optim.client_opt if here == "client" else optim.server_opt).modules
    assert module.name == name


@pytest.mark.parametrize("name", get_args(Regularizer))
def test_every_regularizer_can_be_made(name: str) -> None:
    """Each regularizer that a file may name can be made without parameters."""
    (regularizer,) = build_optim(plan(optimizer={"client": {"regularizers": [name]}})).client_opt.regularizers
    assert regularizer.name == name


@pytest.mark.parametrize("name", get_args(Aggregator))
def test_every_aggregator_can_be_made(name: str) -> None:
    """Each aggregator that a file may name can be made without parameters."""
    assert build_optim(plan(aggregator=name)).aggregator.name == name


def test_a_whole_number_will_do_for_a_number() -> None:
    """`beta_1: 0` is as good as `beta_1: 0.0`, which declearn alone would take."""
    (adam,) = build_optim(plan(optimizer={"client": {"modules": [{"adam": {"beta_1": 0}}]}})).client_opt.modules
    assert adam.get_config()["beta_1"] == 0.0
