"""Flower's client side of a benchmark: one step on one batch of its own images, and an evaluation of another."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp


def load(message: Message, context: Context) -> tuple[keras.Model, Path]:
    """Build the model with the weights of this round."""
    keras.backend.clear_session()
    folder = Path(str(context.run_config["folder"]))
    network = keras.models.model_from_json((folder / "model.json").read_text(encoding="utf-8"))
    network.set_weights(message.content["arrays"].to_numpy_ndarrays())
    network.compile(keras.optimizers.SGD(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return network, folder / str(context.node_config["site"])


def train(message: Message, context: Context) -> Message:
    """Make one step."""
    network, site = load(message, context)
    images, labels = (np.load(site / f"train_{part}.npy") for part in ("data", "target"))
    network.fit(images, labels, batch_size=len(images), epochs=1, verbose=0)
    metrics = MetricRecord({"num-examples": len(images)})
    content = RecordDict({"arrays": ArrayRecord(network.get_weights()), "metrics": metrics})
    return Message(content=content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    """Score the averaged model."""
    network, site = load(message, context)
    images, labels = (np.load(site / f"valid_{part}.npy") for part in ("data", "target"))
    loss, accuracy = network.evaluate(images, labels, batch_size=len(images), verbose=0)
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(images)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


app = ClientApp()
app.train()(train)
app.evaluate()(evaluate)
