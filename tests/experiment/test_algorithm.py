"""Plug-ins by name: what declearn registers is what a file may name."""

from __future__ import annotations

from typing import get_args

from services.experiment.algorithm import Aggregator, Module, Regularizer, Scheduler


def test_plug_ins_are_those_that_declearn_registers() -> None:
    """The names that a file may use are exactly those in declearn's registries, but for those of one framework."""
    from declearn.aggregator import list_aggregators  # noqa: PLC0415 - takes seconds
    from declearn.optimizer import (  # noqa: PLC0415
        list_optim_modules,
        list_optim_regularizers,
        list_rate_schedulers,
    )

    # importing declearn.model.tensorflow adds a module that wraps optimizers of Keras
    modules = {name for name, kind in list_optim_modules().items() if "declearn.model." not in kind.__module__}
    assert set(get_args(Aggregator)) == set(list_aggregators())
    assert set(get_args(Module)) == modules
    assert set(get_args(Regularizer)) == set(list_optim_regularizers())
    assert set(get_args(Scheduler)) == set(list_rate_schedulers())
