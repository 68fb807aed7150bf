"""Flower's server side of a benchmark: FedAvg of a Keras model, which notes when each round begins."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import keras
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg


def main(grid: Grid, context: Context) -> None:
    """Train for as many rounds as the run's settings say, and write the times of all of them."""
    folder, clients = Path(str(context.run_config["folder"])), int(context.run_config["clients"])
    network = keras.models.model_from_json((folder / "model.json").read_text(encoding="utf-8"))
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=1.0,
        min_train_nodes=clients,
        min_evaluate_nodes=clients,
        min_available_nodes=clients,
    )
    times: list[float] = []
    given = strategy.configure_train

    def configure_train(*arguments: Any, **options: Any) -> Any:
        times.append(time.monotonic())
        return given(*arguments, **options)

    strategy.configure_train = configure_train
    strategy.start(grid, ArrayRecord(network.get_weights()), int(context.run_config["rounds"]))
    times.append(time.monotonic())
    (folder / "aside.json").write_text(json.dumps(times), encoding="utf-8")
    (folder / "aside.json").rename(folder / "times.json")


app = ServerApp()
app.main()(main)
