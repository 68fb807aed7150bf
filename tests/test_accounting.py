"""What privacy costs: Opacus' figures, noise that keeps to a budget, and bounds that hold whatever comes after."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.accounting import LEAST_NOISE, Budget, Steps, envelope, merged

DELTA = 1e-5


def test_epsilon_is_what_opacus_records() -> None:
    """90 passes at rate 0.04 with noise 1.5 cost the epsilon of 7.3291 that Opacus' own test holds, within 2 %."""
    # pytorch/opacus, tests/accountants_test.py, test_rdp_accountant
    assert Budget(8, DELTA).spent([Steps(0.04, 1.5, 2250)]) == pytest.approx(7.32911117143, rel=0.02)


@pytest.mark.parametrize(("count", "noise"), [(2250, 1.416), (2000, 1.3562)])
def test_noise_is_what_opacus_finds(count: int, noise: float) -> None:
    """For epsilon 8 the noise is that which Opacus' own tests hold, and it spends that epsilon within 2 %."""
    # pytorch/opacus, tests/accountants_test.py, test_get_noise_multiplier_rdp_epochs and _steps
    budget = Budget(8, DELTA)
    found = budget.noise((), 0.04, count)
    assert found == pytest.approx(noise, rel=0.005)
    assert budget.spent([Steps(0.04, noise, count)]) == pytest.approx(8, rel=0.02)


def test_the_privacy_loss_distribution_is_tighter() -> None:
    """`pld` counts less than `rdp` for the same steps; its grid errs by less than 1 %."""
    steps = [Steps(0.04, 1.5, 2250)]
    tight, loose = Budget(8, DELTA, "pld").spent(steps), Budget(8, DELTA).spent(steps)
    assert tight < loose
    assert tight == pytest.approx(6.768787, rel=0.01), "what the library's own grid gives"


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 50.0])
@pytest.mark.parametrize("rate", [0.03, 1.0])
def test_noise_keeps_to_the_budget(epsilon: float, rate: float) -> None:
    """The noise found spends no more than the budget, and hardly less unless it is the least there is."""
    budget = Budget(epsilon, DELTA)
    noise = budget.noise((), rate, 20)
    assert noise is not None
    spent = budget.spent([Steps(rate, noise, 20)])
    assert spent <= epsilon
    assert spent > 0.99 * epsilon or noise == LEAST_NOISE


def test_noise_makes_up_for_what_was_spent_before() -> None:
    """After half of the steps with too little noise, the other half is given more, so that the budget holds."""
    budget = Budget(3.0, DELTA)
    plain = budget.noise((), 0.03, 400)
    assert plain is not None
    before = [Steps(0.03, 0.9 * plain, 200)]
    more = budget.noise(before, 0.03, 200)
    assert more is not None
    assert more > plain
    assert 0.98 * 3 < budget.spent([*before, Steps(0.03, more, 200)]) <= 3


def test_a_spent_budget_allows_for_no_noise_and_no_step() -> None:
    """Once the budget is spent no noise is enough, and no step is affordable."""
    budget = Budget(1.0, DELTA)
    before = [Steps(0.03, 1.0, 1000)]
    assert budget.spent(before) > 1
    assert budget.noise(before, 0.03, 1) is None
    assert budget.affordable(before, Steps(0.03, 1.0, 10)) == 0


def test_steps_are_affordable_up_to_the_budget() -> None:
    """As many steps are affordable as keep to the budget; one more would exceed it."""
    budget = Budget(2.0, DELTA)
    before = [Steps(0.03, 1.2, 50)]
    count = budget.affordable(before, Steps(0.03, 1.2, 10_000))
    assert budget.spent([*before, Steps(0.03, 1.2, count)]) <= 2
    assert budget.spent([*before, Steps(0.03, 1.2, count + 1)]) > 2
    assert budget.affordable(before, Steps(0.03, 1.2, count - 1)) == count - 1


def test_nothing_done_costs_nothing() -> None:
    """No steps spend no epsilon."""
    assert Budget(1.0, DELTA).spent([]) == Budget(1.0, DELTA).spent([Steps(0.1, 1.0, 0)]) == 0


def test_no_noise_is_no_privacy() -> None:
    """Steps without noise spend everything at once."""
    assert Budget(1.0, DELTA).spent([Steps(0.1, 0.0, 1)]) == float("inf")


def test_like_steps_are_put_together() -> None:
    """The order of steps and how they are grouped changes nothing."""
    one = merged([Steps(0.1, 1.0, 3), Steps(0.2, 1.0, 1), Steps(0.1, 1.0, 4)])
    assert one == merged([Steps(0.2, 1.0, 1), Steps(0.1, 1.0, 7)]) == (Steps(0.1, 1.0, 7), Steps(0.2, 1.0, 1))


# Rates and noises at which every Rényi order converges: elsewhere the library leaves orders out, on the safe side, and
# two counts that left out different ones can't be told apart by which is larger.
STEPS = st.builds(
    Steps,
    st.sampled_from([0.01, 0.05, 1.0]),
    st.sampled_from([1.0, 2.0, 4.0]),
    st.sampled_from([1, 10, 60]),
)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=2), min_size=1, max_size=3), st.lists(STEPS, max_size=1))
def test_an_envelope_costs_no_less_than_what_it_stands_for(seats: list[list[Steps]], later: list[Steps]) -> None:
    """Whatever comes later, the envelope of several seats' steps costs at least what any of them does."""
    budget = Budget(1.0, DELTA)
    bound = budget.spent([*envelope(seats), *later])
    assert all(budget.spent([*steps, *later]) <= bound * (1 + 1e-9) for steps in seats)


def test_the_envelope_of_equal_seats_is_each_of_them() -> None:
    """Where all seats took the same steps, the bound is exact."""
    seat = [Steps(0.1, 1.0, 3), Steps(0.1, 2.0, 1)]
    assert envelope([seat, seat, []]) == merged(seat)
    assert envelope([[], []]) == ()
