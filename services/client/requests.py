"""The fields of each request that a server may make of a client: their types, and what they may be.

declearn takes fields of any type and value. A batch of no image, a seat that is a path, a round of no end, a text for a
number: each would fail somewhere within, as a bug of the client's, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from declearn import messaging
from declearn.messaging import Message
from declearn.secagg.joye_libert.messages import JoyeLibertSecaggSetupQuery
from declearn.secagg.masking.messages import MaskingSecaggSetupQuery
from declearn.secagg.x3dh.messages import X3DHTrigger
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.errors import DistrustError
from services.settings import MAX_PREPARED
from services.transport.messages import ClientState, Compression, Deal, Grouping, SpendingQuery, StandBy, StateQuery
from services.transport.refusals import one_line

MOST = 10**6
"""Rounds, images of a batch, passes or steps that a server may ask for."""

MOST_GROUPS = 1000
"""Groups of images, or kinds of steps of DP-SGD, that a server may name."""

Count = Annotated[int, Field(ge=1, le=MOST)]
Number = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Words = Annotated[str, Field(max_length=10_000)]
Above = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Scalar = bool | int | float | Annotated[str, Field(max_length=100)] | None


class _Request(BaseModel):
    """Base of all requests. What holds weights or variables is `Any` here, and looked at where it is built."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Batches(_Request):
    batch_size: Count
    shuffle: bool = False
    drop_remainder: bool = True
    replacement: bool = False
    poisson: bool = False


class _Effort(_Request):
    """Work that must have an end."""

    n_epoch: Count | None = None
    n_steps: Count | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.n_epoch is None and self.n_steps is None and getattr(self, "timeout", None) is None:
            raise ValueError("a number of passes, steps or seconds")
        return self


class _Train(_Effort):
    round_i: Number
    weights: Any
    aux_var: dict[str, Any]
    batches: _Batches
    timeout: Seconds | None = None


class _Evaluate(_Request):
    round_i: Number
    weights: Any
    batches: _Batches
    n_steps: Count | None
    timeout: Seconds | None


class _Measure(_Request):
    round_i: Number
    batch_size: Count
    n_batch: Count | None
    thresh: float | None
    weights: Any


class _SetUpFairness(_Request):
    algorithm: Literal["fairbatch", "fairfed", "fairgrad", "monitor"]
    params: dict[str, Scalar | dict[str, Scalar]]


class _Grouping(_Request):
    groups: Literal["ink", "class", "own"]
    ink: Share
    positive: Annotated[list[Number], Field(max_length=MOST_GROUPS)] | None


class _Compression(_Request):
    kind: Literal["float16"]


class _Private(_Effort):
    budget: Annotated[list[Above], Field(min_length=2, max_length=2)]
    sclip_norm: Above
    accountant: Annotated[str, Field(max_length=20)]
    use_csprng: bool
    seed: int | None
    rounds: Count
    batches: _Batches

    @model_validator(mode="after")
    def _private(self) -> Self:
        if self.budget[1] >= 1:
            raise ValueError("a delta below 1")
        return self


class _Spend(_Request):
    """Steps are written as [rate, noise, count]."""

    round_i: Number
    before: Annotated[list[Annotated[list[float], Field(min_length=3, max_length=3)]], Field(max_length=MOST_GROUPS)]
    since: Annotated[list[Annotated[list[float], Field(min_length=3, max_length=3)]], Field(max_length=MOST_GROUPS)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for rate, noise, count in (*self.before, *self.since):
            if not (0 < rate <= 1 and noise >= 0 and 0 <= count <= MOST and count == int(count)):
                raise ValueError("steps of a rate up to 1, with a noise of at least 0")
        return self


class _Deal(_Request):
    size: Annotated[int, Field(ge=1, le=MAX_PREPARED)]
    seat: Annotated[int, Field(ge=0)]
    seed: Seed

    @model_validator(mode="after")
    def _among(self) -> Self:
        if self.seat >= self.size:
            raise ValueError("a seat below the size")
        return self


class _Secrets(_Request):
    bitsize: Annotated[int, Field(ge=8, le=64)]
    clipval: Above


class _Handshakes(_Request):
    n_reqs: Annotated[int, Field(ge=0, le=MAX_PREPARED)]


class _State(_Request):
    state: bytes


class _Reason(_Request):
    reason: Words


class _Fault(_Request):
    message: Words


class _Metadata(_Request):
    fields: list[Literal["features_shape", "classes", "n_samples", "data_type"]]


class _End(_Request):
    weights: Any
    loss: Annotated[float, Field(allow_inf_nan=True)]
    rounds: Number


class _Nothing(_Request):
    """A request without fields."""


FIELDS: Mapping[type[Message], type[_Request]] = {
    messaging.CancelTraining: _Reason,
    messaging.Error: _Fault,
    messaging.EvaluationRequest: _Evaluate,
    messaging.FairnessQuery: _Measure,
    messaging.FairnessSetupQuery: _SetUpFairness,
    messaging.MetadataQuery: _Metadata,
    messaging.PrivacyRequest: _Private,
    messaging.StopTraining: _End,
    messaging.TrainRequest: _Train,
    ClientState: _State,
    Compression: _Compression,
    Deal: _Deal,
    Grouping: _Grouping,
    JoyeLibertSecaggSetupQuery: _Secrets,
    MaskingSecaggSetupQuery: _Secrets,
    SpendingQuery: _Spend,
    StandBy: _Reason,
    StateQuery: _Nothing,
    X3DHTrigger: _Handshakes,
}
"""What each request holds; `InitRequest` is looked at in `services.client.blueprint`."""

PROTOCOLS = ("declearn.fairness.", "declearn.secagg.")
"""Modules of messages that come within an exchange, which judges them itself."""


def check(kind: type[Message], fields: Any) -> None:
    """Refuse a request that is none of those above, or whose fields are not what they should be.

    Args:
        kind: of the message.
        fields: its own, as plain data.

    Raises:
        DistrustError: names the field, and what was wanted of it.
    """
    form = FIELDS.get(kind)
    if not isinstance(fields, dict):
        raise DistrustError(f"the server sent {kind.typekey!r} without fields")
    if form is not None:
        verify(form, fields, kind.typekey)
    elif not kind.__module__.startswith(PROTOCOLS) and kind is not messaging.FairnessGroups:
        raise DistrustError(f"the server sent {kind.typekey!r}", "a request that a client takes")


def verify(form: type[BaseModel], fields: Any, name: str) -> None:
    """Refuse fields that are not those of a form; `name` is what to call whose they are.

    Raises:
        DistrustError: names the first field that is wrong, and what was wanted of it.
    """
    try:
        form.model_validate(fields)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = one_line(repr(first["input"]), 60)
        wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise DistrustError(
            f"the server's {name} has {place} {found}" if place else f"the server's {name} is {found}",
            wanted[:1].lower() + wanted[1:],
        ) from None
