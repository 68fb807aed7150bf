"""Who takes part in a round: a draw from those who are there, the same for the same seed."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
from declearn.aggregator import ModelUpdates
from declearn.messaging import TrainReply
from declearn.model.api import Model
from declearn.model.sklearn import NumpyVector

from services import experiment
from services.paths import Paths
from services.server.sampling import Draw
from tests.federation import Federation, plan, run

NAMES = [f"client_{number}" for number in range(12)]


def draw(sampling: Any, **changes: Any) -> Draw:
    """Make a draw of a plan with that sampling."""
    return Draw(experiment.Plan.model_validate({"sampling": sampling, **changes}))


class _Weights:
    """A model of which only the weights are asked."""

    def get_weights(self, trainable: bool = False) -> NumpyVector:  # noqa: FBT001, FBT002 - upstream's
        del trainable
        return NumpyVector({"w": np.array([1.0, 1.0])})


MODEL = cast("Model[Any]", _Weights())


def reply(update: list[float], steps: int = 1, seconds: float = 1.0) -> TrainReply:
    """Make a reply with an update as averaging sends it: times the number of steps."""
    vector = NumpyVector({"w": np.array(update) * steps})
    return TrainReply(n_epoch=1, n_steps=steps, t_spent=seconds, updates=ModelUpdates(vector, steps), aux_var={})


def test_by_default_everybody_takes_part() -> None:
    """Without a word about it, all who are there are drawn, in the order of their names."""
    assert draw("default").draw(reversed(NAMES), 1) == NAMES


def test_as_many_are_drawn_as_the_plan_says() -> None:
    """A uniform draw takes that many different ones, others in other rounds, and all where there are no more."""
    uniform = draw({"uniform": {"n_samples": 4}})
    rounds = [uniform.draw(NAMES, number) for number in range(1, 30)]
    assert {len(set(names)) for names in rounds} == {4}
    assert {name for names in rounds for name in names} == set(NAMES)
    assert uniform.draw(NAMES[:3], 30) == NAMES[:3]


@pytest.mark.parametrize(
    "sampling",
    [
        {"uniform": {"n_samples": 4}},
        {"weighted": {"n_samples": 4, "client_to_weight": {"client_3": 9}}},
        {"composition": {"samplers": [{"uniform": {"n_samples": 2}}, {"uniform": {"n_samples": 2}}]}},
    ],
)
def test_a_seed_draws_the_same_again(sampling: Any) -> None:
    """The same seed and round draw the same, whatever was drawn before and in whatever order clients came."""
    first, second = draw(sampling, seed=1), draw(sampling, seed=1)
    rounds = [first.draw(NAMES, number) for number in range(1, 9)]
    assert [second.draw(reversed(NAMES), number) for number in range(8, 0, -1)] == rounds[::-1]
    other = draw(sampling, seed=2)
    assert [other.draw(NAMES, number) for number in range(1, 9)] != rounds


def test_a_sampler_may_have_a_seed_of_its_own() -> None:
    """`seed` of a sampler stands for the plan's."""
    one = draw({"uniform": {"n_samples": 4, "seed": 7}}, seed=1)
    other = draw({"uniform": {"n_samples": 4, "seed": 7}}, seed=2)
    assert [one.draw(NAMES, number) for number in range(9)] == [other.draw(NAMES, number) for number in range(9)]


def test_a_round_that_failed_is_drawn_anew_unless_the_run_is_deterministic() -> None:
    """Each attempt at a round draws others, so that one bad client does not fail it for ever."""
    sampling = {"uniform": {"n_samples": 3}}
    assert len({tuple(draw(sampling).draw(NAMES, 1, attempt)) for attempt in range(3)}) == 3
    assert len({tuple(draw(sampling, deterministic=True).draw(NAMES, 1, attempt)) for attempt in range(3)}) == 1


def test_a_weight_draws_a_client_more_often() -> None:
    """One that weighs as much as all others together is drawn about half of the time; who has no weight has 1."""
    weighted = draw({"weighted": {"n_samples": 1, "client_to_weight": {"client_3": 11}}})
    drawn = [weighted.draw(NAMES, number) for number in range(400)]
    assert 150 < drawn.count(["client_3"]) < 250
    assert {name for names in drawn for name in names} == set(NAMES)


def test_samplers_compose() -> None:
    """The second sampler draws from those that the first one left."""
    both = draw({"composition": {"samplers": [{"uniform": {"n_samples": 2}}, {"uniform": {"n_samples": 3}}]}})
    assert {len(set(both.draw(NAMES, number))) for number in range(20)} == {5}


@pytest.mark.parametrize(
    ("criterion", "best"),
    [
        ("gradient_norm", "client_2"),
        ("normalized_divergence", "client_2"),
        ("train_time", "client_0"),
        ({"train_time": {"lower_is_better": False}}, "client_1"),
        ({"train_time_history": {"agg_func": "sum"}}, "client_0"),
        ({"composition": {"operation": "mul", "parents": ["train_time", {"constant": {"value": -1}}]}}, "client_1"),
    ],
)
def test_a_criterion_draws_the_best(criterion: Any, best: str) -> None:
    """Once all have been scored, the highest score is drawn: the norm is that of the update, not of what is sent."""
    sampler = draw({"criterion": {"n_samples": 1, "criterion": criterion}})
    replies = {
        "client_0": reply([1.0, 0.0], seconds=1),
        "client_1": reply([1.0, 1.0], steps=9, seconds=9),
        "client_2": reply([3.0, 0.0], seconds=3),
    }
    names = list(replies)
    assert sampler.draw(names, 1) == ["client_0"], "without scores the lowest name"
    sampler.learn(replies, MODEL)
    assert sampler.draw(names, 2) == [best]
    assert sampler.draw([*names, "client_9"], 3) == ["client_9"], "who has no score comes first"


def test_scores_survive_a_restart() -> None:
    """What a criterion has learned is in the state, and is taken up by the next process."""
    spec = {"criterion": {"n_samples": 1, "criterion": "train_time_history"}}
    first, second = draw(spec), draw(spec)
    for seconds in (5.0, 1.0):
        first.draw(NAMES[:2], 1)
        first.learn({"client_0": reply([1.0], seconds=seconds), "client_1": reply([1.0], seconds=2.9)}, MODEL)
    second.restore(first.state())
    assert second.state() == first.state()
    assert second.draw(NAMES[:2], 2) == first.draw(NAMES[:2], 2) == ["client_1"]
    again = dataclasses.replace(reply([1.0]), t_spent=0.0)
    for sampler in (first, second):
        sampler.learn({"client_0": again}, MODEL)
        assert sampler.draw(NAMES[:2], 3) == ["client_0"]


def test_who_is_not_drawn_is_idle_and_keeps_its_images(small: Paths) -> None:
    """Of three clients two train in each round; the third one is told of as idle, with its seat of three."""
    federation = Federation(small, plan(rounds=4, sampling={"uniform": {"n_samples": 2}}), clients=3)
    run(federation.play(3))
    rows = federation.table("clients.csv")
    for number in "1234":
        states = sorted((row["state"], row["size"], row["steps"]) for row in rows if row["round"] == number)
        assert states == [("idle", "3", ""), ("trained", "3", "2"), ("trained", "3", "2")]
    assert {row["seat"] for row in rows} == {"0", "1", "2"}
    assert {row["client"] for row in rows if row["state"] == "idle"} > {"client_0"} or len(rows) == 12
    assert {(row["clients"], row["dropped"], row["size"]) for row in federation.table("history.csv")} == {
        ("2", "0", "3")
    }


def test_a_resumed_run_draws_as_one_that_was_never_stopped(small: Paths) -> None:
    """Stopped before round 3 and taken up by new processes, a run has the same participants and figures."""
    found = []
    for stop_before in (None, 3):
        federation = Federation(
            small,
            plan(
                rounds=4,
                deterministic=True,
                sampling={"criterion": {"n_samples": 2, "criterion": "gradient_norm"}},
            ),
            clients=3,
        )
        run(federation.play(3, stop_before=stop_before))
        states = [(row["round"], row["client"], row["state"]) for row in federation.table("clients.csv")]
        found.append((states, federation.learned()))
    assert found[0] == found[1]


def test_a_sum_is_over_those_drawn(small: Paths) -> None:
    """Secure aggregation goes with a draw: those drawn agree on secrets among themselves."""
    federation = Federation(small, plan(rounds=3, secagg="masking", sampling={"uniform": {"n_samples": 2}}), clients=3)
    run(federation.play(3))
    assert federation.summary["status"] == "completed"
    assert [row["clients"] for row in federation.table("history.csv")] == ["2", "2", "2"]
