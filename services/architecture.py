"""Networks as they travel: configurations of Keras, told to be free of code, and measured, before any is built.

Keras rebuilds a network from nested dictionaries that name classes. Some of its classes run what their configuration
holds (`Lambda`), read files (`TFSMLayer`, a lookup's vocabulary) or unpickle (`TorchModuleWrapper`), and a name may
lead into any module below `keras`. Its own safe mode lists what is refused, and grew with each hole that was found.
Here everything is refused that is not listed: what a later Keras adds is refused until somebody has read it.
"""

from __future__ import annotations

import concurrent.futures
import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEEPEST = 64
"""Levels of a configuration; a network within a network takes about five."""

MOST_LAYERS = 500
"""Layers and operations of a network. Keras takes a time that grows with their square to rebuild a `Sequential`."""


TABLE = """
keras: DTypePolicy Functional Sequential
keras.constraints: MaxNorm MinMaxNorm NonNeg UnitNorm
keras.initializers: Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal
  LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
keras.layers: Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
  AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
  AlphaDropout Attention AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization
  Bidirectional CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D
  ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU
  EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
  GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
  GroupNormalization Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D
  MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN
  RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomErasing RandomFlip
  RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation
  RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape
  Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D
  SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization
  UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
keras.losses: BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy
  CategoricalGeneralizedCrossEntropy CategoricalHinge CosineSimilarity Dice Hinge Huber KLDivergence LogCosh
  MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson
  SparseCategoricalCrossentropy SquaredHinge Tversky
keras.regularizers: L1 L1L2 L2 OrthogonalRegularizer
keras.src.models.functional: Functional
keras.src.ops.nn: Celu Elu Gelu Glu HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid LogSoftmax Normalize Relu Relu6
  Selu Sigmoid Silu Softmax Softplus Softsign
keras.src.ops.numpy: Abs Absolute Add Argmax Average BroadcastTo Clip Concatenate Cos Divide Dot Einsum Exp ExpandDims
  Flip GetItem Log Matmul Max Maximum Mean Min Minimum Moveaxis Multiply Negative Pad Power Prod Reciprocal Repeat
  Reshape Roll Sign Sin Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Tanh Tile Transpose TrueDivide Var Where
builtins: binary_crossentropy binary_focal_crossentropy categorical_crossentropy categorical_focal_crossentropy
  categorical_hinge cosine_similarity dice hinge huber kl_divergence log_cosh mean_absolute_error
  mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error poisson
  sparse_categorical_crossentropy squared_hinge tversky
"""
"""What a configuration may name, by module: classes whose own configuration is numbers, names and further such classes.

`keras.src.ops` is what stands between the layers of a functional network, as `x * 2 + y` makes it. Of functions
(`builtins`) losses alone travel so; activations are bare names, which Keras looks up in a table of its own.
"""


def _listed(table: str) -> Mapping[str, frozenset[str]]:
    """Read a table of modules; a line that begins with a blank goes on with the one before."""
    lines = table.strip().replace("\n  ", " ").splitlines()
    return {module: frozenset(names.split()) for module, _, names in (line.partition(": ") for line in lines)}


LISTED = _listed(TABLE)
LOSSES, FUNCTIONS = LISTED["keras.losses"], LISTED["builtins"]
NETWORKS = frozenset({("keras", "Sequential"), ("keras", "Functional"), ("keras.src.models.functional", "Functional")})

WRAPPED_LOSS = ("declearn.model.tensorflow.utils._loss", "LossFunction")
"""declearn's container of a loss that is a function; registered with Keras under `WRAPPED_LOSS_NAME`."""

WRAPPED_LOSS_NAME = "declearn>LossFunction"

VALUES = {"__keras_tensor__": {"shape", "dtype", "keras_history"}, "__slice__": {"start", "stop", "step"}}
"""What stands for a value between layers, by its `class_name`, with the keys of its `config`."""

KEYS = frozenset({"module", "class_name", "config", "registered_name", "build_config", "name", "inbound_nodes"})
"""Keys of an object; `compile_config` is taken away before, since a client compiles by itself."""

NUMBERS = frozenset({"bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"})
PRECISIONS = frozenset({"float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"})
"""Names of types of tensors, and of policies of them; those that are left out quantize."""


REASON = "Exception encountered:"
"""What Keras begins a line with that quotes another error."""


@dataclass(frozen=True)
class Size:
    """What a network takes.

    Attributes:
        parameters: numbers in its weights.
        values: numbers that a forward pass makes of one image, all tensors on the way together.
        image_shape: of one image.
        classes: length of its output.
    """

    parameters: int
    values: int
    image_shape: tuple[int | None, ...]
    classes: int


def without_compilation(config: Any) -> Any:
    """Copy a configuration without how its networks were compiled: optimizers, and metrics, of Keras' own."""
    if isinstance(config, Mapping):
        network = "class_name" in config
        return {
            key: without_compilation(value)
            for key, value in config.items()
            if not (network and key == "compile_config")
        }
    if isinstance(config, list | tuple):
        return [without_compilation(value) for value in config]
    return config


def fault(config: Any) -> str | None:
    """Tell what a configuration holds that is not among what is listed here, or None.

    Args:
        config: nested dictionaries and lists, as `keras.saving.serialize_keras_object` gives them for a layer or a
            network, without how that was compiled.
    """
    found = next(_faults(config, 0), None)
    if found is None and count(config) > MOST_LAYERS:
        return f"it has {count(config)} layers, more than {MOST_LAYERS}"
    return found


def fault_in_loss(config: Any) -> str | None:
    """Tell why a loss is none of Keras' own, or None; it is a configuration, or a name.

    Args:
        config: as `keras.losses.serialize` gives it.
    """
    if isinstance(config, str):
        return None if config in LOSSES | FUNCTIONS else f"loss {_shown(config)} is not of Keras"
    found = fault(config)
    if found is None and (config.get("module"), config.get("class_name")) not in {
        WRAPPED_LOSS,
        *(("keras.losses", name) for name in LOSSES),
    }:
        return f"{_shown(config.get('class_name'))} is no loss"
    return found


def count(config: Any) -> int:
    """Tell how many layers and operations a configuration has, those of networks within it included."""
    if isinstance(config, Mapping):
        module = str(config.get("module"))
        own = "class_name" in config and (module == "keras.layers" or module.startswith("keras.src.ops."))
        return own + sum(count(value) for value in config.values())
    return sum(count(value) for value in config) if isinstance(config, list | tuple) else 0


def _faults(value: Any, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        yield "it is nested too deeply"
    elif isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            yield "it has a key that is no text"
        elif "class_name" in value:
            yield from _faults_of_object(value, depth)
        else:
            yield from _faults_of_options(value, depth)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _faults(item, depth + 1)
    elif not isinstance(value, str | int | float | None):
        yield f"it holds an object of class {type(value).__name__}"


def _faults_of_object(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Look at a dictionary of which Keras makes an object."""
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    if not isinstance(name, str) or not isinstance(module, str | None):
        yield "it names a class by what is no text"
    elif name == "Lambda":
        yield "a Lambda layer is code"
    elif name == "__lambda__":
        yield "a lambda is code"
    elif name in VALUES:
        if value.keys() != {"class_name", "config"} or not isinstance(config, Mapping) or config.keys() != VALUES[name]:
            yield f"its {name} is none"
        else:
            yield from _faults_of_options(config, depth + 1)
    elif name == "function":
        known = module == "builtins" or (module or "").partition(".")[0] == "keras"
        if not known or config not in FUNCTIONS or value.get("registered_name") not in {None, config, "function"}:
            yield f"function {_shown(config)} is not of Keras"
    else:
        yield from _faults_of_class(value, depth)


def _faults_of_class(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    name, module, known = value["class_name"], value.get("module"), value.get("registered_name")
    loss = (module, name) == WRAPPED_LOSS and known == WRAPPED_LOSS_NAME
    if not loss and (module is None or module.partition(".")[0] != "keras"):
        yield f"class {_shown(name)} is not of Keras"
    elif not loss and name not in LISTED.get(str(module), ()):
        yield f"{_shown(f'{module}.{name}')} is not among what clients build"
    elif not loss and known not in {None, name}:
        yield f"class {_shown(name)} is registered as {_shown(known)}"
    elif strange := sorted(value.keys() - KEYS):
        yield f"class {_shown(name)} comes with {_shown(strange[0])}"
    elif not isinstance(value.get("config"), Mapping):
        yield f"class {_shown(name)} has no configuration"
    elif name == "DTypePolicy" and value["config"].get("name") not in PRECISIONS:
        yield f"it computes in {_shown(value['config'].get('name'))}"
    else:
        for key in value.keys() - {"module", "class_name", "registered_name"}:
            yield from _faults(value[key], depth + 1)


def _faults_of_options(options: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Look at what an object is made with, or at any other dictionary."""
    for key, value in options.items():
        if key == "dtype" and isinstance(value, str) and value not in NUMBERS | PRECISIONS:
            yield f"it computes in {_shown(value)}"
        if key == "unroll" and value:
            yield "it is unrolled, which takes a copy of its operations for each step"
        yield from _faults(value, depth + 1)


def _shown(value: object) -> str:
    return repr(value)[:80]


def measured(config: Mapping[str, Any]) -> Size:
    """Measure a network without room for its weights.

    Keras builds it within a scope in which weights have a shape and no value; what it makes of an image is read off
    the graph of a forward pass that is never run.

    Args:
        config: of a network that has no `fault`.

    Raises:
        ValueError: Keras can't build it, or it has no single input and output of known shape.
    """
    # Keras counts names up by thread, and names of weights are what clients and server know them by
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="measure") as thread:
        try:
            return thread.submit(_measured, config).result()
        except Exception as exc:
            raise ValueError(f"{type(exc).__name__}: {_words(exc)[:200]}") from exc


def _words(error: Exception) -> str:
    """Give the line of Keras' long messages that says what happened: the innermost error that they quote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.removeprefix(REASON).strip() for line in lines if line.startswith(REASON)]
    return (told[-1:] or lines[:1] or [""])[0]


def _measured(config: Mapping[str, Any]) -> Size:
    import keras  # noqa: PLC0415 - TensorFlow takes seconds
    import tensorflow as tf  # noqa: PLC0415

    with keras.StatelessScope(initialize_variables=False):
        # a copy: Keras takes a configuration apart while it reads it
        network = keras.saving.deserialize_keras_object(copy.deepcopy(config))
        taken, given = _shape(network, "input_shape"), _shape(network, "output_shape")
        if len(given) != 1 or given[0] is None:
            raise ValueError(f"it gives {given} for an image, not a number for each class")
        parameters = sum(math.prod(variable.shape) for variable in network.variables)
        forward = tf.function(lambda images: network(images, training=True))
        graph = forward.get_concrete_function(tf.TensorSpec((1, *taken), tf.float32)).graph
    return Size(parameters, _values(graph), taken, given[0])


def _shape(network: Any, name: str) -> tuple[int | None, ...]:
    """Give the shape of its input or output for one image."""
    found = getattr(network, name, None)
    if not isinstance(found, tuple) or not all(isinstance(length, int | None) for length in found):
        raise ValueError(f"its {name} is {found}, not a single one")
    return found[1:]


def _values(graph: Any) -> int:
    """Add up the sizes of all tensors that depend on the image; a side that is not known counts once."""
    dependent = {id(tensor) for tensor in graph.inputs}
    total = 0
    for operation in graph.get_operations():
        if operation.type != "Placeholder" and not any(id(tensor) in dependent for tensor in operation.inputs):
            continue
        for tensor in operation.outputs:
            dependent.add(id(tensor))
            total += math.prod(length or 1 for length in tensor.shape.as_list()) if tensor.shape.rank else 1
    return total
