"""What a network learns where all data lie in one place: a preset in plain Keras, without declearn or any federation.

It trains on the whole training set of MNIST and is scored on the 10,000 test images after each pass: the figure that a
federation of the same preset is held against.

    python -m benchmarks.central cnn-large [--epochs 8] [--lrate 0.001] [--batch 64] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import get_args


def main(argv: list[str] | None = None) -> int:
    """Train and print a line a pass, the last one with the figure."""
    from services.experiment.model import Preset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=get_args(Preset))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lrate", type=float, default=0.001, help="of Adam")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", type=Path, default=Path("data/mnist_raw"), help="folder of MNIST's four files")
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from services.experiment import Plan
    from services.init import dataset
    from services.server.model import build_model

    data = dataset.load(options.raw)
    network = build_model(Plan.model_validate({"model": options.preset, "seed": options.seed})).get_wrapped_model()
    network.compile(keras.optimizers.Adam(options.lrate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    print(f"{options.preset}: {network.count_params():,} parameters, {len(data.train_labels):,} training images")
    began = time.monotonic()
    for epoch in range(1, options.epochs + 1):
        network.fit(data.train_images / 255, data.train_labels, batch_size=options.batch, verbose=0)
        loss, accuracy = network.evaluate(data.test_images / 255, data.test_labels, batch_size=500, verbose=0)
        seconds = time.monotonic() - began
        print(
            f"pass {epoch}/{options.epochs}: test loss {loss:.4f}, test accuracy {accuracy:.4f}, {seconds:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
