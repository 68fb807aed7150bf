"""The checkpoint: what is read back is what was written; what can't be used is named."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import keras
import numpy as np
import pytest
from declearn.model.tensorflow import TensorflowVector
from declearn.utils.serialize import msgpack_serialize

from services.errors import DataError
from services.experiment import Plan
from services.server import checkpoint
from services.server.model import build_model, build_optim
from services.tables import ClientRound, Round


def state(rounds: int = 1) -> checkpoint.Checkpoint:
    """Make the state of a run after some rounds, its server optimizer in motion."""
    plan = Plan.model_validate({"model": "cnn", "optimizer": {"server": {"modules": ["adam"]}}})
    model = build_model(plan)
    optim = build_optim(plan).server_opt
    optim.apply_gradients(model, model.get_weights(trainable=True))
    row = Round(1, 2.0, 1.0, 0.5, 2, 1, 0.3, 0.9, 0.2, 0.95, 10, 20, 2)
    client = ClientRound(1, "client_0", 2, 0, "late", "no answer within 1 s", None, None, None, None, None, 5, 6)
    return checkpoint.Checkpoint(
        round=rounds,
        weights=model.get_weights(),
        best=model.get_weights(trainable=True),
        best_round=1,
        losses=(0.3,),
        optimizer=optim.get_state(),
        client_states={"client_0": b"opaque"},
        seats={"client_0": (2, 0), "client_1": (2, 1)},
        elapsed=12.5,
        rounds=(row,),
        clients=(client,),
    )


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    """Every field of a checkpoint survives the file, weights and optimizer state to the bit."""
    written = state()
    written.save(tmp_path)
    read = checkpoint.load(tmp_path)
    assert read is not None
    assert read.weights == written.weights
    assert read.best == written.best
    for field in ("round", "best_round", "losses", "client_states", "seats", "elapsed", "rounds", "clients"):
        assert getattr(read, field) == getattr(written, field)
    plan = Plan.model_validate({"model": "cnn", "optimizer": {"server": {"modules": ["adam"]}}})
    first, second = build_optim(plan).server_opt, build_optim(plan).server_opt
    first.set_state(written.optimizer)
    second.set_state(read.optimizer)
    one, other = build_model(plan), build_model(plan)
    for optim, model in ((first, one), (second, other)):
        model.set_weights(cast("TensorflowVector", written.weights))
        optim.apply_gradients(model, cast("TensorflowVector", written.best))
    for left, right in zip(one.get_wrapped_model().get_weights(), other.get_wrapped_model().get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    keras.backend.clear_session()


def test_a_newer_state_replaces_the_older_one(tmp_path: Path) -> None:
    """There is one checkpoint a run, the newest, and no left-over beside it."""
    state(1).save(tmp_path)
    state(2).save(tmp_path)
    read = checkpoint.load(tmp_path)
    assert read is not None
    assert read.round == 2
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["state.mpk"]


def test_a_run_without_checkpoint_has_none(tmp_path: Path) -> None:
    """A run that never came to a round's end has no state to resume from."""
    assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"", b"\x00garbage", msgpack_serialize({"format": 99}), msgpack_serialize({"format": 1})]
)
def test_a_checkpoint_that_can_not_be_used_is_named(tmp_path: Path, content: bytes) -> None:
    """A damaged checkpoint, or one of another version, is an error that names the file and the way out."""
    path = tmp_path / checkpoint.FILE
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        checkpoint.load(tmp_path)
    assert caught.value.found.startswith(f"checkpoint {path} can't be used (")
    assert caught.value.remedy == "delete it to begin a new run"


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    """A checkpoint cut short is refused, whole as it may look at its beginning."""
    state().save(tmp_path)
    path = tmp_path / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="can't be used"):
        checkpoint.load(tmp_path)
