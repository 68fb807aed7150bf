"""The role `init`: make ready what server and clients need, keep what is valid, and end."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services import distribution
from services.errors import ConflictError, DataError, StorageError
from services.experiment import Plan
from services.experiment.contradictions import check_clients
from services.experiment.data import PARAMETERS
from services.init import dataset, identities, own, secagg_keys, shards
from services.init.locking import exclusive
from services.paths import MANIFEST, Paths, write_atomic
from services.privileges import become
from services.settings import Settings
from services.shards import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Cut,
    Manifest,
    count_test,
    dump_manifest,
    index_file,
    read_labels,
    read_manifest,
)
from services.terminal.progress import counted, working

# What a results folder may hold: runs, the link to the newest, and what keeps a folder in version control.
_RESULT = re.compile(r"\d{8}-\d{6}(-\d+)?|latest|sweeps|compare\.png|\.latest\.\d+|\.git(ignore|keep)")

logger = logging.getLogger("fed.init")


def run(settings: Settings, plan: Plan, paths: Paths, *, drop_to: int | None = None, data_only: bool = False) -> None:
    """Prepare data set, shards and identities; what is there and valid is kept as it is.

    Args:
        settings: of them `clients` and `max_clients` count here.
        plan: of it `data`, `seed` and `train.batch_size` count here.
        paths: where everything lies.
        drop_to: numeric id of the user to become, when started as root, before anything is written.
        data_only: issue no identities; they come from elsewhere.

    Raises:
        UsageError: the scheme can't deal to that many clients, or too little for a batch to one of them.
        DataError: a file of the data set is missing, truncated or altered.
        ConflictError: what is kept was dealt otherwise than asked.
        StorageError: a folder can't be written.
    """
    began = time.monotonic()
    check_clients(plan, settings.clients)
    if drop_to is not None and os.geteuid() == 0:
        drop_privileges(drop_to, paths.results)
    manifest = prepare(settings.clients, settings.max_clients, plan, paths)
    _log_seats(manifest.cuts[settings.clients])
    _draw(manifest, settings.clients, paths)
    if not data_only:
        _identify(identities.client_names(settings.max_clients), paths)
    largest = min(manifest.largest, settings.max_clients)
    logger.info("ready for up to %d clients, in %.1f s", largest, time.monotonic() - began)


def _identify(names: Sequence[str], paths: Paths) -> None:
    """Make sure that the server and all clients have their certificates and keys."""
    _log_identities(identities.ensure(paths.certs, paths.client_certs, names))
    made = secagg_keys.ensure(paths.client_certs, names)
    if made:
        logger.info("keys for secure aggregation: %s, made", _shortened(made))


def prepare(clients: int, max_clients: int, plan: Plan, paths: Paths) -> Manifest:
    """Write the arrays and the index sets for every size up to `max_clients`; keep those that are there and whole.

    Nothing is written before it is certain that `clients` clients can train on it.

    Raises:
        UsageError, DataError, ConflictError, StorageError: see `run`.
    """
    recipe = _recipe(plan)
    origin = (
        own.find(plan.data, paths, recipe) if plan.data.dataset == own.NAME else dataset.find(plan.data.dataset, paths)
    )
    with exclusive(paths.shards), exclusive(paths.test):
        kept = _read_kept(paths.shards, origin, recipe)
        files = dict(kept.files) if kept else {}
        with working(f"checking the data set {origin.name}"):
            train_kept = _are_kept(paths.shards, (TRAIN_IMAGES, TRAIN_LABELS), files)
            test_kept = _are_kept(paths.test, (TEST_IMAGES, TEST_LABELS), files)
            data = None if kept and train_kept and test_kept else origin.load()
        labels = data.train_labels if data else read_labels(paths.shards)
        content: dataset.Content | Manifest | None = data or kept
        assert content is not None  # noqa: S101 - what is not kept is loaded
        classes = len(content.classes)
        shards.check_size(clients, recipe.scheme, classes)

        listed = kept.cuts if kept else {}
        cuts = {
            size: listed[size]
            for size in counted(listed, "checking what was dealt, for each number of clients")
            if shards.is_kept(paths.shards, size, listed[size], labels, classes)
        }
        sizes = {*shards.sizes(max(clients, max_clients), recipe.scheme, classes), *listed}
        missing = sorted(sizes - cuts.keys())
        dealt = {
            size: shards.deal(labels, size, recipe)
            for size in counted(missing, "dealing the data set, to each number of clients")
        }
        cuts |= {size: shards.describe(labels, seats, classes) for size, seats in dealt.items()}
        shards.check_usable(clients, cuts[clients], recipe)
        shards.check_batch(clients, cuts[clients], plan.train.batch_size)

        if data and not train_kept:
            with working("writing the training images"):
                files |= dataset.write_train(data, paths.shards)
        if data and not test_kept:
            with working("writing the test images"):
                files |= dataset.write_test(data, paths.test)
        count = f"{len(labels):,} + {count_test(paths.test):,}"
        logger.info("data set %s: %s images %s", origin.name, count, "written" if data else "kept")
        shards.write(paths.shards, dealt)
        for size in dealt:
            _picture(paths, size).unlink(missing_ok=True)  # of another deal
        _log_shards(recipe, cuts, dealt)
        manifest = Manifest(
            image_shape=content.image_shape,
            classes=content.classes,
            files=files,
            cuts={size: cuts[size] for size in sorted(cuts)},
            **_terms(origin, recipe),
        )
        _write_manifest(manifest, paths)
        return manifest


def hold_out(raw: Path, recipe: shards.Recipe, folder: Path) -> None:
    """Write the held-out test set alone, for a server whose clients bring their own data (`fed data`).

    Its manifest lists no cut: there is nothing to deal. `fed init` replaces it.

    Raises:
        DataError, StorageError: see `run`.
    """
    source = dataset.MNIST
    with exclusive(folder):
        try:
            files = dict(read_manifest(folder).files)
        except DataError:
            files = {}
        if not _are_kept(folder, (TEST_IMAGES, TEST_LABELS), files):
            files = dataset.write_test(dataset.load(raw, source), folder)
        shape, classes = source.image_shape, source.classes
        manifest = Manifest(
            **_terms(dataset.Known(source, raw), recipe), image_shape=shape, classes=classes, files=files, cuts={}
        )
        write_atomic(folder / MANIFEST, dump_manifest(manifest))


def drop_privileges(uid: int, results: Path) -> None:
    """Go on as the user `uid`, after making sure that it can write into the folder `results`, should there be one.

    A folder that Docker makes for a bind mount belongs to root, and one that a person made belongs to that person.

    Raises:
        StorageError: the folder's mode can't be changed, or should not be: it holds something else than results.
    """
    try:
        if results.exists() and not _is_writable(results, uid):
            strangers = sorted(entry.name for entry in results.iterdir() if not _RESULT.fullmatch(entry.name))
            if strangers:
                raise StorageError(
                    f"{results} can't be written by user {uid} and holds {strangers[0]}, which is no run's",
                    "a folder of results alone, or an empty one, to be opened to everybody",
                    "set RESULTS in .env to another folder, or `chmod 1777` this one yourself",
                )
            # Anyone may write, but only into what is theirs: as in /tmp.
            results.chmod(0o1777)
    except OSError as exc:
        raise StorageError(
            f"{results} can't be made writable ({exc.strerror or exc})",
            f"a folder that user {uid} may write into",
            "`chmod 1777` it, or set RESULTS in .env to another folder",
        ) from exc
    become(uid, uid)


def _is_writable(folder: Path, uid: int) -> bool:
    """Tell from its mode whether the user and the group `uid` can add files to `folder`."""
    found = folder.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == uid else 0
    needed = stat.S_IWOTH | stat.S_IXOTH
    return (found.st_mode >> shift) & needed == needed


def _recipe(plan: Plan) -> shards.Recipe:
    data = plan.data
    seed = plan.seed if data.seed is None else data.seed
    return shards.Recipe(data.scheme, seed, data.valid_fraction, data.alpha, data.classes_per_client)


def _terms(origin: dataset.Origin, recipe: shards.Recipe) -> dict[str, Any]:
    """List what a kept deal must agree on with what is asked."""
    terms: dict[str, Any] = {"dataset": origin.name, "data_sha256": origin.sha256, "reading": origin.reading}
    terms |= asdict(recipe)
    for key, scheme in PARAMETERS.items():
        if recipe.scheme != scheme:
            terms[key] = None
    return terms


def _read_kept(folder: Path, origin: dataset.Origin, recipe: shards.Recipe) -> Manifest | None:
    """Read the manifest of an earlier run, if it left a whole one.

    Raises:
        ConflictError: it was dealt otherwise than asked.
    """
    try:
        kept = read_manifest(folder)
    except DataError:
        return None
    asked = _terms(origin, recipe)
    differing = [key for key, value in asked.items() if getattr(kept, key) != value]
    if not differing:
        return kept
    found = {key: getattr(kept, key) for key in asked}
    if "dataset" in differing:
        differing = [key for key in differing if key not in {"data_sha256", "reading"}]
    if "reading" in differing:
        differing.remove("reading")
        differing += [key for key, value in origin.reading.items() if kept.reading.get(key) != value]
        found, asked = found | dict(kept.reading), asked | dict(origin.reading)
    if "scheme" in differing:
        differing = [key for key in differing if key not in PARAMETERS]
    raise ConflictError(
        f"{folder} was dealt with " + ", ".join(f"{key} {found.get(key)}" for key in differing),
        ", ".join(f"{key} {asked[key]}" for key in differing) + " as asked now",
        "set SCHEME, SEED, EXPERIMENT or DATA back, or start over:"
        f" `docker compose down -v` for containers, or delete {folder} on a host",
    )


def _are_kept(folder: Path, names: Iterable[str], files: dict[str, str]) -> bool:
    return all(name in files and dataset.digest_file(folder / name) == files[name] for name in names)


def _write_manifest(manifest: Manifest, paths: Paths) -> None:
    """Write the manifest where it differs; it comes last, so what it lists is there."""
    text = dump_manifest(manifest)
    for path in (paths.shards / MANIFEST, paths.test / MANIFEST):
        try:
            if path.read_text() == text:
                continue
        except (OSError, UnicodeDecodeError):
            pass
        write_atomic(path, text)


def _log_shards(recipe: shards.Recipe, cuts: Mapping[int, Cut], dealt: Mapping[int, shards.Deal]) -> None:
    what = f"shards of scheme {recipe.scheme}, seed {recipe.seed}"
    if dealt:
        logger.info("%s: for %s clients written", what, _ranges(dealt))
    if kept := cuts.keys() - dealt.keys():
        logger.info("%s: for %s clients kept", what, _ranges(kept))
    if useless := [size for size in cuts if not cuts[size].usable]:
        logger.warning("%s: a federation of %s can't train, a client would hold no image", what, _ranges(useless))


def _picture(paths: Paths, size: int) -> Path:
    return index_file(paths.shards, size, 0).with_name(distribution.FILE)


def _draw(manifest: Manifest, size: int, paths: Paths) -> None:
    """Draw who holds what in a federation of `size`, unless that picture is there."""
    path = _picture(paths, size)
    if not path.exists():
        with working("drawing who holds what"):
            write_atomic(path, distribution.draw(manifest.cuts[size].seats, manifest.classes))


def _log_seats(cut: Cut) -> None:
    """Log what each client holds, one line each."""
    last = len(cut.seats[0].labels) - 1
    logger.info("%6s %7s %7s   training images of each class 0 … %d", "client", "train", "valid", last)
    for number, seat in enumerate(cut.seats):
        histogram = " ".join(f"{count:5d}" for count in seat.labels)
        logger.info("%6d %7s %7s   %s", number, f"{seat.train:,}", f"{seat.valid:,}", histogram)


def _log_identities(report: identities.Report) -> None:
    for name, reason in report.held.items():
        logger.warning("identity %s: %s, but a running client uses it; left as it is", name, reason)
    for reason in sorted(set(report.made.values())):
        names = [name for name, other in report.made.items() if other == reason]
        logger.info("identities: %s, issued (%s)", _shortened(names), reason)
    if report.kept:
        logger.info("identities: %s, kept", _shortened(report.kept))
    logger.info("identities: the first expires on %s", f"{report.expires:%Y-%m-%d %H:%M} UTC")


def _shortened(names: Iterable[str]) -> str:
    """List names: all of a few, the ends of many."""
    first, *rest = names
    return f"{first} … {rest[-1]} ({len(rest) + 1} in all)" if len(rest) > 1 else ", ".join([first, *rest])


def _ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges: 1-10, 12."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
