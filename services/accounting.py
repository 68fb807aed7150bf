"""What differential privacy costs: noise for a budget, and the budget that steps have spent.

Counted with Google's dp-accounting. A step takes each image with the same chance (Poisson sampling) and adds Gaussian
noise to a sum that one image changes by the clipping norm at most; neighbours are data sets that differ by one image.
`rdp` accounts by Rényi divergence (Mironov 2017, https://arxiv.org/abs/1702.07476), as Opacus does by default; `pld` by
the privacy loss distribution (Koskela et al. 2020), which is tighter and takes seconds.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from services.experiment.privacy import Accountant

LEAST_NOISE = 0.5
"""Smallest noise multiplier: a budget that allows for less gets this much, as Rényi orders hardly converge below it."""

TOLERANCE = 1e-3
"""Of a noise multiplier that is found by search; the budget is kept all the same."""

_INTERVAL = 1e-3
"""Grid of privacy losses for `pld`: errs to the safe side by less than one per cent of epsilon, at a tenth of the time
of the library's own."""


@dataclass(frozen=True, order=True)
class Steps:
    """Like steps on the same data.

    Attributes:
        rate: chance of each image to be in a batch, in ]0, 1].
        noise: standard deviation of the noise, in clipping norms; 0 is no privacy.
        count: number of steps.
    """

    rate: float
    noise: float
    count: int


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        epsilon: at most this much, > 0.
        delta: at this probability, in ]0, 1[.
        accountant: how it is counted.
    """

    epsilon: float
    delta: float
    accountant: Accountant = "rdp"

    def spent(self, steps: Iterable[Steps]) -> float:
        """Tell the epsilon of all `steps` together, at this delta; 0 for none."""
        return _epsilon(merged(steps), self.delta, self.accountant)

    def noise(self, before: Iterable[Steps], rate: float, count: int) -> float | None:
        """Find the least noise with which `count` steps at `rate` after `before` keep to the budget.

        Returns:
            A noise multiplier, or None where none is enough.
        """
        from dp_accounting import mechanism_calibration as calibration  # noqa: PLC0415 - see `_epsilon`

        before = merged(before)

        def event(noise: float) -> Any:
            return _event((*before, Steps(rate, noise, count)))

        if self.spent(before) >= self.epsilon:
            return None
        if self.spent((*before, Steps(rate, LEAST_NOISE, count))) <= self.epsilon:
            return LEAST_NOISE
        try:
            with _quiet():
                found = calibration.calibrate_dp_mechanism(
                    functools.partial(_make, self.accountant),
                    event,
                    self.epsilon,
                    self.delta,
                    calibration.LowerEndpointAndGuess(LEAST_NOISE, 1.0),
                    tol=TOLERANCE,
                )
        except calibration.NoBracketIntervalFoundError:
            return None
        return float(found)

    def affordable(self, before: Iterable[Steps], planned: Steps) -> int:
        """Tell how many of the `planned` steps the budget allows for after `before`."""
        before = merged(before)

        def fits(count: int) -> bool:
            return self.spent((*before, Steps(planned.rate, planned.noise, count))) <= self.epsilon

        if fits(planned.count):
            return planned.count
        low, high = 0, planned.count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


def merged(steps: Iterable[Steps]) -> tuple[Steps, ...]:
    """Put like steps together, in a fixed order; their order changes nothing."""
    counts: dict[tuple[float, float], int] = {}
    for each in steps:
        counts[each.rate, each.noise] = counts.get((each.rate, each.noise), 0) + each.count
    return tuple(Steps(rate, noise, count) for (rate, noise), count in sorted(counts.items()) if count)


def envelope(alternatives: Iterable[Iterable[Steps]]) -> tuple[Steps, ...]:
    """Give steps that cost no less than any of the `alternatives`, whatever they are composed with.

    An image went through one of them, and nobody keeps account of which: the highest rate, the lowest noise and the
    most steps cost at least as much. Where all are alike, as with equal shards, it is any of them.
    """
    lists = [merged(steps) for steps in alternatives]
    lists = [steps for steps in lists if steps]
    if not lists:
        return ()
    if all(steps == lists[0] for steps in lists):
        return lists[0]
    every = [each for steps in lists for each in steps]
    most = max(sum(each.count for each in steps) for steps in lists)
    return (Steps(max(each.rate for each in every), min(each.noise for each in every), most),)


@functools.lru_cache(maxsize=4096)
def _epsilon(steps: tuple[Steps, ...], delta: float, accountant: Accountant) -> float:
    if not steps:
        return 0.0
    with _quiet():
        return float(_make(accountant).compose(_event(steps)).get_epsilon(delta))


def _event(steps: Iterable[Steps]) -> Any:
    from dp_accounting import (  # noqa: PLC0415 - takes seconds, and plans without privacy need none of it
        ComposedDpEvent,
        GaussianDpEvent,
        PoissonSampledDpEvent,
        SelfComposedDpEvent,
    )

    return ComposedDpEvent(
        [
            SelfComposedDpEvent(PoissonSampledDpEvent(each.rate, GaussianDpEvent(each.noise)), each.count)
            for each in steps
        ]
    )


def _make(accountant: Accountant) -> Any:
    if accountant == "pld":
        from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

        return PLDAccountant(value_discretization_interval=_INTERVAL)
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415

    return RdpAccountant()


def obstacle(network: Any) -> str | None:
    """Tell what keeps a Keras network from being trained image by image; None where nothing does."""
    import keras  # noqa: PLC0415 - who has a network has it loaded

    for layer in network._flatten_layers():  # noqa: SLF001 - no getter goes into nested networks
        if isinstance(layer, keras.layers.BatchNormalization):
            return f"layer {layer.name} normalizes over the batch, so that an image has no gradient of its own"
    if network.losses:
        return "layers with regularizers add losses that belong to no image"
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself that an order did not converge: the library goes on with the others, which is right."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
