"""The passphrase of the CA's key: from a file, or asked for at the terminal; never in an argument or a variable."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from services.errors import UsageError

SHORTEST = 12
"""Characters of a passphrase: whoever has the key's file can try without end."""


def read(file: Path | None, *, new: bool = False) -> bytes:
    """Get the passphrase.

    Args:
        file: holds it in its first line; None asks at the terminal.
        new: it is to be chosen now: ask twice, and refuse a short one.

    Raises:
        UsageError: there is no terminal, the file can't be read, or it is too short.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
            raise UsageError(f"{file} can't be read ({reason})", "a file that holds the passphrase", "") from exc
    elif not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for the passphrase of the CA's key at", "", "give it by --passphrase-file FILE"
        )
    else:
        try:
            text = getpass.getpass("passphrase of the CA's key: ")
            again = getpass.getpass("once more: ") if new else text
        except EOFError as exc:
            raise UsageError("no passphrase was given", "that of the CA's key", "try again") from exc
        if text != again:
            raise UsageError("the two differ", "the same passphrase twice", "try again")
    if new and len(text) < SHORTEST:
        raise UsageError(
            f"the passphrase has {len(text)} characters", f"at least {SHORTEST}", "choose a longer one, as some words"
        )
    return text.encode()
