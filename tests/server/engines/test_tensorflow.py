"""Networks of Keras: what is kept of them. How they are built is in tests/server/test_model.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from services.errors import DataError
from services.experiment import Plan
from services.server.engines.tensorflow import TensorflowEngine
from services.server.model import build_model


@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_the_model_loads_in_plain_keras(tmp_path: Path) -> None:
    """model.keras gives the network's predictions, loss and accuracy in plain Keras, and loads without a warning."""
    model = build_model(Plan(seed=3))
    network = model.get_wrapped_model()
    engine = TensorflowEngine()
    (tmp_path / engine.file).write_bytes(engine.dump(model))
    images = np.random.default_rng(0).random((20, 28, 28), np.float32)
    outputs = network.predict_on_batch(images)
    labels = outputs.argmax(axis=1)
    labels[:5] = (labels[:5] + 1) % 10
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(images), outputs)
    loss, accuracy = loaded.evaluate(images, labels, verbose=0)
    assert accuracy == pytest.approx(0.75)
    assert loss == pytest.approx(-np.log(outputs[np.arange(20), labels]).mean(), rel=1e-5)


def test_what_is_kept_reads_back(tmp_path: Path) -> None:
    """A network that was read gives the probabilities of the one that was kept."""
    model, engine = build_model(Plan(seed=3)), TensorflowEngine()
    path = tmp_path / engine.file
    path.write_bytes(engine.dump(model))
    kept = engine.read(path)
    assert kept.shape == (28, 28, 1)
    images = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)
    scores = kept.scorer.predict(images)
    np.testing.assert_allclose(scores, engine.scorer(model).predict(images))
    assert kept.scorer.chances(scores) is scores


def saved(path: Path, network: keras.Model) -> None:
    """Save a network as Keras does."""
    network.save(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"no archive"), ""),
        (lambda path: path.mkdir(), ""),
        (
            lambda path: saved(path, keras.Sequential([keras.layers.Input((5, 5)), keras.layers.Flatten()])),
            "it takes (None, 5, 5) and gives (None, 25)",
        ),
        (
            lambda path: saved(path, keras.Sequential([keras.layers.Input((4,)), keras.layers.Reshape((2, 2))])),
            "it takes (None, 4) and gives (None, 2, 2)",
        ),
        (
            lambda path: saved(
                path, keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda value: value)])
            ),
            "",
        ),
    ],
    ids=["no archive", "a folder", "no image", "no probabilities", "code"],
)
def test_what_is_no_network_of_images_is_refused(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    """A file that holds something else, or code, is told in one line, and no code in it is run."""
    path = tmp_path / "model.keras"
    make(path)
    with pytest.raises(DataError) as caught:
        TensorflowEngine().read(path)
    line = str(caught.value)
    assert line.startswith(f"{path} can't be used as a model ({reason}")
    assert line.endswith("); wanted the model that a run left; name another file")
    assert "\n" not in line
