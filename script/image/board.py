"""Serve TensorBoard over the event files of all runs, each run once and by its id; the image's command.

TensorBoard follows links, so in the results themselves it would find the newest run a second time as `latest`. It is
given a folder of links instead, `<run-id>` to each run's event files, which follows what comes and goes.

usage: board.py RESULTS [flags of tensorboard]
"""

# ruff: noqa: INP001, PLC0415  in no package; TensorBoard is imported where it is to run

import sys
import tempfile
import threading
from pathlib import Path

EVENTS = "tensorboard"
"""Folder of a run that holds its event files."""

PERIOD = 5.0
"""Seconds between two looks at the results; TensorBoard looks for new events as often."""


def link(results: Path, links: Path) -> None:
    """Let `links` have one link for each run in `results` that has event files, and no other."""
    runs = {path.parent.name: path for path in results.glob(f"*/{EVENTS}") if not path.parent.is_symlink()}
    for old in links.iterdir():
        if old.name not in runs:
            old.unlink()
    for name, path in runs.items():
        if not (links / name).is_symlink():
            (links / name).symlink_to(path.absolute())


def follow(results: Path, links: Path) -> None:
    """Link the runs for ever."""
    while True:
        link(results, links)
        threading.Event().wait(PERIOD)


def main(results: Path, flags: list[str]) -> None:
    """Serve until a signal ends the process."""
    from tensorboard.main import run_main

    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder)
        link(results, links)
        threading.Thread(target=follow, args=(results, links), daemon=True).start()
        sys.argv = ["tensorboard", f"--logdir={links}", *flags]
        run_main()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
