"""The state of a run after a round, as one file: written whole or not at all, read back by the next server.

It is MessagePack, written by declearn's own serializer, which knows its vectors and states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from declearn.model.api import Vector
from declearn.utils.serialize import msgpack_deserialize, msgpack_serialize

from services.errors import DataError
from services.paths import write_atomic
from services.tables import ClientRound, Measure, Round

FORMAT = 2
FILE = Path("checkpoint") / "state.mpk"
LEDGER = Path("checkpoint") / "privacy.json"
"""What privacy was spent, written before it is; see `services.server.privacy`."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """All that the rounds after `round` depend on.

    Attributes:
        round: number of the last round that counts.
        weights: all weights of the global model.
        best: trainable weights of the lowest validation loss, or None.
        best_round: number of the round they come from.
        losses: validation loss of each round.
        optimizer: state of the server's optimizer.
        client_states: by client, its optimizer's state, serialized by itself; empty unless the run is deterministic.
        seats: by client, its seat as (size, seat).
        elapsed: seconds the run has taken.
        rounds: rows of `history.csv`.
        clients: rows of `clients.csv`.
        measures: rows of `metrics.csv`.
        put_out: by name, why a client may take no more part in the run.
        methods: by name, the state of what a plan adds to plain rounds.
    """

    round: int
    weights: Vector[Any]
    best: Vector[Any] | None
    best_round: int
    losses: tuple[float, ...]
    optimizer: dict[str, Any]
    client_states: Mapping[str, bytes]
    seats: Mapping[str, tuple[int, int]]
    elapsed: float
    rounds: tuple[Round, ...]
    clients: tuple[ClientRound, ...]
    measures: tuple[Measure, ...] = ()
    put_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    methods: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write this state into a run's folder.

        Raises:
            StorageError: it can't be written; the one before is still there.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["rounds"] = [dataclasses.asdict(row) for row in self.rounds]
        fields["clients"] = [dataclasses.asdict(row) for row in self.clients]
        fields["measures"] = [dataclasses.asdict(row) for row in self.measures]
        write_atomic(folder / FILE, msgpack_serialize({"format": FORMAT, **fields}))


def load(folder: Path) -> Checkpoint | None:
    """Read the state of the run in `folder`; None where it never came to one.

    Raises:
        DataError: the file is damaged, or of another version.
    """
    path = folder / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DataError(
            f"{path} can't be read ({exc.strerror})", "a readable checkpoint", "mend its permissions"
        ) from exc
    try:
        fields = msgpack_deserialize(content)
        if fields.pop("format") != FORMAT:
            raise ValueError("of another version")
        fields["losses"] = tuple(fields["losses"])
        fields["seats"] = {name: tuple(seat) for name, seat in fields["seats"].items()}
        fields["optimizer"]["modules"] = [tuple(module) for module in fields["optimizer"]["modules"]]
        fields["rounds"] = tuple(Round(**row) for row in fields["rounds"])
        fields["clients"] = tuple(ClientRound(**row) for row in fields["clients"])
        fields["measures"] = tuple(Measure(**row) for row in fields["measures"])
        return Checkpoint(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise DataError(
            f"checkpoint {path} can't be used ({exc or type(exc).__name__})",
            "one that this version wrote",
            "delete it to begin a new run",
        ) from exc
