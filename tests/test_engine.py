"""Importing TensorFlow: its own lines go to the log, and nothing else is changed."""

from __future__ import annotations

import logging
import os

import keras
import pytest

from services import engine


def test_native_lines_go_to_the_log(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """What C++ code writes to descriptor 2 is logged line by line, and what is written afterwards is shown again."""
    with caplog.at_level(logging.INFO):
        with engine._native_lines_to_log():
            os.write(2, b"found a processor\nchose a \xff kernel\n")
        os.write(2, b"afterwards\n")
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("tensorflow.native", "INFO", "found a processor"),
        ("tensorflow.native", "INFO", "chose a \N{REPLACEMENT CHARACTER} kernel"),
    ]
    assert capfd.readouterr().err == "afterwards\n"


def test_a_failing_import_gives_the_descriptor_back(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the import fails, what it said is logged and descriptor 2 is itself again."""

    def fail() -> None:
        with engine._native_lines_to_log():
            os.write(2, b"no such kernel\n")
            raise ImportError("broken")

    with caplog.at_level(logging.INFO), pytest.raises(ImportError, match="broken"):
        fail()
    os.write(2, b"afterwards\n")
    assert caplog.messages == ["no such kernel"]
    assert capfd.readouterr().err == "afterwards\n"


def test_loading_leaves_an_operators_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that TensorFlow reads are set where nobody has set them, and Keras draws no progress bars."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    engine.load()
    chosen = (os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"])
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "")  # so that it goes with this test
    assert chosen == ("2", "7")
    assert not keras.utils.is_interactive_logging_enabled()
