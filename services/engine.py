"""Importing TensorFlow: seconds of work, done in a thread and without its chatter.

The lines TensorFlow's C++ code writes to file descriptor 2 while it loads (which processor it found, which kernels it
chose) obey no logger; they are kept for the log file.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("tensorflow.native")


def load() -> None:
    """Import TensorFlow, Keras and declearn's wrapper of them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with _native_lines_to_log():
        import declearn.model.tensorflow  # noqa: F401, PLC0415 - the point of this function
        import keras  # noqa: PLC0415
        import tensorflow as tf  # noqa: PLC0415

        tf.constant(0)  # the first operation looks for devices, and talks of them
    keras.utils.disable_interactive_logging()


@contextmanager
def _native_lines_to_log() -> Iterator[None]:
    """Let what is written to descriptor 2 meanwhile go to the log; our own console writes to a copy of it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                logger.info("%s", line.rstrip())
