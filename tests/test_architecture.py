"""Configurations of networks: what is code, or may become it, is told; what a network takes is known unbuilt."""

from __future__ import annotations

import copy
import inspect
import json
from typing import Any, cast

import keras
import numpy as np
import pytest
from declearn.model.tensorflow import TensorflowModel
from declearn.model.tensorflow.utils import build_keras_loss
from keras import layers

from services import architecture, source
from services.experiment import Plan
from services.experiment.model import Preset
from services.server.model import build_model
from tests.support import REPOSITORY

IMAGE = (8, 8, 1)


def travelling(network: keras.Model) -> dict[str, Any]:
    """Give a network's configuration as it comes out of a message, without how it was compiled."""
    config = architecture.without_compilation(keras.saving.serialize_keras_object(network))
    return cast("dict[str, Any]", json.loads(json.dumps(config)))


def sequential(*inner: Any) -> dict[str, Any]:
    """Put layers between an input and a softmax."""
    ends = layers.Flatten(name="flat"), layers.Dense(10, activation="softmax", name="classes")
    return travelling(keras.Sequential([layers.Input(IMAGE), *inner, *ends], name="net"))


def functional(*inner: Any) -> dict[str, Any]:
    """Put layers between an input and a softmax, one after another, and an operation between them."""
    images = layers.Input(IMAGE)
    value = images * 2 + 1
    for layer in inner:
        value = layer(value)
    value = keras.ops.mean(keras.ops.relu(value)[:, 1:], axis=(1, 2))
    return travelling(keras.Model(images, layers.Dense(10, activation="softmax")(value), name="net"))


def dense(config: dict[str, Any]) -> dict[str, Any]:
    """Find the last layer of a sequential network."""
    return cast("dict[str, Any]", config["config"]["layers"][-1])


PRESETS = Preset.__args__  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_travels(preset: str) -> None:
    """Each preset has no fault and the size that Keras counts, and clients know its weights by the same names."""
    model = cast("TensorflowModel", build_model(Plan.model_validate({"model": preset})))
    config = architecture.without_compilation(model.get_config()["model"])
    network = model.get_wrapped_model()
    assert architecture.fault(config) is None
    assert architecture.fault_in_loss(model.get_config()["loss"]) is None
    size = architecture.measured(config)
    states = sum(2 for layer in network.layers if isinstance(layer, layers.Dropout))
    assert size.parameters == network.count_params() + states
    assert (size.image_shape, size.classes) == ((28, 28, 1), 10)
    assert size.values > sum(np.prod(layer.output.shape[1:]) for layer in network.layers)
    rebuilt = TensorflowModel.from_config({**model.get_config(), "model": config})
    assert list(rebuilt.get_weights().coefs) == list(model.get_weights().coefs)


def test_the_model_of_ones_own_travels() -> None:
    """The file in experiments/, a functional network with a shortcut, has no fault."""
    read = source.read("my_model.py:build", REPOSITORY / "experiments")
    model = build_model(Plan.model_validate({"model": {"module": "my_model.py:build"}}), (20, 24, 3), 7, read)
    config = architecture.without_compilation(model.get_config()["model"])
    assert architecture.fault(config) is None
    size = architecture.measured(config)
    assert (size.image_shape, size.classes) == ((20, 24, 3), 7)
    assert size.parameters == cast("TensorflowModel", model).get_wrapped_model().count_params()


INNER = [
    lambda: layers.Conv2D(
        3, 3, padding="same", kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(2)
    ),
    lambda: layers.Conv2D(3, 3, padding="same", dtype="mixed_float16", kernel_initializer="orthogonal"),
    lambda: layers.TimeDistributed(layers.TimeDistributed(layers.Dense(4, activation=keras.ops.relu))),
    lambda: layers.TimeDistributed(layers.Bidirectional(layers.LSTM(3, return_sequences=True))),
    lambda: layers.TimeDistributed(layers.RNN(layers.StackedRNNCells([layers.GRUCell(2)]), return_sequences=True)),
    layers.LayerNormalization,
    lambda: keras.Sequential([layers.Dense(3), keras.Sequential([layers.LeakyReLU(0.1)])]),
    lambda: layers.RandomTranslation(0.1, 0.1),
    layers.BatchNormalization,
    lambda: layers.SeparableConv2D(2, 3, padding="same", depthwise_initializer=keras.initializers.Constant(0.1)),
]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("make", [sequential, functional])
def test_keras_own_parts_travel(make: Any, inner: Any) -> None:
    """Layers of all kinds, wrapped, nested, regularized, constrained, have no fault, and Keras builds what is told."""
    config = make(inner())
    assert architecture.fault(config) is None
    before = copy.deepcopy(config)
    size = architecture.measured(config)
    assert config == before, "Keras takes apart what it reads"
    network = keras.saving.deserialize_keras_object(config)
    assert size.parameters >= network.count_params() > 0
    assert size.classes == 10


def test_every_listed_name_is_one_of_keras() -> None:
    """No name is listed that Keras does not have, and no listed layer takes code, a file, or a module."""
    for module, names in architecture.LISTED.items():
        if module == "builtins":
            assert all(callable(getattr(keras.losses, name)) for name in names)
            continue
        found = keras if module == "keras" else __import__(module, fromlist=["*"])
        missing = {name for name in names if not inspect.isclass(getattr(found, name, None))}
        assert missing == ({"Functional"} if module == "keras" else set())
    takes_code = {"function", "filepath", "vocabulary", "module", "call_fn", "init_fn", "apply_fn", "layers"}
    for name in architecture.LISTED["keras.layers"]:
        assert takes_code.isdisjoint(inspect.signature(getattr(layers, name).__init__).parameters), name


# -- what is refused --------------------------------------------------------------------------------------------------


def half() -> layers.Layer:
    """Make a layer of code."""
    return layers.Lambda(lambda x: x / 2, name="half")


LAMBDA = "a Lambda layer is code"


@pytest.mark.parametrize(
    "inner",
    [
        half,
        lambda: layers.TimeDistributed(half()),
        lambda: keras.Sequential([half()]),
        lambda: keras.Sequential([keras.Sequential([layers.TimeDistributed(layers.TimeDistributed(half()))])]),
    ],
    ids=["bare", "wrapped", "nested", "deep"],
)
@pytest.mark.parametrize("make", [sequential, functional])
def test_a_lambda_is_found_wherever_it_stands(make: Any, inner: Any) -> None:
    """A layer of code is told of in sequential and functional networks, in wrappers and in networks within."""
    assert architecture.fault(make(inner())) == LAMBDA


BYTECODE = {"class_name": "__lambda__", "config": {"value": "4wEAAAAAAAAAAAAAAAEAAAABAAAA", "defaults": None}}


def placed(value: Any, key: str) -> dict[str, Any]:
    """Put a value in place of something within the last layer, or beside it."""
    config = sequential()
    if key == "layer":
        config["config"]["layers"].insert(1, value)
    elif key in {"build_config", "shared_object_id", "custom_objects"}:
        dense(config)[key] = value
    else:
        dense(config)["config"][key] = value
    return config


def named(module: Any, kind: Any, registered: Any = None, /, **config: Any) -> dict[str, Any]:
    """Name an object as Keras does."""
    return {"module": module, "class_name": kind, "config": config, "registered_name": registered}


@pytest.mark.parametrize("key", ["layer", "activation", "kernel_initializer", "quantization_config", "build_config"])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (BYTECODE, "a lambda is code"),
        (named("keras.layers", "Lambda", function=BYTECODE), LAMBDA),
        (named("os", "system"), "class 'system' is not of Keras"),
        (named("builtins", "function") | {"config": "eval"}, "function 'eval' is not of Keras"),
        (named("os", "function", "system") | {"config": "system"}, "function 'system' is not of Keras"),
        (
            named("keras.src.utils.file_utils", "function") | {"config": "get_file"},
            "function 'get_file' is not of Keras",
        ),
        (named("keras.utils", "get_file"), "'keras.utils.get_file' is not among what clients build"),
        (named("keras_hub.layers", "Anything"), "class 'Anything' is not of Keras"),
        (
            named("keras.layers", "TorchModuleWrapper"),
            "'keras.layers.TorchModuleWrapper' is not among what clients build",
        ),
        (named("keras.layers", "TFSMLayer", filepath="/x"), "'keras.layers.TFSMLayer' is not among what clients build"),
        (named("keras.layers", "StringLookup"), "'keras.layers.StringLookup' is not among what clients build"),
        (named("keras.src.layers.core.lambda_layer", "Dense"), None),
        (named("keras.layers", "Dense", "declearn>LossFunction"), None),
        (named("keras.layers", "Dense", "Custom>Dense"), None),
        ({"class_name": "Dense", "config": {}}, "class 'Dense' is not of Keras"),
        (named(None, "Dense"), "class 'Dense' is not of Keras"),
        (named("keras.layers", ["Dense"]), "it names a class by what is no text"),
        (named("keras.layers", "Dense") | {"shared_object_id": 1}, "class 'Dense' comes with 'shared_object_id'"),
        (named("keras.layers", "Dense") | {"custom_objects": {}}, "class 'Dense' comes with 'custom_objects'"),
        (named("keras.layers", "Dense") | {"config": "x"}, "class 'Dense' has no configuration"),
        (named("keras.layers", "Dense", inner=named("os", "system")), "class 'system' is not of Keras"),
        (named("keras", "DTypePolicy", name="int8_from_float32"), "it computes in 'int8_from_float32'"),
        (named("keras.layers", "Dense", dtype="int8_from_float32"), "it computes in 'int8_from_float32'"),
        (named("keras.layers", "LSTM", units=1, unroll=True), "it is unrolled, which takes a copy of its operations"),
        (
            {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []},
            "class '__typespec__' is not of",
        ),
        (
            {"class_name": "__tensor__", "config": {"value": 1, "dtype": "float32"}},
            "class '__tensor__' is not of Keras",
        ),
        ({"class_name": "__slice__", "config": {"start": named("os", "system")}}, "its __slice__ is none"),
        (
            {"class_name": "__slice__", "config": {"start": named("os", "system"), "stop": None, "step": None}},
            "class 'system' is not of Keras",
        ),
        (b"\x80\x04", "it holds an object of class bytes"),
        ({1: 2}, "it has a key that is no text"),
    ],
)
def test_what_is_not_listed_is_told_of(value: Any, fault: str | None, key: str) -> None:
    """Code, other modules, other names and whatever reads files are told of, in place of a layer or within one."""
    found = architecture.fault(placed(copy.deepcopy(value), key))
    assert found is not None
    assert found.startswith(fault or "")


def test_a_configuration_may_not_be_endless() -> None:
    """Nesting and the number of layers are bounded; as many as that are none too many."""
    deep: Any = {}
    for _ in range(100):
        deep = {"config": deep}
    assert architecture.fault(placed(deep, "build_config")) == "it is nested too deeply"
    config = sequential()
    layer = config["config"]["layers"][1]
    config["config"]["layers"][1:2] = [layer] * (architecture.MOST_LAYERS - 2)
    assert architecture.count(config) == architecture.MOST_LAYERS
    assert architecture.fault(config) is None
    config["config"]["layers"].insert(1, layer)
    assert architecture.fault(config) == "it has 501 layers, more than 500"


def test_how_a_network_was_compiled_does_not_travel() -> None:
    """Optimizers and metrics of a compiled network, within nested ones too, are left out, whatever they are."""
    inner = keras.Sequential([layers.Input((10,)), layers.Dense(10)])
    network = keras.Sequential([layers.Input((10,)), inner])
    for each in (inner, network):
        each.compile(optimizer="adam", loss="mse", metrics=["accuracy"])
    whole = keras.saving.serialize_keras_object(network)
    whole["config"]["layers"][1].setdefault("compile_config", {"optimizer": named("os", "system")})
    assert "compile_config" in whole
    assert "compile_config" not in json.dumps(architecture.without_compilation(whole))


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        ("sparse_categorical_crossentropy", None),
        ("SparseCategoricalCrossentropy", None),
        (named("keras.losses", "SparseCategoricalCrossentropy", from_logits=False), None),
        (keras.losses.serialize(build_keras_loss("kl_divergence")), None),
        ("os.system", "loss 'os.system' is not of Keras"),
        (named("keras.layers", "Dense"), "'Dense' is no loss"),
        (named("keras.losses", "Loss"), "'keras.losses.Loss' is not among what clients build"),
        (
            named("declearn.model.tensorflow.utils._loss", "LossFunction", "declearn>LossFunction", loss_fn=BYTECODE),
            "a lambda is code",
        ),
    ],
)
def test_a_loss_is_one_of_keras(loss: Any, fault: str | None) -> None:
    """A loss by name, as a class, or as declearn wraps a function, is one that Keras has; else it is told of."""
    assert architecture.fault_in_loss(loss) == fault


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_a_network_is_measured_without_room_for_it() -> None:
    """A hundred billion units, which no machine has room for, are counted all the same."""
    config = sequential()
    dense(config)["config"]["units"] = 10**11
    dense(config).pop("build_config")
    size = architecture.measured(config)
    assert size.parameters == 65 * 10**11
    assert size.classes == 10**11


def test_what_lies_between_layers_counts() -> None:
    """An attention over all pairs of pixels has few parameters, and a number for each pair."""
    config = travelling(
        keras.Sequential([layers.Input((64, 64, 1)), layers.Reshape((4096, 1)), layers.Flatten(), layers.Dense(2)])
    )
    images = layers.Input((64, 64, 1))
    pixels = layers.Reshape((4096, 1))(images)
    value = layers.MultiHeadAttention(1, 1)(pixels, pixels)
    attending = travelling(keras.Model(images, layers.Dense(2)(layers.Flatten()(value))))
    assert architecture.fault(attending) is None
    plain, large = architecture.measured(config), architecture.measured(attending)
    assert large.parameters < plain.parameters + 10
    assert large.values > 4096**2 > 100 * plain.values


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda config: dense(config)["config"].update(units=-1), "TypeError: Received an invalid value for `units`"),
        (lambda config: dense(config)["config"].update(strange=1), "TypeError: "),
        (lambda config: config["config"]["layers"].pop(0), "ValueError: its input_shape is None, not a single one"),
        (lambda config: config["config"]["layers"].pop(), None),
        (lambda config: config["config"].pop("layers"), "KeyError: "),
    ],
)
def test_what_keras_can_not_build_is_one_line(change: Any, line: str | None) -> None:
    """A configuration that is none, or has no input, is one line; one that ends without a Dense is a network too."""
    config = sequential()
    change(config)
    config.pop("build_config", None)
    config["config"].pop("build_input_shape", None)
    if line is None:
        assert architecture.measured(config).classes == 64
        return
    with pytest.raises(ValueError, match="^" + line) as caught:
        architecture.measured(config)
    assert "\n" not in str(caught.value)


def test_measuring_counts_no_names_up() -> None:
    """Layers without a name are called the same after a network was measured as they would have been without."""
    config = sequential(layers.Dense(3))
    keras.backend.clear_session()
    architecture.measured(config)
    assert layers.Dense(3).name == "dense"
