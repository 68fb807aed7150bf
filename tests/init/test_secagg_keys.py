"""Keys for secure aggregation: made once, mended when broken, readable by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.client.secagg import load_keys
from services.errors import IdentityError
from services.init import secagg_keys
from services.paths import secagg_key, secagg_public_key

NAMES = ("client_0", "client_1")


def test_each_client_s_key_is_trusted_by_all(tmp_path: Path) -> None:
    """Each client reads its own private key, and finds its public one among those that everybody trusts."""
    assert secagg_keys.ensure(tmp_path, NAMES) == list(NAMES)
    keys = [load_keys(tmp_path, name) for name in NAMES]
    for one in keys:
        for other in keys:
            assert one.pub_key_bytes in [key.public_bytes_raw() for key in other.trusted]
    assert keys[0].pub_key_bytes != keys[1].pub_key_bytes
    assert (tmp_path / secagg_key("client_0")).stat().st_mode & 0o777 == 0o600


def test_whole_pairs_are_kept_and_broken_ones_made_anew(tmp_path: Path) -> None:
    """A second run keeps what is whole to the byte, and replaces a pair that is cut short or does not match."""
    secagg_keys.ensure(tmp_path, NAMES)
    before = (tmp_path / secagg_key("client_0")).read_bytes()
    assert secagg_keys.ensure(tmp_path, NAMES) == []
    (tmp_path / secagg_public_key("client_1")).write_bytes((tmp_path / secagg_public_key("client_0")).read_bytes())
    assert secagg_keys.ensure(tmp_path, NAMES) == ["client_1"]
    (tmp_path / secagg_key("client_1")).write_bytes(b"-----BEGIN")
    assert secagg_keys.ensure(tmp_path, NAMES) == ["client_1"]
    assert (tmp_path / secagg_key("client_0")).read_bytes() == before


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """Who has no key is told which, and how to get one."""
    secagg_keys.ensure(tmp_path, NAMES)
    with pytest.raises(IdentityError) as caught:
        load_keys(tmp_path, "client_7")
    assert caught.value.found.startswith(f"keys for secure aggregation in {tmp_path} can't be used (")
    assert caught.value.wanted == "client_7-secagg.pem and the public keys of its peers"
