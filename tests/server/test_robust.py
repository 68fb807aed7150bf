"""Aggregation that a few dishonest clients can't turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from declearn.aggregator import AveragingAggregator, ModelUpdates
from declearn.messaging import EvaluationReply, TrainReply
from declearn.model.api import Vector
from declearn.model.sklearn import NumpyVector
from declearn.model.tensorflow import TensorflowVector
from numpy.typing import NDArray

from services.experiment.methods import Robust
from services.paths import Paths
from services.server.robust import Defence
from tests.faults.dishonest_client import forger
from tests.federation import Federation, plan, run
from tests.support import RAW, deadline

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=(20, 5)).astype(np.float32)
HONEST = [TRUTH + RNG.normal(scale=0.1, size=TRUTH.shape).astype(np.float32) for _ in range(8)]
MEAN = np.mean(HONEST, axis=0)


def reply(update: NDArray[Any], steps: int = 10, kind: type[Vector[Any]] = NumpyVector) -> TrainReply:
    """Make a reply as declearn's averaging sends it: the update times the number of steps."""
    coefs = {"w": update * steps, "b": update[0] * steps}
    if kind is TensorflowVector:
        coefs = {name: tf.convert_to_tensor(value) for name, value in coefs.items()}
    return TrainReply(n_epoch=1, n_steps=steps, t_spent=1.0, updates=ModelUpdates(kind(coefs), steps), aux_var={})


def aggregated(replies: list[TrainReply], **spec: Any) -> NDArray[Any]:
    """Aggregate as the server does."""
    defence = Defence(Robust(**spec))
    bounded = defence.bound({str(number): one for number, one in enumerate(replies)})
    updates: Any = sum(one.updates for one in bounded.values())
    found = (defence.aggregator or AveragingAggregator()).finalize_updates(updates)
    assert type(found) is type(replies[0].updates.updates)
    return np.asarray(found.coefs["w"])


def far(found: NDArray[Any]) -> float:
    """Measure how far an aggregate is from the honest mean, as a share of its norm."""
    return float(np.linalg.norm(found - MEAN) / np.linalg.norm(MEAN))


ATTACKS = {
    "sign-flipped": [-10 * MEAN] * 2,
    "scaled": [100 * MEAN] * 2,
    "noise": [RNG.normal(scale=50, size=TRUTH.shape).astype(np.float32) for _ in range(2)],
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("spec", [{"aggregator": "median"}, {"aggregator": "trimmed-mean", "trim": 0.2}])
@pytest.mark.parametrize("kind", [NumpyVector, TensorflowVector])
def test_two_dishonest_of_ten_do_not_turn_the_update(
    attack: str, spec: dict[str, Any], kind: type[Vector[Any]]
) -> None:
    """Median and trimmed mean stay near the honest mean where plain averaging goes far from it."""
    replies = [reply(update, kind=kind) for update in HONEST + ATTACKS[attack]]
    assert far(aggregated(replies)) > 1
    assert far(aggregated(replies, **spec)) < 0.1


def test_a_norm_bounds_what_each_client_can_do() -> None:
    """Two clients that scale their updates can move the average by no more than the norm allows."""
    norm = float(np.linalg.norm(np.concatenate([MEAN.ravel(), MEAN[0]])))
    replies = [reply(update) for update in HONEST + ATTACKS["sign-flipped"]]
    found = aggregated(replies, max_update_norm=norm)
    assert 0.35 < far(found) < 0.45, "a fifth of the clients, each turning its share around"


def test_honest_updates_within_the_norm_are_averaged_as_ever() -> None:
    """A norm that nobody exceeds changes nothing, with different numbers of steps too."""
    replies = [reply(update, steps) for steps, update in enumerate(HONEST, start=1)]
    np.testing.assert_allclose(aggregated(replies, max_update_norm=1e6), aggregated(replies), rtol=1e-5)


def test_each_client_counts_once() -> None:
    """A client that claims more steps than all others together has no more of a say."""
    replies = [reply(HONEST[0]), reply(HONEST[1]), reply(100 * MEAN, steps=10**6)]
    np.testing.assert_allclose(
        aggregated(replies, aggregator="median"), np.median([HONEST[0], HONEST[1], 100 * MEAN], axis=0), rtol=1e-5
    )


@pytest.mark.parametrize(("count", "kept"), [(1, [0]), (2, [0, 1]), (3, [1]), (4, [1, 2]), (11, list(range(2, 9)))])
def test_trimming_rounds_up_and_leaves_one(count: int, kept: list[int]) -> None:
    """The share left out at either end is rounded up, as long as somebody is left."""
    replies = [reply(np.full((2, 2), float(number))) for number in range(count)]
    np.testing.assert_allclose(aggregated(replies, aggregator="trimmed-mean", trim=0.1), np.mean(kept))


@pytest.mark.parametrize(
    ("spec", "loss"), [({}, 1.5), ({"max_update_norm": 1.0}, 1.5), ({"aggregator": "median"}, 0.5)]
)
def test_a_client_can_not_choose_the_model_that_is_kept(spec: dict[str, Any], loss: float) -> None:
    """Where each client counts once, the median of their losses chooses the round; else the mean over all images."""
    evaluated = {
        name: EvaluationReply(loss=value, n_steps=1, t_spent=0.1)
        for name, value in {"a": 0.4, "b": 0.5, "liar": 3.6}.items()
    }
    assert Defence(Robust(**spec)).loss(evaluated, 1.5) == loss


@pytest.mark.parametrize("robust", [{"aggregator": "median", "max_update_norm": 5.0}, {"aggregator": "trimmed-mean"}])
def test_a_federation_trains_under_the_rules(small: Paths, robust: dict[str, Any]) -> None:
    """Three clients train as they always do; only the server's rule is another."""
    federation = Federation(small, plan(robust=robust), clients=3)
    run(federation.play(3))
    assert federation.summary["status"] == "completed"
    assert [row["clients"] for row in federation.table("history.csv")] == ["3", "3"]


@pytest.mark.timeout(600)
def test_the_model_is_learned_in_spite_of_one_dishonest_client_of_five(tmp_path: Path) -> None:
    """MNIST dealt to five, one of which turns its updates around: 0.97 under a rule, and nothing learned without."""
    paths = Paths(tmp_path)
    paths.raw.parent.mkdir(parents=True)
    paths.raw.symlink_to(RAW)
    reached: list[list[float]] = []
    for robust in ({}, {"aggregator": "trimmed-mean", "trim": 0.2}):
        spec = plan(
            rounds=4,
            model="cnn-strided",
            train={"batch_size": 128},
            evaluate={"batch_size": 1000},
            optimizer={"client": {"lrate": 0.004}},
            robust=robust,
        )
        federation = Federation(paths, spec, clients=5, max_clients=5)
        ending = federation.play_with(None, None, None, None, forger("sign", 10))
        asyncio.run(asyncio.wait_for(ending, deadline(280)))
        reached.append([float(row["test_accuracy"]) for row in federation.table("history.csv")])
    assert max(reached[0]) < 0.5
    assert reached[1][-1] >= 0.97
