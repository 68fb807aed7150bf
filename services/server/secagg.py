"""The server's side of secure aggregation: it reads the sum of what clients send, never what one of them sends.

The method is declearn's. It needs every participant's reply; a round in which one is lost is run again with those that
are left, after a new set-up among them. So is one whose set-up fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from declearn.secagg import messaging, parse_secagg_config_server
from declearn.secagg.api import Decrypter

from services.transport.hub import ClientGoneError
from services.transport.refusals import one_line
from services.transport.server import ServerEndpoint
from services.transport.wire import UnreadableError

FEWEST = 2
"""Fewest participants: the sum over a single one is that one's own."""

SET_UP_TIMEOUT = 60.0
"""Seconds all participants have to agree on their secrets."""

BITSIZE, CLIPVAL = 64, 1e5
"""Quantization: floats in [-1e5, 1e5] become integers modulo 2**64 (declearn's defaults)."""

logger = logging.getLogger("fed.server")


class SecureAggregation:
    """Keeps what decrypts the sum over one set of participants.

    Args:
        kind: name of declearn's method, `masking` or `joye-libert`.
        netwk: where the clients are.

    Attributes:
        blamed: by name, what was wrong with what a participant sent when they were last to agree.
    """

    def __init__(self, kind: str, netwk: ServerEndpoint) -> None:
        self.kind = kind
        self._netwk = netwk
        self._config = parse_secagg_config_server(secagg_type=kind, bitsize=BITSIZE, clipval=CLIPVAL)
        self._decrypter: Decrypter | None = None
        self._peers: frozenset[str] = frozenset()
        self.blamed: dict[str, str] = {}

    @property
    def decrypter(self) -> Decrypter:
        """What decrypts the sum over those who have agreed; `set_up` comes first."""
        assert self._decrypter is not None  # noqa: S101 - see above
        return self._decrypter

    def forget(self) -> None:
        """Require a new set-up: some participant's secrets may be out of step with the others'."""
        self._decrypter, self._peers = None, frozenset()

    async def set_up(self, clients: Iterable[str]) -> str | None:
        """Let `clients` agree on secrets, unless these very clients have.

        Returns:
            None when they have agreed, else why not.
        """
        peers = frozenset(clients)
        self.blamed = {}
        if self._decrypter is not None and peers == self._peers:
            return None
        self.forget()
        for client in peers:
            self._netwk.handler.flush(client)
        try:
            async with asyncio.timeout(SET_UP_TIMEOUT):
                self._decrypter = await self._config.setup_decrypter(self._netwk, set(peers))
        except TimeoutError:
            return f"not agreed within {SET_UP_TIMEOUT:g} s"
        except ClientGoneError as exc:
            return str(exc)
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as exc:
            # declearn takes what clients send for what its own clients would
            cause: BaseException = exc
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if isinstance(cause, UnreadableError):
                self.blamed[cause.sender] = cause.reason
            return one_line(cause, 400) or type(cause).__name__
        self._peers = peers
        logger.info("secure aggregation (%s) set up among %d clients", self.kind, len(peers))
        return None

    def aggregate(self, replies: Mapping[str, messaging.SecaggMessage[Any]]) -> Any:
        """Decrypt the sum of all participants' replies into one message in clear."""
        return messaging.aggregate_secagg_messages(replies, decrypter=self.decrypter)
