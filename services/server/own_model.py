"""A network that a user's own function returns: run, and refused where a federation can't train it.

Clients receive the network's configuration and its trainable weights, never code. So all of it must be Keras' own, and
nothing of it may be kept in weights that are not trained.
"""

from __future__ import annotations

import inspect
import sys
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from declearn.model.tensorflow import TensorflowModel
from keras import layers

from services import architecture
from services.errors import ExperimentError
from services.source import Source

MODULE = "fed_own_model"
"""Name under which the file is run."""

PROBES = 3
"""Images that a network is tried with."""


def build(source: Source, image_shape: tuple[int, ...], classes: int, seed: int, loss: str) -> TensorflowModel:
    """Call the function, and check what it returns.

    Args:
        source: the file and the function's name.
        image_shape: (height, width, channels) of one image, or (features,).
        classes: number of classes.
        seed: of the initial weights.
        loss: name of the loss of probabilities and labels.

    Returns:
        A built declearn model: images (n, *image_shape) to probabilities (n, classes).

    Raises:
        ExperimentError: the code fails, or what it returns can't be trained by a federation.
    """
    # layers without a name are numbered from where this process stands; a resumed run must find the same names
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    network = _call(source, image_shape, classes)
    if not isinstance(network, keras.Model):
        raise _refusal(source, f"returns {_kind(network)}", "a keras.Model")
    _check_shapes(source, network, image_shape, classes)
    _check_layers(source, network)
    _check_weights(source, network)
    _check_outputs(source, network, image_shape)
    model = TensorflowModel(network, loss=loss)
    _check_names(source, model)
    return model


def _refusal(source: Source, found: str, wanted: str, remedy: str = "") -> ExperimentError:
    return ExperimentError(f"{source.path}: {source.function} {found}", wanted, remedy or "mend that function")


def _call(source: Source, image_shape: tuple[int, ...], classes: int) -> Any:
    """Run the file, then the function; any failure is worded as one line that names the line of the file."""
    module = types.ModuleType(MODULE)
    module.__file__ = str(source.path)
    sys.modules[MODULE] = module
    try:
        # no import: that would look for, and leave, compiled files beside the user's
        exec(compile(source.text, str(source.path), "exec"), module.__dict__)  # noqa: S102 - the operator's own code
        function = getattr(module, source.function)
        if not callable(function):
            raise _refusal(source, f"is {_kind(function)}", "a function", "correct model.module")
        try:
            inspect.signature(function).bind(image_shape, classes)
        except TypeError as exc:
            raise _refusal(source, f"can't be called ({exc})", "two arguments: (image_shape, classes)") from exc
        return function(image_shape, classes)
    except ExperimentError:
        raise
    except (Exception, SystemExit) as exc:
        raise ExperimentError(
            f"{source.path}, line {_line(source, exc)}: {type(exc).__name__}: {_first_line(exc)}",
            f"{source.function} to return a keras.Model",
            "mend that line",
        ) from exc


def _line(source: Source, error: BaseException) -> int:
    """Tell the innermost line of the user's file that an error went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(source.path)]
    return (lines or [1])[-1] or 1


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of class {type(value).__name__}"


def _check_shapes(source: Source, network: keras.Model, image_shape: tuple[int, ...], classes: int) -> None:
    try:
        taken, given = network.input_shape, network.output_shape
    except AttributeError as exc:
        raise _refusal(
            source,
            "returns a model of no known input shape",
            "a functional or sequential model with an Input",
        ) from exc
    wanted = [image_shape, image_shape[:-1]] if len(image_shape) > 1 and image_shape[-1] == 1 else [image_shape]
    if not isinstance(taken, tuple) or not any(_fits(taken, (None, *shape)) for shape in wanted):
        raise _refusal(source, f"returns a model that takes {taken}", str((None, *image_shape)))
    if not isinstance(given, tuple) or not _fits(given, (None, classes)):
        raise _refusal(
            source, f"returns a model that gives {given}", f"{(None, classes)}, a probability for each class"
        )


def _fits(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(a is None or a == b for a, b in zip(shape, wanted, strict=True))


def _check_layers(source: Source, network: keras.Model) -> None:
    """Refuse layers that clients can't rebuild from their configuration."""
    everything = list(network._flatten_layers())  # noqa: SLF001 - no public getter goes below nested models
    inner = [layer for layer in everything if not isinstance(layer, keras.Model)]
    for layer in [*inner, *(model for model in everything if isinstance(model, keras.Model))]:
        fault = _foreign(layer)
        if fault is not None:
            raise _refusal(
                source,
                f"returns a model whose layer {layer.name!r} clients can't rebuild ({fault})",
                "layers, activations and initializers of Keras itself: clients receive a configuration, never code",
                "use those in its place",
            )


def _foreign(layer: layers.Layer) -> str | None:
    """Tell what of a layer clients refuse to build, or can't, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lambdas, which are refused below
        try:
            config = architecture.without_compilation(keras.saving.serialize_keras_object(layer))
            fault = architecture.fault(config)
            if fault is None:
                keras.saving.deserialize_keras_object(config, safe_mode=True)
        except Exception as exc:  # noqa: BLE001 - Keras raises whatever a layer's own code does
            return _first_line(exc)[:120]
    return fault


def _check_weights(source: Source, network: keras.Model) -> None:
    """Refuse weights that would not travel: clients and server exchange trainable ones, by name."""
    for layer in network._flatten_layers():  # noqa: SLF001
        if not isinstance(layer, keras.Model) and layer.non_trainable_weights:
            raise _refusal(
                source,
                f"returns a model whose {type(layer).__name__} {layer.name!r} keeps weights that are not trained",
                "trainable weights alone, which clients and server exchange",
                "freeze no layer, and use GroupNormalization for BatchNormalization",
            )
    if not network.trainable_weights:
        raise _refusal(source, "returns a model without weights", "something to train")


def _check_names(source: Source, model: TensorflowModel) -> None:
    """Refuse weights that share a name, or are called otherwise by a client that has rebuilt the network."""
    names = Counter(variable.value.name for variable in model.get_wrapped_model().trainable_weights)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise _refusal(
            source,
            f"returns a model with {count} weights called {name.partition(':')[0]!r}",
            "a name of its own for each layer",
            "name the layers of nested models",
        )
    theirs = TensorflowModel.from_config(model.get_config()).get_weights().coefs.keys()
    if theirs != names.keys():
        raise _refusal(
            source,
            f"returns a model whose weight {min(theirs ^ names.keys())!r} clients know by another name",
            "the same names wherever it is rebuilt",
            "give every layer a name",
        )


def _check_outputs(source: Source, network: keras.Model, image_shape: tuple[int, ...]) -> None:
    """Refuse outputs that are no probabilities, such as logits: the loss is their cross-entropy."""
    taken = network.input_shape[1:]
    images = np.random.default_rng(0).random((PROBES, *image_shape), np.float32)
    predict: Callable[..., Any] = network
    try:
        outputs = np.asarray(predict(images.reshape(PROBES, *image_shape[: len(taken)]), training=False))
    except Exception as exc:
        raise _refusal(
            source, f"returns a model that fails on images ({_first_line(exc)})", "one that predicts"
        ) from exc
    if not np.isfinite(outputs).all() or outputs.min() < 0 or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise _refusal(
            source,
            f"returns a model whose outputs for an image sum to {outputs[0].sum():.4g}",
            "probabilities, which sum to 1",
            "end with a softmax",
        )
