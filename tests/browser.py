"""The browser that pages are looked at with: Debian's Chromium, which script/test installs where it can."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needed = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed and could not be had")
"""Mark of tests that can't do without; skipped where the packages of this system are out of reach."""


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start it, and end it with the block."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
