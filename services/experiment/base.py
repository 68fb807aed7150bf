"""What all sections of an experiment file are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_truth(value: Any) -> Any:
    """Refuse `yes` and `no` where a number is due: YAML reads truth values, and Python would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a number")  # noqa: TRY004 - pydantic gathers ValueError alone
    return value


Positive = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Truth = Annotated[bool, Field(strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
