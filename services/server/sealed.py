"""The form of encrypted replies: where one is of another form than agreed, the sum of all fails or makes no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from declearn.model.api import Vector, VectorSpec
from declearn.secagg.api import Decrypter, SecureAggregate
from declearn.utils import Aggregate

from services.server.inspection import MOST_NAMES, SHOWN, is_number, shown


class SealedForm:
    """What honest replies look like under secure aggregation.

    Args:
        updates: what a client that has learned nothing would send in clear.
        states: by name of the metrics, a state that has seen nothing.
        aux_var: by name, the auxiliary variables of a client that has learned nothing.
    """

    def __init__(self, updates: Aggregate, states: Mapping[str, Aggregate], aux_var: Mapping[str, Aggregate]) -> None:
        self._updates = updates
        self._states = states
        self._aux_var = aux_var

    def fault_in_training(self, reply: Any, decrypter: Decrypter) -> str | None:
        """Tell what is wrong with an encrypted reply to a training request, or None."""
        return (
            _fault_in_figures([reply.n_steps], reply.t_spent, decrypter)
            or _fault_in_part(reply.updates, self._updates, decrypter, "updates")
            or _fault_in_parts(reply.aux_var, self._aux_var, decrypter, "auxiliary variables")
        )

    def fault_in_evaluation(self, reply: Any, decrypter: Decrypter) -> str | None:
        """Tell what is wrong with an encrypted reply to an evaluation request, or None."""
        return _fault_in_figures([reply.n_steps, reply.loss], reply.t_spent, decrypter) or _fault_in_parts(
            reply.metrics, self._states, decrypter, "metrics"
        )


def _fault_in_figures(figures: list[int], seconds: float, decrypter: Decrypter) -> str | None:
    if not is_number(seconds):
        return "it is malformed"
    return _fault_in_numbers(figures, decrypter, "figures")


def _fault_in_parts(
    parts: Mapping[str, Any], templates: Mapping[str, Aggregate], decrypter: Decrypter, what: str
) -> str | None:
    if parts.keys() != templates.keys():
        return f"its {what} are {shown(sorted(parts))}"
    faults = (_fault_in_part(parts[name], template, decrypter, what) for name, template in templates.items())
    return next((fault for fault in faults if fault is not None), None)


def _fault_in_part(part: SecureAggregate[Any], template: Aggregate, decrypter: Decrypter, what: str) -> str | None:
    """Compare an encrypted part with one in clear: what of it is encrypted, as how many numbers."""
    secret, clear = template.prepare_for_secagg()
    agreed = (
        type(part) is decrypter.secure_aggregate_cls
        and part.agg_cls is type(template)
        and part.n_aggrg == 1
        and _modulus(part) == _modulus(decrypter)
        and isinstance(part.enc_specs, list)
        and len(part.enc_specs) == len(secret)
        and all(_is_form(spec, *field) for spec, field in zip(part.enc_specs, secret.items(), strict=True))
        and isinstance(part.encrypted, list)
        and len(part.encrypted) == sum(_size(value) for value in secret.values())
    )
    if not agreed:
        return f"its {what} are not encrypted as was agreed"
    shows, due = part.cleartext or {}, clear or {}
    alike = isinstance(shows, dict) and shows.keys() == due.keys()
    if not alike or not all(_is_alike(shows[name], value) for name, value in due.items()):
        return f"its {what} show {shown(shows)}"
    return _fault_in_numbers(part.encrypted, decrypter, what)


def _fault_in_numbers(numbers: Any, decrypter: Decrypter, what: str) -> str | None:
    most = _modulus(decrypter)
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number < most for number in numbers):
        return f"its {what} hold what is no encrypted number"
    return None


def _modulus(value: Any) -> Any:
    """Tell what encrypted numbers are below: masked ones are summed modulo that, Joye-Libert's modulo a square."""
    biprime = getattr(value, "biprime", None)
    if biprime is None:
        return getattr(value, "max_int", None)
    return biprime**2 if isinstance(biprime, int) and biprime.bit_length() < 2**12 else None


def _size(value: Any) -> int:
    """Tell how many numbers a field is encrypted as."""
    if isinstance(value, Vector):
        return sum(math.prod(shape) for shape in value.shapes().values())
    return int(np.size(value))


def _is_form(spec: Any, name: str, value: Any) -> bool:
    """Tell whether a specification (name, number of values, type) is that of a field.

    They are compared by their words: an array in place of a part is neither equal to anything nor different from it.
    """
    three = isinstance(spec, list | tuple) and len(spec) == 3  # noqa: PLR2004 - the three above
    if not three or repr(tuple(spec[:2])) != repr((name, _size(value))):
        return False
    kind = spec[2]
    if isinstance(value, Vector):
        due = value.get_vector_specs()
        # as msgpack gives them: it knows no tuples
        wanted = {
            "names": due.names,
            "shapes": {key: list(shape) for key, shape in due.shapes.items()},
            "dtypes": due.dtypes,
            "v_type": list(due.v_type or ()),
            "kwargs": {},
        }
        return isinstance(kind, VectorSpec) and repr(vars(kind)) == repr(wanted)
    if isinstance(value, np.ndarray):
        return isinstance(kind, list) and repr(kind[:1]) == repr([list(value.shape)])
    return isinstance(kind, bool)


def _is_alike(value: Any, template: Any) -> bool:
    """Tell whether a field that is shown in clear is of the form of an honest one."""
    if isinstance(template, np.ndarray):
        return isinstance(value, np.ndarray) and value.shape == template.shape
    return (
        isinstance(value, set)
        and len(value) <= MOST_NAMES
        and all(isinstance(name, str) and len(name) <= SHOWN for name in value)
    )
