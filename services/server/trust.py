"""Whom the server lets in, kept up to date while it runs: its certificate, the CA bundle, and the denylist.

`fed init` renews what is about to expire, and an operator writes a name into the denylist; neither needs a restart.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from services.errors import IdentityError
from services.transport import tls
from services.transport.gate import SERIAL
from services.transport.refusals import one_line

PERIOD = 1.0
"""Seconds between two looks at the files."""

DENIED = "denied.txt"
"""In the denylist's folder: a name a line, or `serial:` and a certificate's number; `#` begins a comment."""

Stamp = tuple[int, int, int] | None

logger = logging.getLogger("fed.server")


class Trust:
    """The server's TLS context and the names it denies.

    Args:
        certificate: PEM certificate of the server.
        key: PEM private key.
        ca: PEM bundle of the CAs whose clients may join; None lets anyone join.
        denylist: folder of the denylist; it, and the file in it, may be missing.

    Attributes:
        context: TLS context; connections that are open keep what they were opened with.
        denied: names, and serial numbers of certificates, that may not take part.

    Raises:
        IdentityError: a file is missing, unreadable, expired, or the key does not belong to the certificate.
    """

    def __init__(self, certificate: Path, key: Path, ca: Path | None, denylist: Path) -> None:
        self.context: ssl.SSLContext = tls.server_context(certificate, key, ca)
        self.denied: frozenset[str] = frozenset()
        self._identity = (certificate, key, ca)
        self._denylist = denylist / DENIED
        self._identity_stamps = self._stamps()
        self._denylist_stamp: Stamp = None
        self._said = ""
        self.look()

    def look(self) -> bool:
        """Read again what has changed since the last look; tells whether the denylist has."""
        stamps = self._stamps()
        if stamps != self._identity_stamps:
            try:
                tls.renew(self.context, *self._identity)
            except IdentityError as exc:
                # files are written one by one: a pair that does not fit may do so at the next look
                if str(exc) != self._said:
                    logger.warning("the identity in use is kept: %s", exc.found)
                self._said = str(exc)
            else:
                logger.info("the server's identity and its CA bundle are read anew")
                self._identity_stamps, self._said = stamps, ""
        stamp = _stamp(self._denylist)
        if stamp == self._denylist_stamp:
            return False
        self._denylist_stamp = stamp
        return self._read_denylist()

    def _read_denylist(self) -> bool:
        try:
            lines = self._denylist.read_text(encoding="utf-8").splitlines() if self._denylist.exists() else []
        except (OSError, UnicodeDecodeError) as exc:
            logger.warning("the denylist in use is kept: %s can't be read (%s)", self._denylist, one_line(exc))
            return False
        denied = frozenset(_entry(text) for line in lines if (text := line.partition("#")[0].strip()))
        if denied == self.denied:
            return False
        self.denied = denied
        logger.info("denied: %s", ", ".join(sorted(denied)) or "nobody")
        return True

    async def watch(self, on_denied: Callable[[], None]) -> None:
        """Look again and again; `on_denied` is called when the denylist has changed. Never returns."""
        while True:
            await asyncio.sleep(PERIOD)
            if self.look():
                on_denied()

    def _stamps(self) -> list[Stamp]:
        return [_stamp(path) for path in self._identity if path is not None]


def _entry(text: str) -> str:
    """Write a serial number as the gate does, whichever way a person did; a name stays as it is."""
    kind, colon, serial = text.partition(":")
    return SERIAL + serial.strip().upper().replace(":", "").lstrip("0") if f"{kind.lower()}{colon}" == SERIAL else text


def _stamp(path: Path) -> Stamp:
    """Tell what changes when a file is written anew; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
