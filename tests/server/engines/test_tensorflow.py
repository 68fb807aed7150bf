"""Networks of Keras: what is kept of them. How they are built is in tests/server/test_model.py."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

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
