"""What `fed kit` does: at the operator's init, site, renew, revoke and list; at a site verify, check and secagg."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from services import certificates, experiment
from services.errors import ConflictError, DataError, IdentityError, StorageError, UsageError
from services.init import dataset, secagg_keys
from services.init.locking import exclusive
from services.kit import contents, passphrase
from services.kit.federation import SERVER, Federation, Ledger
from services.kit.manifest import Facts, fingerprint, read_kit, verify
from services.paths import SECAGG, secagg_public_key, write_atomic
from services.privileges import become_owner
from services.readers.folder import load_site
from services.readers.site import Terms, check, describe

PORT = 8765
"""Of the server, where none is given."""

ARCHIVE = ".tar.gz"

SOON = timedelta(days=30)
"""Before its end, a certificate is due to be renewed."""

logger = logging.getLogger("fed.kit")


@dataclass(frozen=True)
class Asked:
    """What `fed kit init` is asked for.

    Attributes:
        server: address of the server as sites dial it: host, with `:port` and `/path` as need be.
        hosts: further names and addresses in its certificate.
        server_name: name in it that sites ask for, where they dial another's address, or None.
        server_headers: of their websocket's handshake.
        shape: of one example, or None for that of the experiment's data set.
        classes: names of the classes, likewise.
        days: lifetime of the certificates.
    """

    server: str
    hosts: Sequence[str]
    server_name: str | None
    server_headers: Mapping[str, str]
    shape: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    days: int


def init(folder: Path, asked: Asked, plan: Path, phrase: Path | None) -> list[str]:
    """Make a federation's folder: a CA and the server's kit; gives what to tell the operator.

    Raises:
        UsageError, ConflictError, StorageError: see `services.errors`.
    """
    uri, host = _address(asked.server)
    names = list(dict.fromkeys([asked.server_name or host, *asked.hosts]))
    for name in names:
        certificates.check_host(name)
    terms = _terms(asked, experiment.load(plan, ()))
    now = _now()
    ledger = Ledger(uri, tuple(names), asked.server_name, dict(asked.server_headers), terms, asked.days)
    secret = passphrase.read(phrase, new=True)
    with exclusive(folder):
        made = Federation.create(folder, ledger, secret, now)
        authority = made.unlock(secret)
        issued = made.issue(SERVER, authority, now, names)
        files = contents.server(made, issued, authority, now, plan.read_bytes())
        place = made.publish(SERVER, files, contents.SERVER_OWN, empty=("data", "results"))
    return [
        f"{place}: the server's kit, for {uri}",
        f"{folder / 'ca'}: the CA; its key stays on this machine, and is worth a backup",
        f"fingerprint of the CA, to be told to each site by another way than its kit: {fingerprint(made.ca)}",
    ]


def site(folder: Path, name: str, phrase: Path | None) -> list[str]:
    """Add a site: its kit, as a folder and as an archive.

    Raises:
        UsageError, ConflictError, IdentityError, StorageError: see `services.errors`.
    """
    certificates.check_name(name)
    if name.endswith(ARCHIVE):
        raise UsageError(
            f"the site's name is {name!r}",
            f"one that does not end like a kit's archive, in {ARCHIVE}",
            "choose another",
        )
    with exclusive(_there(folder)):
        federation, now = Federation.open(folder), _now()
        if federation.ledger.valid(name, now):
            raise ConflictError(
                f"{name} has a certificate that is valid",
                "a new name",
                f"renew it with `fed kit renew {name}`, or end it with `fed kit revoke {name}`",
            )
        authority = federation.unlock(passphrase.read(phrase))
        return [_hand_out(federation, name, authority, now)]


def renew(folder: Path, names: Sequence[str], phrase: Path | None, *, revoking: bool) -> list[str]:
    """Issue new certificates, each with a new key; the old ones count until they expire, or no more.

    Args:
        folder: the federation's.
        names: sites, or `server`.
        phrase: file of the passphrase, or None.
        revoking: the old ones count no more.

    Raises:
        UsageError, IdentityError, StorageError: see `services.errors`.
    """
    with exclusive(_there(folder)):
        federation, now = Federation.open(folder), _now()
        _check_known(federation, names)
        if revoking:
            _check_revocable(names)
        plan = _read_plan(folder / SERVER / contents.EXPERIMENT) if SERVER in names else b""
        authority = federation.unlock(passphrase.read(phrase))
        said = []
        for name in names:
            if name == SERVER:
                issued = federation.issue(SERVER, authority, now, federation.ledger.hosts)
                files = contents.server(federation, issued, authority, now, plan)
                place = federation.publish(SERVER, files, contents.SERVER_OWN)
                said.append(f"{place}: renewed until {issued.certificate.not_valid_after_utc:%Y-%m-%d}")
            else:
                said.append(_hand_out(federation, name, authority, now))
            if revoking:
                newest = federation.ledger.of(name)[-1].serial
                said += _deny(federation, name, now, but=newest)
    return said


def revoke(folder: Path, names: Sequence[str]) -> list[str]:
    """Let the certificates of sites count no more: their numbers come onto the server's denylist.

    Raises:
        UsageError, IdentityError, StorageError: see `services.errors`.
    """
    with exclusive(_there(folder)):
        federation, now = Federation.open(folder), _now()
        _check_known(federation, names)
        _check_revocable(names)
        return [line for name in names for line in _deny(federation, name, now) or [f"{name}: nothing left to revoke"]]


def listed(folder: Path, now: datetime | None = None) -> list[str]:
    """Say of each name what its newest certificate is, a line each."""
    federation, now = Federation.open(folder), now or _now()
    ledger = federation.ledger
    lines = [f"{ledger.server_uri}  CA {fingerprint(federation.ca)}"]
    width = max((len(name) for name in ledger.names()), default=0)
    for name in ledger.names():
        last = ledger.of(name)[-1]
        valid = ledger.valid(name, now)
        state = "revoked" if last.revoked else "expired" if last.expires <= now else "valid"
        if state == "valid" and last.expires - now <= SOON:
            state = "renew"
        others = f", {len(valid) - 1} older valid too" if len(valid) > 1 else ""
        lines.append(
            f"{name:<{width}}  {state:<7}  issued {last.issued:%Y-%m-%d}  expires {last.expires:%Y-%m-%d}"
            f"  serial {last.serial}{others}"
        )
    return lines


def verified(path: Path, expected: str | None) -> list[str]:
    """Check a kit, and say what it is."""
    facts, told = verify(path, expected)
    lines = [
        f"{path}: {facts.name}, for {facts.server_uri}, as it was issued on {facts.issued:%Y-%m-%d}",
        f"valid until {facts.expires:%Y-%m-%d %H:%M} UTC, signed by the CA {told}",
    ]
    if expected is None:
        lines.append("ask the operator, by another way than this kit came, whether that is the CA's fingerprint")
    return lines


def checked(kit: Path, data: Path | None) -> list[str]:
    """Look at a site's own data as its client would before it joins.

    Raises:
        DataError: they can't be trained on, or are not what the federation trains on.
        IdentityError: the kit is not as it was issued.
    """
    facts = read_for(kit, "client")
    folder = data or kit / contents.SITE_OWN[0]
    shard = load_site(folder)
    if facts.terms is not None:
        check(shard, facts.terms)
    return [f"{folder}: fit for {facts.server_uri}", *describe(shard, facts.terms)]


def secagg(kit: Path) -> list[str]:
    """Make a site's keys for secure aggregation, where nobody else sees them, and say whose are there.

    Raises:
        IdentityError: the kit is not as it was issued.
        DataError: a public key that a peer has sent is none.
        StorageError: the folder can't be written.
    """
    facts = read_for(kit, "client")
    folder = kit / SECAGG
    made = secagg_keys.ensure(folder, [facts.name])
    peers = sorted(folder.glob(secagg_public_key("*")))
    lines = [f"{folder / secagg_public_key(facts.name)}: {'made' if made else 'kept'}; give it to every other site"]
    for path in peers:
        try:
            key = load_pem_public_key(path.read_bytes())
            if not isinstance(key, Ed25519PublicKey):
                raise TypeError(path)
        except (OSError, *certificates.MALFORMED) as exc:
            raise DataError(
                f"{path} is no public key", "what `fed kit secagg` made at another site", "ask that site for it again"
            ) from exc
        lines.append(f"{path.name}: {key.public_bytes_raw().hex(':').upper()}")
    return lines


def read_for(kit: Path, role: str) -> Facts:
    """Read a kit for use by a role, as the user whom it belongs to.

    Raises:
        IdentityError: it is not as it was issued, or that of another role.
    """
    become_owner(kit)
    facts = read_kit(kit)
    if facts.role != role:
        raise IdentityError(f"{kit} is the kit of {facts.name}, a {facts.role}", f"one of a {role}", "name another kit")
    return facts


def _hand_out(federation: Federation, name: str, authority: certificates.Authority, now: datetime) -> str:
    issued = federation.issue(name, authority, now)
    files = contents.site(federation, name, issued, authority, now)
    place = federation.publish(name, files, contents.SITE_OWN, empty=("data",))
    until = f"{issued.certificate.not_valid_after_utc:%Y-%m-%d}"
    return f"{place}, and {place.name}.tar.gz beside it: the kit of {name}, valid until {until}"


def _deny(federation: Federation, name: str, now: datetime, *, but: str | None = None) -> list[str]:
    """Put the certificates of `name` onto the denylist; the list goes first, and may tell more than the ledger."""
    path = federation.folder / SERVER / contents.DENYLIST
    ended = [one for one in federation.ledger.valid(name, now) if one.serial != but]
    if not ended:
        return []
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as exc:
        raise StorageError(f"{path} can't be read", "a denylist, in UTF-8", "mend it, then try again") from exc
    if text and not text.endswith("\n"):
        text += "\n"
    text += "".join(f"serial:{one.serial}  # {name}, revoked {now:%Y-%m-%d}\n" for one in ended)
    write_atomic(path, text)
    federation.revoke(ended, now)
    count = f"{len(ended)} certificate{'s' if len(ended) > 1 else ''}"
    return [f"{name}: {count} revoked; a server on another machine needs the new {path}"]


def _there(folder: Path) -> Path:
    """Refuse a folder that holds no federation, before anything is made in it."""
    Federation.open(folder)
    return folder


def _check_known(federation: Federation, names: Sequence[str]) -> None:
    known = federation.ledger.names()
    for name in names:
        if name not in known:
            sites = ", ".join(known[1:]) or "none yet"
            raise UsageError(
                f"{name!r} is no site of this federation", f"one of its sites: {sites}", "correct the name"
            )


def _check_revocable(names: Sequence[str]) -> None:
    if SERVER in names:
        raise UsageError(
            "the server's certificate can't be revoked: sites have no denylist",
            "names of sites",
            "after a leak, make a new federation, and give each site a new kit",
        )


def _read_plan(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StorageError(
            f"{path} can't be read ({exc.strerror or exc})", "the experiment in the server's kit", "put it back"
        ) from exc


def _address(text: str) -> tuple[str, str]:
    """Read the server's address; gives it as sites dial it, and the host in it."""
    try:
        found = urlsplit(text if "://" in text else f"wss://{text}")
        host, port = found.hostname or "", PORT if found.port is None else found.port
    except ValueError:
        host, port, found = "", PORT, urlsplit("")
    plain = all("!" <= sign <= "~" and sign not in "?#@" for sign in text)
    if found.scheme != "wss" or not host or not port or not plain:
        raise UsageError(
            f"the server's address is {text!r}", "HOST, HOST:PORT or wss://HOST:PORT/PATH", "correct --server"
        )
    certificates.check_host(host)
    bracketed = f"[{host}]" if ":" in host else host
    return f"wss://{bracketed}:{port}{found.path.rstrip('/')}", host


def _terms(asked: Asked, plan: experiment.Plan) -> Terms | None:
    source = dataset.SOURCES.get(plan.data.dataset)
    shape = asked.shape or (None if source is None else source.image_shape)
    classes = asked.classes or (None if source is None else source.classes)
    if (shape is None) != (classes is None):
        raise UsageError("of --shape and --classes one is given", "both, or neither", "add the other one")
    return None if shape is None or classes is None else Terms(shape, classes)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
