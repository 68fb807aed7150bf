"""The client, but for one fault: one step of its training fails, as where a disk does: `failing_client.py STEP`.

Mounted into a client's container and started there in place of `fed client`.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
from typing import Any
from unittest import mock

from declearn.training import TrainingManager

from services.cli import main

step = TrainingManager.run_train_step
number = itertools.count(1)


def step_or_fail(manager: TrainingManager, batch: Any) -> None:
    """Fail once, at the step of that number, counted over all rounds."""
    if next(number) == int(sys.argv[1]):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    step(manager, batch)


if __name__ == "__main__":
    with mock.patch.object(TrainingManager, "run_train_step", step_or_fail):
        sys.exit(main(["client"]))
