"""The whole of `init`: what a first run makes, what a second one keeps, mends, adds and refuses."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services import shards as dealt
from services.errors import ConflictError, DataError, StorageError, UsageError
from services.experiment import Data, Plan
from services.experiment.plan import Federation, Train
from services.init import dataset, main, shards
from services.paths import MANIFEST, Paths
from services.settings import Settings
from tests.support import RAW, REPOSITORY, contents, deadline, stats

SETTINGS = Settings(clients=3, max_clients=4)


def _plan(seed: int = 0, **data: Any) -> Plan:
    return Plan(seed=seed, data=Data(**data))


@dataclass(frozen=True)
class Outcome:
    """What one `init` in a process of its own did."""

    modules: frozenset[str]
    lines: tuple[str, ...]


_SCRIPT = """
import json, logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
from services import experiment, settings
from services.init import main
from services.paths import Paths
main.run(settings.load({}), experiment.load(Path(sys.argv[2])), Paths(Path(sys.argv[1])))
print(json.dumps(sorted(sys.modules)))
"""


def _process(root: Path) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(root), str(REPOSITORY / "experiment.yml")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=deadline(60),
    )
    return Outcome(frozenset(json.loads(done.stdout)), tuple(done.stderr.splitlines()))


@dataclass(frozen=True)
class RealRuns:
    """Two runs, one after the other, on the real data set with the settings and the experiment that are shipped."""

    paths: Paths
    first: Outcome
    second: Outcome
    touched: bool


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRuns]:
    """Run `init` twice as a person would."""
    paths = Paths(tmp_path_factory.mktemp("real"))
    paths.raw.parent.mkdir()
    paths.raw.symlink_to(RAW)
    first = _process(paths.root)
    before = stats(paths.root)
    second = _process(paths.root)
    yield RealRuns(paths, first, second, touched=stats(paths.root) != before)
    shutil.rmtree(paths.root)


def test_a_first_run_says_what_it_made(real: RealRuns) -> None:
    """A first run, with the defaults, tells of the data set, of who holds what, and of the identities."""
    text = "\n".join(real.first.lines)
    assert text.startswith(
        "data set mnist: 60,000 + 10,000 images written\n"
        "shards of scheme iid, seed 0: for 1-32 clients written\n"
        "client   train   valid   training images of each class 0 … 9\n"
        "     0  16,000   4,000    1638  1782  1504  1639  1538  1494  1579  1634  1630  1562\n"
    )
    assert "identities: server … client_31 (33 in all), issued (missing certificate)" in text
    assert re.fullmatch(r"ready for up to 32 clients, in \d+\.\d s", real.first.lines[-1])


def test_a_second_run_touches_nothing(real: RealRuns) -> None:
    """When nothing is to do `init` imports neither declearn nor matplotlib, which take seconds, and no file changes."""
    assert not real.touched
    assert not {"declearn", "matplotlib"} & real.second.modules
    assert "data set mnist: 60,000 + 10,000 images kept" in real.second.lines
    assert "identities: server … client_31 (33 in all), kept" in real.second.lines


def test_tensorflow_is_never_imported(real: RealRuns) -> None:
    """Neither run imports TensorFlow, Keras or PyTorch."""
    for modules in (real.first.modules, real.second.modules):
        assert not modules & {"tensorflow", "keras", "torch"}


def test_real_data_is_dealt_whole(real: RealRuns, mnist: dataset.Dataset) -> None:
    """On disk, for every size, each training image is held by exactly one seat; the test set is apart."""
    manifest = dealt.read_manifest(real.paths.shards)
    assert manifest.sizes == tuple(range(1, 33))
    for size in manifest.sizes:
        seats = [dealt.load_indices(real.paths.shards, size, seat) for seat in range(size)]
        assert (np.bincount(np.concatenate([part for seat in seats for part in seat]), minlength=60_000) == 1).all()
    shard = dealt.load_shard(real.paths.shards, 5, 4)
    train, _ = dealt.load_indices(real.paths.shards, 5, 4)
    np.testing.assert_array_equal(shard.train_images, mnist.train_images[train])
    np.testing.assert_array_equal(dealt.load_test(real.paths.test)[0], mnist.test_images)


def test_each_role_finds_its_files_and_no_others(small: Paths) -> None:
    """The server's folder holds no training image, the clients' folders neither test images nor the server's key."""
    main.run(SETTINGS, Plan(), small)
    assert {path.name for path in small.test.iterdir()} == {"test_images.npy", "test_labels.npy", MANIFEST, ".lock"}
    arrays = {"train_images.npy", "train_labels.npy", MANIFEST, ".lock"}
    assert {path.name for path in small.shards.iterdir()} == {*arrays, "1", "2", "3", "4"}
    assert {path.name for path in (small.shards / "4").iterdir()} == {f"{seat}.npz" for seat in range(4)}
    assert {path.name for path in (small.shards / "3").iterdir()} == {"0.npz", "1.npz", "2.npz", "distribution.png"}
    assert not (small.client_certs / "server-pkey.pem").exists()


def test_data_only_issues_no_identity(small: Paths) -> None:
    """Where identities come from elsewhere, `init` deals the data set and writes no certificate and no key."""
    main.run(SETTINGS, _plan(), small, data_only=True)
    assert dealt.read_manifest(small.test).largest == 4
    assert not small.certs.exists()


def test_second_run_keeps_every_file(small: Paths) -> None:
    """A second run changes no file, be it by its bytes, its inode or its time, and needs no raw file."""
    main.run(SETTINGS, Plan(), small)
    shutil.rmtree(small.raw)
    before = contents(small.root), stats(small.root)
    main.run(SETTINGS, Plan(), small)
    assert (contents(small.root), stats(small.root)) == before


def test_growing_adds_sizes_and_identities(small: Paths) -> None:
    """A larger MAX_CLIENTS adds what is new; a smaller one takes nothing away."""
    main.run(SETTINGS, Plan(), small)
    before = stats(small.root)
    main.run(Settings(clients=3, max_clients=6), Plan(), small)
    after = stats(small.root)
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {
        "data/shards/manifest.json",
        "data/test/manifest.json",
        "certs/ca-cert.pem",
        "certs/clients/ca-cert.pem",
    }
    assert dealt.read_manifest(small.test).sizes == (1, 2, 3, 4, 5, 6)
    main.run(Settings(clients=3, max_clients=3), Plan(), small)
    assert stats(small.root) == after


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, _truncate, _flip, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize(
    "name",
    [
        "shards/train_images.npy",
        "shards/train_labels.npy",
        "shards/4/2.npz",
        "shards/manifest.json",
        "test/test_images.npy",
        "test/test_labels.npy",
        "test/manifest.json",
    ],
)
def test_damage_is_mended(small: Paths, name: str, damage: Callable[[Path], object]) -> None:
    """Whichever file is missing, cut short or changed, the next run brings back the very bytes."""
    main.prepare(3, 4, Plan(), small)
    before = contents(small.root)
    damage(small.root / "data" / name)
    main.prepare(3, 4, Plan(), small)
    assert contents(small.root) == before


def test_mending_one_file_leaves_the_others(small: Paths) -> None:
    """Only what is damaged is written again: another size, and what running clients have open, stays."""
    main.prepare(3, 4, Plan(), small)
    before = stats(small.root)
    _truncate(small.shards / "4" / "2.npz")
    main.prepare(3, 4, Plan(), small)
    after = stats(small.root)
    assert {path for path in before if before[path] != after[path]} == {
        f"data/shards/4/{seat}.npz" for seat in range(4)
    }


def test_wrong_count_in_the_manifest_is_mended(small: Paths) -> None:
    """A manifest whose counts are not those of the index sets is written anew."""
    main.prepare(3, 4, Plan(), small)
    path = small.shards / MANIFEST
    whole = path.read_text()
    path.write_text(whole.replace('"train": 120', '"train": 121', 1))
    main.prepare(3, 4, Plan(), small)
    assert path.read_text() == whole


@pytest.mark.parametrize("written", [0, 1, 2, 3, 4, 7, 12, 14])
def test_crash_at_any_write_is_mended(small: Paths, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """Whichever write a crash follows, the next run ends with what an undisturbed one makes."""
    undisturbed = Paths(small.root.parent / "undisturbed")
    undisturbed.raw.parent.mkdir(parents=True)
    undisturbed.raw.symlink_to(small.raw)
    main.prepare(3, 4, Plan(), undisturbed)
    original, done = Path.replace, 0

    def crash(self: Path, target: Path) -> Path:
        nonlocal done
        if done == written:
            raise OSError(28, "No space left on device")
        done += 1
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(StorageError, match="No space left on device"):
            main.prepare(3, 4, Plan(), small)
    assert not (small.shards / MANIFEST).exists() or written >= 14
    main.prepare(3, 4, Plan(), small)
    assert contents(small.shards) == contents(undisturbed.shards)
    assert contents(small.test) == contents(undisturbed.test)


@pytest.mark.parametrize(
    ("asked", "found", "wanted"),
    [
        (_plan(scheme="labels"), "scheme iid", "scheme labels"),
        (_plan(seed=7), "seed 0", "seed 7"),
        (_plan(valid_fraction=0.1), "valid_fraction 0.2", "valid_fraction 0.1"),
        (_plan(scheme="dirichlet", seed=1), "scheme iid, seed 0", "scheme dirichlet, seed 1"),
    ],
)
def test_other_settings_are_a_conflict(small: Paths, asked: Plan, found: str, wanted: str) -> None:
    """Kept shards that were dealt otherwise than asked are an error that names both and the way out, and stay."""
    main.run(SETTINGS, Plan(), small)
    before = stats(small.root)
    with pytest.raises(ConflictError) as caught:
        main.run(SETTINGS, asked, small)
    assert str(caught.value) == (
        f"{small.shards} was dealt with {found}; wanted {wanted} as asked now;"
        " set SCHEME, SEED, EXPERIMENT or DATA back, or start over:"
        f" `docker compose down -v` for containers, or delete {small.shards} on a host"
    )
    assert stats(small.root) == before


def test_split_has_a_seed_of_its_own(small: Paths) -> None:
    """`data.seed` is the seed of the split; a plan of another seed that names the same one keeps the deal."""
    main.prepare(2, 2, Plan(seed=7), small)
    assert dealt.read_manifest(small.shards).seed == 7
    before = stats(small.root)
    main.prepare(2, 2, _plan(seed=7), small)
    assert stats(small.root) == before
    main.prepare(2, 2, Plan(seed=8, data=Data(seed=7)), small)
    assert stats(small.root) == before
    with pytest.raises(ConflictError, match="was dealt with seed 7; wanted seed 9 as asked now"):
        main.prepare(2, 2, Plan(seed=7, data=Data(seed=9)), small)


def test_parameters_of_another_scheme_are_not_told_of(small: Paths) -> None:
    """Another scheme is a conflict of schemes, whatever parameters come with it; another number of pieces is one."""
    main.prepare(2, 2, _plan(scheme="shards"), small)
    assert dealt.read_manifest(small.shards).classes_per_client == 2
    with pytest.raises(ConflictError, match="was dealt with scheme shards; wanted scheme dirichlet as asked now"):
        main.prepare(2, 2, _plan(scheme="dirichlet"), small)
    with pytest.raises(ConflictError, match="with classes_per_client 2; wanted classes_per_client 3 as asked now"):
        main.prepare(2, 2, _plan(scheme="shards", classes_per_client=3), small)


def test_picture_is_that_of_the_deal(small: Paths) -> None:
    """The picture of who holds what is drawn for CLIENTS, kept while the deal is, and gone with it."""
    main.run(SETTINGS, Plan(), small)
    picture = small.shards / "3" / "distribution.png"
    first = picture.read_bytes()
    assert first.startswith(b"\x89PNG")
    main.run(Settings(clients=2, max_clients=4), Plan(), small)
    assert (small.shards / "2" / "distribution.png").read_bytes() != first
    (small.shards / MANIFEST).unlink()
    main.run(SETTINGS, _plan(scheme="labels"), small)
    assert picture.read_bytes() != first
    assert not (small.shards / "2" / "distribution.png").exists()


def test_data_may_lie_elsewhere(small: Paths, tmp_path: Path) -> None:
    """The folder that DATA names is read in place of the data set's own, and named where a file is missing."""
    elsewhere = tmp_path / "elsewhere"
    shutil.move(small.raw, elsewhere)
    main.prepare(2, 2, Plan(), Paths(small.root, elsewhere))
    assert dealt.count_test(small.test) == 50
    shutil.rmtree(small.shards)
    (elsewhere / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"elsewhere/train-labels-idx1-ubyte\.gz is missing"):
        main.prepare(2, 2, Plan(), Paths(small.root, elsewhere))


def test_alpha_counts_with_dirichlet_alone(small: Paths) -> None:
    """Another alpha is a conflict with the scheme it belongs to, and is not kept with any other."""
    assert main.prepare(2, 2, Plan(), small).alpha is None
    shutil.rmtree(small.shards)
    main.prepare(2, 2, _plan(scheme="dirichlet", alpha=3), small)
    with pytest.raises(ConflictError, match=r"was dealt with alpha 3\.0; wanted alpha 0\.5 as asked now"):
        main.prepare(2, 2, _plan(scheme="dirichlet", alpha=0.5), small)


def test_another_data_set_is_a_conflict(small: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of other images under the same name are a conflict."""
    main.prepare(2, 2, Plan(), small)
    monkeypatch.undo()
    with pytest.raises(
        ConflictError, match=r"was dealt with data_sha256 [0-9a-f]{64}; wanted data_sha256 c65580678af9"
    ):
        main.prepare(2, 2, Plan(), small)


def test_deleting_the_shards_is_the_way_out(small: Paths) -> None:
    """After the folder that the message names is deleted, the new settings are dealt."""
    main.run(SETTINGS, Plan(), small)
    shutil.rmtree(small.shards)
    main.run(SETTINGS, _plan(seed=7), small)
    assert dealt.read_manifest(small.test).seed == dealt.read_manifest(small.shards).seed == 7


def test_test_set_alone_is_held_out(small: Paths) -> None:
    """`fed data` writes the test set with a manifest that deals nothing; `fed init` then puts its own in place."""
    main.hold_out(small.raw, shards.Recipe("biased", 5), small.test)
    manifest = dealt.read_manifest(small.test)
    assert (manifest.scheme, manifest.seed, manifest.sizes) == ("biased", 5, ())
    np.testing.assert_array_equal(dealt.load_test(small.test)[1], dataset.load(small.raw, dataset.MNIST).test_labels)
    before = stats(small.test)
    main.hold_out(small.raw, shards.Recipe("iid", 0), small.test)
    after = stats(small.test)
    assert {path for path in before if before[path] != after[path]} == {MANIFEST}
    main.run(SETTINGS, Plan(), small)
    assert dealt.read_manifest(small.test).sizes == (1, 2, 3, 4)


def test_labels_scheme_prepares_ten_sizes(small: Paths) -> None:
    """Scheme `labels` prepares as many sizes as there are classes, and as many identities as ever."""
    main.run(Settings(clients=3, max_clients=12), _plan(scheme="labels"), small)
    assert dealt.read_manifest(small.shards).largest == 10
    assert (small.client_certs / "client_11-cert.pem").exists()
    with pytest.raises(UsageError, match="CLIENTS is 11 and the scheme is labels; wanted at most 10 clients"):
        main.run(Settings(clients=11, max_clients=12), _plan(scheme="labels"), small)


def test_size_that_cannot_train_is_refused_before_anything_is_written(small: Paths) -> None:
    """A draw that leaves one of CLIENTS with nothing is refused, and leaves no shards that another try would meet."""
    plan = _plan(scheme="dirichlet", alpha=0.01, seed=5)
    with pytest.raises(UsageError, match="CLIENTS is 12, and scheme dirichlet with seed 5 leaves client"):
        main.run(Settings(clients=12, max_clients=12), plan, small)
    assert contents(small.shards) == {".lock": b""}
    main.run(Settings(clients=1, max_clients=12), plan, small)
    manifest = dealt.read_manifest(small.shards)
    assert 12 in manifest.cuts
    assert 12 not in manifest.sizes


def test_a_batch_that_one_client_cannot_fill_is_refused(small: Paths) -> None:
    """A client of CLIENTS with fewer training images than a batch is named with their number; nothing is written."""
    cut = main.prepare(3, 3, _plan(scheme="biased"), small).cuts[3]
    shutil.rmtree(small.shards)
    fewest = min(seat.train for seat in cut.seats)
    number = [seat.train for seat in cut.seats].index(fewest)

    def plan(batch_size: int) -> Plan:
        return Plan(data=Data(scheme="biased"), train=Train(batch_size=batch_size))

    with pytest.raises(UsageError) as caught:
        main.prepare(3, 4, plan(fewest + 1), small)
    assert str(caught.value) == (
        f"train.batch_size is {fewest + 1}, and client {number} of 3 has {fewest} training images; wanted at most"
        f" {fewest}; lower train.batch_size or CLIENTS, or deal otherwise (data.scheme, data.alpha, seed)"
    )
    assert contents(small.shards) == {".lock": b""}
    main.prepare(3, 4, plan(fewest), small)


def test_fewer_clients_than_a_round_needs_are_refused(small: Paths) -> None:
    """Where no round could count with CLIENTS clients, `init` says so before it writes anything."""
    with pytest.raises(UsageError, match=r"^CLIENTS is 3 and federation.min_clients is 4; wanted at least 4 clients;"):
        main.run(SETTINGS, Plan(federation=Federation(min_clients=4)), small)
    assert not small.shards.exists()


def test_size_that_cannot_train_is_logged(small: Paths, caplog: pytest.LogCaptureFixture) -> None:
    """Sizes that a draw left useless are named in the log."""
    with caplog.at_level(logging.INFO, "fed.init"):
        manifest = main.prepare(1, 12, _plan(scheme="dirichlet", alpha=0.01, seed=5), small)
    useless = main._ranges(set(manifest.cuts) - set(manifest.sizes))
    assert caplog.messages[-1] == (
        f"shards of scheme dirichlet, seed 5: a federation of {useless} can't train, a client would hold no image"
    )


def test_missing_raw_file_leaves_nothing_behind(small: Paths) -> None:
    """Without a raw file nothing is written."""
    (small.raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
        main.run(SETTINGS, Plan(), small)
    assert contents(small.shards) == {".lock": b""}
    assert not small.certs.exists()


def test_same_seed_makes_the_same_bytes(small: Paths) -> None:
    """Two runs in two places write the same data, byte for byte."""
    other = Paths(small.root.parent / "other")
    other.raw.parent.mkdir(parents=True)
    other.raw.symlink_to(small.raw)
    for paths in (small, other):
        main.prepare(3, 4, _plan(scheme="biased", seed=9), paths)
    assert contents(small.shards) == contents(other.shards)
    assert contents(small.test) == contents(other.test)


def test_manifest_describes_the_seats(small: Paths) -> None:
    """Counts and histograms in the manifest are those of the images."""
    manifest = main.prepare(3, 4, _plan(scheme="biased"), small)
    for size in manifest.sizes:
        assert manifest.cuts[size].sha256 == shards.digest(
            [dealt.load_indices(small.shards, size, seat) for seat in range(size)]
        )
        for number, seat in enumerate(manifest.cuts[size].seats):
            shard = dealt.load_shard(small.shards, size, number)
            assert shard.valid_labels is not None
            assert (seat.train, seat.valid) == (len(shard.train_labels), len(shard.valid_labels))
            assert seat.labels == tuple(np.bincount(shard.train_labels, minlength=10).tolist())


def test_identity_in_use_is_logged(small: Paths, caplog: pytest.LogCaptureFixture) -> None:
    """An identity that should be renewed but is in use is named in a warning."""
    main.run(SETTINGS, Plan(), small)
    path = small.client_certs / "client_1-cert.pem"
    (small.client_certs / "client_1-pkey.pem").unlink()
    with path.open("rb") as claimed, caplog.at_level(logging.WARNING, "fed.init"):
        fcntl.flock(claimed, fcntl.LOCK_EX)
        main.run(SETTINGS, Plan(), small)
    assert caplog.messages == ["identity client_1: missing key, but a running client uses it; left as it is"]


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([1, 2, 3], "1-3"), ([7, 1, 3, 2, 9, 10], "1-3, 7, 9-10")]
)
def test_numbers_are_written_as_ranges(numbers: list[int], text: str) -> None:
    """Consecutive numbers are written as one range."""
    assert main._ranges(numbers) == text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("owner", "mode", "after"), [(0, 0o755, 0o1777), (0, 0o777, 0o777), (4242, 0o755, 0o755)])
def test_root_is_given_up(owner: int, mode: int, after: int) -> None:
    """Root opens a results folder its user can't write into, leaves others as they are, and keeps no privilege."""
    script = (
        "import os, sys; from pathlib import Path; from services.init.main import drop_privileges;"
        " results = Path(sys.argv[1]); drop_privileges(4242, results); (results / 'run').mkdir();"
        " print(os.getresuid(), os.getresgid(), os.getgroups())"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        results = Path(folder) / "results"
        results.mkdir()
        results.chmod(mode)
        os.chown(results, owner, owner)
        done = subprocess.run(
            [sys.executable, "-c", script, str(results)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=deadline(60),
        )
        assert done.stdout == "(4242, 4242, 4242) (4242, 4242, 4242) []\n"
        assert results.stat().st_mode & 0o7777 == after


@pytest.mark.skipif(os.geteuid() == 0, reason="root would drop its privileges")
def test_user_stays_who_it_is(small: Paths) -> None:
    """Without root nothing is dropped, whoever is named."""
    main.run(SETTINGS, Plan(), small, drop_to=os.getuid() + 1)


def test_a_folder_that_is_not_one_of_results_is_never_opened(tmp_path: Path) -> None:
    """A folder of anything else than runs, that the image's user can't write into, keeps its mode: one line says so."""
    for name in ("20260102-030405", "latest", "sweeps", "compare.png", ".gitkeep", "home"):
        (tmp_path / name).mkdir()
    tmp_path.chmod(0o755)
    with pytest.raises(StorageError) as caught:
        main.drop_privileges(os.geteuid() + 4242, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} can't be written by user {os.geteuid() + 4242} and holds home, which is no run's; "
        "wanted a folder of results alone, or an empty one, to be opened to everybody; "
        "set RESULTS in .env to another folder, or `chmod 1777` this one yourself"
    )
    assert tmp_path.stat().st_mode & 0o7777 == 0o755
