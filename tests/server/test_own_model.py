"""A network of the user's own: what is built, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
from declearn.model.tensorflow import TensorflowModel

from services import source
from services.errors import ExperimentError
from services.experiment import Plan
from services.server.model import build_model
from tests.support import REPOSITORY

HEAD = """
import keras
from keras import layers

def dense(count, **more):
    return layers.Dense(count, **more)

def softmax(count, **more):
    return layers.Dense(count, activation="softmax", **more)

def chain(*inner, shape=(28, 28, 1)):
    return keras.Sequential([layers.Input(shape), layers.Flatten(), *inner])

def build(image_shape, classes):
"""
"""Line 15 is the first of what follows."""


def build(folder: Path, body: str, shape: tuple[int, ...] = (28, 28), head: str = HEAD) -> TensorflowModel:
    """Build what the function of that body returns."""
    (folder / "m.py").write_text(head + body, encoding="utf-8")
    read = source.read("m.py:build", folder)
    plan = Plan.model_validate({"model": {"module": "m.py:build"}, "seed": 3})
    return cast("TensorflowModel", build_model(plan, shape, 10, read))


def refusal(folder: Path, body: str, head: str = HEAD) -> str:
    """Build what must be refused, and give the line without the folder's name."""
    with pytest.raises(ExperimentError) as caught:
        build(folder, body, head=head)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "")


def names(model: TensorflowModel) -> list[str]:
    """List the names that a checkpoint goes by."""
    return list(model.get_weights().coefs)


def test_the_example_is_built() -> None:
    """The file in experiments/ is a network that a federation can train, with channels or without."""
    read = source.read("my_model.py:build", REPOSITORY / "experiments")
    plan = Plan.model_validate({"model": {"module": "my_model.py:build"}})
    for shape in ((28, 28), (20, 24, 3)):
        model = build_model(plan, shape, 10, read)
        images = np.zeros((2, *shape), np.float32)
        _, outputs, _ = model.compute_batch_predictions((images, np.zeros(2, np.uint8), None))
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
    assert not (REPOSITORY / "experiments" / "__pycache__").exists()


@pytest.mark.parametrize("shape", ["image_shape", "(28, 28)", "(None, 28, 1)"])
def test_a_single_channel_may_have_an_axis_or_none(tmp_path: Path, shape: str) -> None:
    """A model may take images of one channel as (28, 28, 1) or (28, 28), or leave a side open that its layers do."""
    pool = "layers.GlobalAveragePooling2D(), " if "None" in shape else "layers.Flatten(), "
    model = build(tmp_path, f"    return keras.Sequential([layers.Input({shape}), {pool}softmax(classes)])")
    assert model.get_wrapped_model().output_shape == (None, 10)


def test_names_and_weights_come_again(tmp_path: Path) -> None:
    """A resumed run finds the same names of weights and the same initial ones, whatever was built before."""
    body = "    return chain(dense(4), layers.Dropout(0.5), softmax(classes))"
    first = build(tmp_path, body)
    keras.layers.Dense(3)
    keras.random.uniform((3,))
    again = build(tmp_path, body)
    assert names(first) == names(again) == ["dense/kernel:0", "dense/bias:0", "dense_1/kernel:0", "dense_1/bias:0"]
    assert first.get_weights() == again.get_weights()


def test_weights_that_the_function_sets_are_kept(tmp_path: Path) -> None:
    """A function may begin from weights of its own."""
    body = "    m = chain(softmax(classes))\n    m.set_weights([w * 0 + 2 for w in m.get_weights()])\n    return m"
    for value in build(tmp_path, body).get_weights().coefs.values():
        np.testing.assert_array_equal(value, 2)


NAMED = "m.py: build returns a model whose "
OURS = "; wanted layers, activations and initializers of Keras itself: clients receive a configuration, never code;"
INSTEAD = f"{OURS} use those in its place"
TRAVEL = (
    " keeps weights that are not trained; wanted trainable weights alone, which clients and server exchange;"
    " freeze no layer, and use GroupNormalization for BatchNormalization"
)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            "    return chain(layers.Lambda(lambda x: x, name='half'), softmax(classes))",
            f"{NAMED}layer 'half' clients can't rebuild (a Lambda layer is code){INSTEAD}",
        ),
        (
            "    class Mine(layers.Dense): pass\n    return chain(Mine(3, name='own'), softmax(classes))",
            f"{NAMED}layer 'own' clients can't rebuild (class 'Mine' is not of Keras){INSTEAD}",
        ),
        (
            (
                "    @keras.saving.register_keras_serializable()\n    class Known(layers.Dense): pass\n"
                "    return chain(Known(3, name='own'), softmax(classes))"
            ),
            f"{NAMED}layer 'own' clients can't rebuild (class 'Known' is not of Keras){INSTEAD}",
        ),
        (
            (
                "    class Mine(layers.Dense): pass\n"
                "    return chain(keras.Sequential([Mine(3, name='deep')], name='block'), softmax(classes))"
            ),
            f"{NAMED}layer 'deep' clients can't rebuild (class 'Mine' is not of Keras){INSTEAD}",
        ),
        (
            "    def act(x): return x\n    return chain(dense(3, activation=act, name='odd'), softmax(classes))",
            f"{NAMED}layer 'odd' clients can't rebuild (function 'act' is not of Keras){INSTEAD}",
        ),
        (
            "    return chain(layers.Discretization([0.5], name='cut'), softmax(classes))",
            (
                f"{NAMED}layer 'cut' clients can't rebuild ('keras.layers.Discretization' is not among what clients"
                f" build){INSTEAD}"
            ),
        ),
        (
            "    return chain(layers.BatchNormalization(name='norm'), softmax(classes))",
            f"{NAMED}BatchNormalization 'norm'{TRAVEL}",
        ),
        (
            "    return chain(dense(4, trainable=False, name='cold'), softmax(classes))",
            f"{NAMED}Dense 'cold'{TRAVEL}",
        ),
    ],
)
def test_what_clients_can_not_rebuild_is_refused(tmp_path: Path, body: str, line: str) -> None:
    """Code, and weights that would not travel, are refused with the name of their layer, however deep it stands."""
    assert refusal(tmp_path, body) == line


@pytest.mark.parametrize(
    "initializer", ["lambda s, dtype=None: keras.ops.zeros(s)", "lambda s, **_: keras.ops.ones(s)"]
)
@pytest.mark.parametrize("key", ["kernel_initializer", "activation"])
def test_a_lambda_is_refused_wherever_it_stands(tmp_path: Path, key: str, initializer: str) -> None:
    """A lambda in place of an activation or an initializer is refused with the name of its layer."""
    code = initializer if key == "kernel_initializer" else "lambda x: x"
    line = refusal(tmp_path, f"    return chain(dense(4, {key}={code}, name='odd'), softmax(classes))")
    assert line.startswith(f"{NAMED}layer 'odd' clients can't rebuild (")
    assert line.endswith(INSTEAD)


def test_a_model_class_of_ones_own_is_refused(tmp_path: Path) -> None:
    """A subclassed model, whose `call` is code, is refused."""
    body = (
        "    class Net(keras.Model):\n"
        "        def __init__(self):\n            super().__init__()\n            self.inner = softmax(classes)\n"
        "        def call(self, x): return self.inner(layers.Flatten()(x))\n"
        "    net = Net()\n    net(keras.ops.zeros((1, 28, 28, 1)))\n    return net"
    )
    assert refusal(tmp_path, body) == (
        "m.py: build returns a model of no known input shape;"
        " wanted a functional or sequential model with an Input; mend that function"
    )


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("    pass", "m.py: build returns None; wanted a keras.Model; mend that function"),
        ("    return 3", "m.py: build returns an object of class int; wanted a keras.Model; mend that function"),
        (
            "    return dense(classes)",
            "m.py: build returns an object of class Dense; wanted a keras.Model; mend that function",
        ),
        (
            "    return keras.Sequential([softmax(classes)])",
            (
                "m.py: build returns a model of no known input shape;"
                " wanted a functional or sequential model with an Input; mend that function"
            ),
        ),
        (
            "    return chain(softmax(classes), shape=(32, 32, 3))",
            ("m.py: build returns a model that takes (None, 32, 32, 3); wanted (None, 28, 28, 1); mend that function"),
        ),
        (
            "    return chain(softmax(9))",
            (
                "m.py: build returns a model that gives (None, 9); wanted (None, 10), a probability for each class;"
                " mend that function"
            ),
        ),
        (
            "    return chain(layers.Dense(classes, kernel_initializer='zeros'))",
            (
                "m.py: build returns a model whose outputs for an image sum to 0; wanted probabilities, which sum to 1;"
                " end with a softmax"
            ),
        ),
        (
            "    return chain(layers.Reshape((784, 1)), layers.MaxPool1D(78), layers.Flatten(), layers.Softmax())",
            "m.py: build returns a model without weights; wanted something to train; mend that function",
        ),
        (
            (
                "    a = keras.Sequential([dense(4, name='same')], name='a')\n"
                "    b = keras.Sequential([dense(4, name='same')], name='b')\n"
                "    return chain(a, b, softmax(classes))"
            ),
            (
                "m.py: build returns a model with 2 weights called 'same/kernel';"
                " wanted a name of its own for each layer; name the layers of nested models"
            ),
        ),
    ],
)
def test_what_is_no_classifier_of_such_images_is_refused(tmp_path: Path, body: str, line: str) -> None:
    """What is no model, takes other images, or gives no probabilities is refused with what was wanted."""
    assert refusal(tmp_path, body) == line


@pytest.mark.parametrize(
    ("head", "body", "line"),
    [
        (
            HEAD,
            "    return nothing",
            (
                "m.py, line 15: NameError: name 'nothing' is not defined;"
                " wanted build to return a keras.Model; mend that line"
            ),
        ),
        (
            HEAD,
            "    x = 1\n    return dense('four')(x)",
            None,
        ),
        (
            "import nowhere_to_be_found\ndef build(image_shape, classes):\n",
            "    ...",
            (
                "m.py, line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found';"
                " wanted build to return a keras.Model; mend that line"
            ),
        ),
        (
            "def build(image_shape, classes):\n",
            "    raise SystemExit",
            "m.py, line 2: SystemExit: no reason given; wanted build to return a keras.Model; mend that line",
        ),
        (
            "def build(image_shape):\n",
            "    ...",
            (
                "m.py: build can't be called (too many positional arguments);"
                " wanted two arguments: (image_shape, classes); mend that function"
            ),
        ),
        (
            "build = 3\n",
            "",
            "m.py: build is an object of class int; wanted a function; correct model.module",
        ),
    ],
)
def test_a_failure_in_the_users_code_is_one_line(tmp_path: Path, head: str, body: str, line: str | None) -> None:
    """An exception is told with file, line and error, that of Keras too, with the user's line."""
    told = refusal(tmp_path, body, head)
    assert told == line if line else told.startswith("m.py, line 6: ValueError: ")


def test_layers_that_draw_at_random_are_fine(tmp_path: Path) -> None:
    """Augmentation and dropout keep a seed, which is no weight and need not travel."""
    body = (
        "    return keras.Sequential([layers.Input(image_shape), layers.RandomTranslation(0.1, 0.1),"
        " layers.Rescaling(2.0), layers.Flatten(), layers.LayerNormalization(), layers.Dropout(0.2), softmax(classes)])"
    )
    model: Any = build(tmp_path, body).get_wrapped_model()
    assert len(model.trainable_weights) == len(model.weights) == 4


def test_operations_between_layers_are_looked_at(tmp_path: Path) -> None:
    """Arithmetic between layers is a client's too; an operation that clients do not build is refused."""
    body = (
        "    images = layers.Input(image_shape)\n    flat = layers.Flatten(name='flat')(images)\n"
        "    return keras.Model(images, softmax(classes, name='end')({}), name='net')"
    )
    assert build(tmp_path, body.format("flat * 2 - 1")).get_wrapped_model().output_shape == (None, 10)
    line = refusal(tmp_path, body.format("keras.ops.sort(flat)"))
    assert line == (
        f"{NAMED}layer 'net' clients can't rebuild ('keras.src.ops.numpy.Sort' is not among what clients"
        f" build){INSTEAD}"
    )
