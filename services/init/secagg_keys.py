"""Keys for secure aggregation: an Ed25519 key a client, and everybody's public key for everybody.

Clients use them to agree on pairwise secrets over the server (X3DH), which the server must not be able to take part in;
so they are apart from the TLS certificates, whose CA it trusts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from services.paths import secagg_key, secagg_public_key, write_atomic


def ensure(folder: Path, names: Sequence[str]) -> list[str]:
    """Make sure that each of `names` has a pair of keys in `folder`; a pair that is whole is kept.

    Args:
        folder: the clients' identities.
        names: the clients.

    Returns:
        The names whose keys were made.

    Raises:
        StorageError: a key can't be written.
    """
    made = []
    for name in names:
        private, public = folder / secagg_key(name), folder / secagg_public_key(name)
        if _are_pair(private, public):
            continue
        key = Ed25519PrivateKey.generate()
        # the private key first: a public key without it is a pair that is made anew
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomic(private, secret, mode=0o600)
        write_atomic(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        made.append(name)
    return made


def _are_pair(private: Path, public: Path) -> bool:
    try:
        key = load_pem_private_key(private.read_bytes(), None)
        shown = load_pem_public_key(public.read_bytes())
    except (OSError, TypeError, ValueError):
        return False
    if not isinstance(key, Ed25519PrivateKey) or not isinstance(shown, Ed25519PublicKey):
        return False
    return key.public_key().public_bytes_raw() == shown.public_bytes_raw()
