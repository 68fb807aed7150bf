"""Rates that change with time: each is that of the step and the round in which it is used."""

from __future__ import annotations

import math
from typing import Any

import pytest
from declearn.optimizer import Optimizer, list_rate_schedulers
from declearn.utils.serialize import msgpack_deserialize, msgpack_serialize

from services.experiment.plugins import SCHEDULERS
from services.paths import Paths
from services.schedules import ScheduledOptimizer
from tests.federation import Federation, plan, run

PARAMETERS: dict[str, dict[str, Any]] = {
    "cosine-annealing": {"base": 0.1, "max_lr": 0.5, "duration": 4},
    "cosine-annealing-warm-restarts": {"base": 0.1, "max_lr": 0.5, "period": 2},
    "cyclic-exp-range": {"base": 0.1, "max_lr": 0.5, "stepsize": 2, "decay": 0.9},
    "cyclic-triangular": {"base": 0.1, "max_lr": 0.5, "stepsize": 2},
    "exponential-decay": {"base": 0.5, "rate": 0.5},
    "inverse-scaling": {"base": 0.5, "rate": 0.5},
    "linear-decay": {"base": 0.5, "rate": 0.1},
    "piecewise-decay": {"base": 0.5, "rate": 0.5, "step_size": 2},
    "polynomial-decay": {"base": 0.5, "power": 2, "limit": 9},
    "warmup": {"base": 0.5, "warmup": 3},
    "warmup-rounds": {"base": ("exponential-decay", {"base": 0.5, "rate": 0.5}), "warmup": 2},
}
"""Each of declearn's schedulers, with parameters that let its rate change."""


def rates(optimizer: ScheduledOptimizer, rounds: range, steps: int = 3) -> list[list[float]]:
    """Take `steps` steps in each of `rounds`, and tell the rate of each."""
    found: list[list[float]] = []
    for number in rounds:
        optimizer.reach_round(number, steps)
        optimizer.start_round()
        found.append([])
        for _ in range(steps):
            found[-1].append(optimizer.lrate)
            optimizer._update_rates()
    return found


def test_every_scheduler_has_its_parameters_here() -> None:
    """The schedulers below are those that a file may name, and those that declearn registers."""
    assert set(PARAMETERS) == set(SCHEDULERS) == set(list_rate_schedulers())


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_rate_changes_with_time(name: str) -> None:
    """Over three rounds of three steps each scheduler gives more than one rate, all of them finite and above 0."""
    optimizer = ScheduledOptimizer(lrate=(name, PARAMETERS[name]))
    found = [rate for rates_ in rates(optimizer, range(1, 4)) for rate in rates_]
    assert len(set(found)) > 1
    assert all(0 < rate < 1 for rate in found)


def test_a_schedule_of_steps_begins_with_its_first_rate() -> None:
    """The first step has the first rate, each later one the next, from round to round."""
    optimizer = ScheduledOptimizer(lrate=("exponential-decay", {"base": 1.0, "rate": 0.5}))
    assert rates(optimizer, range(1, 3), steps=2) == [[1.0, 0.5], [0.25, 0.125]]


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("exponential-decay", {"base": 1.0, "rate": 0.5}, [1.0, 0.5, 0.25]),
        ("inverse-scaling", {"base": 1.0, "rate": 1.0}, [1.0, 1 / 2, 1 / 3]),
        ("cosine-annealing-warm-restarts", {"base": 0.0, "max_lr": 1.0, "period": 2}, [1.0, 0.5, 1.0]),
    ],
)
def test_a_schedule_of_rounds_keeps_its_rate_for_a_round(
    name: str, parameters: dict[str, Any], expected: list[float]
) -> None:
    """All steps of a round have that round's rate, the first one too."""
    optimizer = ScheduledOptimizer(lrate=(name, {**parameters, "step_level": False}))
    for found, rate in zip(rates(optimizer, range(1, 4), steps=2), expected, strict=True):
        assert found == pytest.approx([rate, rate])


def test_the_weight_decay_follows_its_own_schedule() -> None:
    """`w_decay` may be scheduled as `lrate` is."""
    optimizer = ScheduledOptimizer(lrate=0.1, w_decay=("linear-decay", {"base": 1.0, "rate": 0.25}))
    rates(optimizer, range(1, 2), steps=2)
    assert (optimizer.lrate, optimizer.w_decay) == (0.1, 0.5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_state_gives_the_schedule_back(name: str) -> None:
    """An optimizer that takes up another's state has its rate at once, and all later ones."""
    one, other = (ScheduledOptimizer(lrate=(name, PARAMETERS[name])) for _ in range(2))
    rates(one, range(1, 3))
    other.set_state(one.get_state())
    assert other.lrate == one.lrate
    assert rates(other, range(3, 5)) == rates(one, range(3, 5))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_newcomer_takes_up_the_schedule_where_it_stands(name: str) -> None:
    """A client that comes in round 3 has the rates of one that was there from the beginning."""
    there, late = (ScheduledOptimizer(lrate=(name, PARAMETERS[name])) for _ in range(2))
    assert rates(there, range(1, 5))[2:] == rates(late, range(3, 5))


def test_rounds_that_a_client_missed_count() -> None:
    """A schedule of rounds goes by the federation's, also past those in which a client had no part."""
    optimizer = ScheduledOptimizer(lrate=("exponential-decay", {"base": 1.0, "rate": 0.5, "step_level": False}))
    assert rates(optimizer, range(1, 2), steps=1) == [[1.0]]
    assert rates(optimizer, range(4, 5), steps=1) == [[1 / 8]]


def test_the_server_takes_a_step_a_round() -> None:
    """On the server a schedule goes on with each round, whether it counts steps or rounds."""
    for step_level in (True, False):
        optimizer = ScheduledOptimizer(
            lrate=("cosine-annealing", {"base": 0.0, "max_lr": 1.0, "duration": 2, "step_level": step_level})
        )
        found = []
        for _ in range(3):
            optimizer.start_step()
            found.append(optimizer.lrate)
            optimizer._update_rates()
        assert found == pytest.approx([1.0, (1 + math.cos(math.pi / 2)) / 2, 0.0])


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_goes_over_the_wire_is_upstreams(name: str) -> None:
    """The server sends declearn's own optimizer, of which a client makes one with the same schedule."""
    sent = Optimizer(lrate=(name, PARAMETERS[name]))
    received = msgpack_deserialize(msgpack_serialize(sent))
    assert type(received) is Optimizer
    ours = ScheduledOptimizer.of(received)
    assert rates(ours, range(1, 3)) == rates(ScheduledOptimizer(lrate=(name, PARAMETERS[name])), range(1, 3))


def test_inverse_scaling_by_rounds_can_be_sent() -> None:
    """`step_level: false`, for which upstream divides by zero as soon as an optimizer is made, is made and sent."""
    rate = ("inverse-scaling", {"base": 1.0, "rate": 0.5, "step_level": False})
    assert msgpack_deserialize(msgpack_serialize(Optimizer(lrate=rate))).get_config()["lrate"] == rate


def test_a_resumed_schedule_equals_one_that_was_never_stopped(small: Paths) -> None:
    """Rates on both sides go on after a restart where they stood: loss and accuracy are those of a run in one go."""
    content = {
        "rounds": 4,
        "deterministic": True,
        "optimizer": {
            "client": {"lrate": {"warmup": {"base": {"exponential-decay": {"base": 0.01, "rate": 0.8}}, "warmup": 3}}},
            "server": {"lrate": {"linear-decay": {"base": 1.0, "rate": 0.2, "step_level": False}}},
        },
    }
    federation = Federation(small, plan(**content))
    run(federation.play())
    whole = federation.learned()
    run(federation.play(stop_before=3))
    assert federation.learned() == whole
    constant = Federation(small, plan(rounds=4, deterministic=True))
    run(constant.play())
    assert constant.learned() != whole
