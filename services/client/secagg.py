"""A client's side of secure aggregation: declearn's set-up protocol, made so that it can be broken off.

declearn's protocol is a fixed sequence of messages that fails when a peer is lost half-way. The server then begins anew
with those that are left, or does something else; so whatever is no part of the protocol ends it and is handed back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from declearn.communication.api import NetworkClient
from declearn.messaging import Message, SerializedMessage
from declearn.secagg import parse_secagg_config_client
from declearn.secagg.api import Encrypter, SecaggSetupQuery
from declearn.secagg.joye_libert.messages import JoyeLibertPublicShare, JoyeLibertSecretShares
from declearn.secagg.masking import MaskingEncrypter
from declearn.secagg.utils import IdentityKeys

from services.errors import IdentityError
from services.paths import secagg_key, secagg_public_key
from services.transport.client import ClientEndpoint

ALONE = "no peer takes part: the sum would be this client's own update"


class SetUpInterruptedError(Exception):
    """A message came that is no part of the set-up protocol.

    Attributes:
        message: that message.
    """

    def __init__(self, message: SerializedMessage[Any]) -> None:
        super().__init__(message.typekey)
        self.message = message


class _Channel:
    """What declearn's protocol sees of the network.

    Attributes:
        peers: of Joye-Libert's method, those that this client has shared its key with.
    """

    def __init__(self, netwk: ClientEndpoint) -> None:
        self.peers = 0
        self._netwk = netwk

    async def send_message(self, message: Message) -> None:
        if isinstance(message, JoyeLibertSecretShares):
            self.peers = len(message.shares)
        if isinstance(message, JoyeLibertPublicShare) and self.peers == 0:
            raise RuntimeError(ALONE)  # it would be the key itself
        await self._netwk.send_message(message)

    async def recv_message(self, timeout: float | None = None) -> SerializedMessage[Any]:
        message: SerializedMessage[Any] = await self._netwk.recv_message(timeout)
        kind = message.message_cls
        if issubclass(kind, SecaggSetupQuery) or not kind.__module__.startswith("declearn.secagg."):
            raise SetUpInterruptedError(message)
        return message


def load_keys(folder: Path, name: str) -> IdentityKeys:
    """Read the key of `name`, and the public keys of all its peers.

    Args:
        folder: the clients' identities, where `fed init` and `fed certs` write them.
        name: whose private key to read.

    Raises:
        IdentityError: a key is missing or can't be read.
    """
    private = folder / secagg_key(name)
    trusted = sorted(str(path) for path in folder.glob(secagg_public_key("*")))
    try:
        return IdentityKeys(prv_key=str(private), trusted=trusted)
    except (OSError, TypeError, ValueError) as exc:
        raise IdentityError(
            f"keys for secure aggregation in {folder} can't be used ({exc})",
            f"{private.name} and the public keys of its peers",
            "run `fed init` or `fed certs` again",
        ) from exc


async def set_up(
    netwk: ClientEndpoint, kind: str, keys: IdentityKeys, query: SerializedMessage[SecaggSetupQuery]
) -> Encrypter:
    """Take part in one set-up; every participant of the round does.

    Args:
        netwk: where the server is, which passes on what peers send each other.
        kind: name of the method, `masking` or `joye-libert`.
        keys: this client's key, and its peers'.
        query: the server's request.

    Returns:
        What encrypts this client's replies so that only their sum over all participants can be read.

    Raises:
        SetUpInterruptedError: the server broke it off.
        KeyError, RuntimeError, ValueError: a peer is not trusted, or did not keep to the protocol; or there is none.
    """
    config = parse_secagg_config_client(secagg_type=kind, id_keys=keys)
    encrypter: Encrypter = await config.setup_encrypter(cast("NetworkClient", _Channel(netwk)), query)
    if isinstance(encrypter, MaskingEncrypter) and not (encrypter._pos_rng or encrypter._neg_rng):  # noqa: SLF001 - no getter
        raise RuntimeError(ALONE)
    return encrypter
