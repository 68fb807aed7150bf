"""What a step of DP-SGD costs beside a plain one, on this machine, in one run: `python -m benchmarks.dpsgd`.

A plain step is declearn's own: gradient of a batch, optimizer, weights. A step of DP-SGD is a client's: a batch drawn
by chance, clipped per-sample gradients, noise, optimizer, weights. Both train the same network, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
from declearn import messaging

from services import engine
from services.experiment import Plan

if TYPE_CHECKING:
    from declearn.model.tensorflow import TensorflowModel

    from services.client.privacy import PrivateTraining
    from services.client.training import LocalTraining

IMAGES = 4096


def steps(preset: str, batch_size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Make a plain step and one of DP-SGD, each of a client of its own."""
    from services.accounting import Steps
    from services.client.dataset import SCALE, ImageDataset
    from services.client.privacy import PrivateTraining
    from services.client.training import CompiledModel, LocalTraining
    from services.server.model import build_model, build_optim

    plan = Plan.model_validate({"model": preset, "optimizer": {"client": {"modules": []}}})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, IMAGES, dtype=np.uint8)

    def client(kind: type[LocalTraining]) -> LocalTraining:
        optim = build_optim(plan)
        return kind(
            model=CompiledModel.of(cast("TensorflowModel", build_model(plan))),
            optim=optim.client_opt,
            aggrg=optim.aggregator,
            train_data=ImageDataset(images, labels),
            verbose=False,
        )

    plain, private = client(LocalTraining), cast("PrivateTraining", client(PrivateTraining))
    request = messaging.PrivacyRequest(
        budget=(3.0, 1e-5),
        sclip_norm=1.0,
        accountant="rdp",
        use_csprng=True,
        seed=None,
        rounds=1,
        batches={"batch_size": batch_size},
        n_epoch=1,
        n_steps=None,
    )
    private.make_private(request)
    taken = Steps(batch_size / IMAGES, 1.0, 1)

    def plain_step() -> None:
        batch = rng.integers(0, IMAGES, batch_size)
        plain.run_train_step((SCALE[images[batch]], labels[batch], None))

    return plain_step, lambda: private.take_step(taken)


def main() -> None:
    """Measure, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["cnn", "cnn-strided", "cnn-tanh"], help="presets")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 512], help="batch sizes")
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each kind")
    options = parser.parse_args()
    engine.load()
    print("model         batch  plain ms  DP-SGD ms  ratio")
    for preset in options.models:
        for batch_size in options.batches:
            pair = steps(preset, batch_size)
            times: tuple[list[float], list[float]] = ([], [])
            for turn in range(options.repeats + 2):
                for step, measured in zip(pair, times, strict=True):
                    begin = time.perf_counter()
                    step()
                    if turn > 1:  # the first turns compile
                        measured.append(1000 * (time.perf_counter() - begin))
            plain, private = (statistics.median(measured) for measured in times)
            print(f"{preset:13} {batch_size:5}  {plain:8.1f}  {private:9.1f}  {private / plain:5.2f}")


if __name__ == "__main__":
    main()
