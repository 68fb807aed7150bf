"""Random numbers from the operating system: their distribution, and that no seed repeats them."""

from __future__ import annotations

import numpy as np
import pytest

from services import randomness


@pytest.mark.parametrize("shape", [(200_001,), (100, 40, 50)])
def test_noise_is_gaussian(shape: tuple[int, ...]) -> None:
    """Noise has the shape and the deviation asked for, mean 0, and the tails and fourth moment of a Gaussian."""
    noise = randomness.normal(shape, 3.0)
    assert noise.shape == shape
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(3.0, rel=0.02)
    assert np.mean(np.abs(noise) < 3.0) == pytest.approx(0.6827, abs=0.01)
    assert np.mean((noise / 3.0) ** 4) == pytest.approx(3.0, rel=0.1)
    halves = noise.ravel()[:100_000], noise.ravel()[-100_000:]
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.02


def test_each_thing_is_chosen_with_the_same_chance() -> None:
    """Each of many things is chosen with the chance asked for, so that the size of a batch varies."""
    sizes = [len(randomness.chosen(1000, 0.05)) for _ in range(400)]
    assert np.mean(sizes) == pytest.approx(50, abs=2)
    assert np.var(sizes) == pytest.approx(1000 * 0.05 * 0.95, rel=0.4)
    counts = np.zeros(20)
    for _ in range(2000):
        counts[randomness.chosen(20, 0.5)] += 1
    assert (abs(counts / 2000 - 0.5) < 0.08).all()


@pytest.mark.parametrize(("rate", "expected"), [(1.0, 30), (0.0, 0)])
def test_certain_chances_are_certain(rate: float, expected: int) -> None:
    """At rate 1 all are chosen, at rate 0 none."""
    assert len(randomness.chosen(30, rate)) == expected


def test_no_seed_repeats_it() -> None:
    """With numpy's generator set to the same state, what is drawn differs all the same."""
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 - the state that must not matter
        drawn.append(randomness.normal((50,), 1.0))
    assert not np.array_equal(drawn[0], drawn[1])
