"""What is in a kit: the Compose file of one role, its settings, its identity, and a page of a few lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from string import Template

from cryptography.hazmat.primitives.serialization import Encoding

from services import certificates
from services.kit.federation import SERVER, Federation
from services.kit.manifest import CERTS, Facts, sealed
from services.paths import CA_CERTIFICATE

EXPERIMENT = "experiment.yml"
DENYLIST = "denylist/denied.txt"

_PLAIN = re.compile(r"[\w./:;,=@+~\[\] -]*", re.ASCII)
"""What Compose reads from `.env` as it stands: no quotes, no `$`, no `#`. Anything else is in the manifest alone."""

SITE_OWN = ("data", "secagg")
"""What a site fills: its data, and its keys for secure aggregation."""

SERVER_OWN = (".env", "data", "denylist", EXPERIMENT, "models", "results")
"""What an operator changes, and what a server writes."""


def site(
    federation: Federation, name: str, issued: certificates.Issued, authority: certificates.Authority, now: datetime
) -> dict[str, bytes]:
    """Put together the kit of a site: its files by their path, signed."""
    facts = _facts(federation, name, "client", issued, now, SITE_OWN)
    ledger = federation.ledger
    headers = "; ".join(f"{key}: {value}" for key, value in ledger.server_headers.items())
    values = {"SERVER_URI": ledger.server_uri, "SERVER_NAME": ledger.server_name or "", "SERVER_HEADERS": headers}
    values = {key: value if _PLAIN.fullmatch(value) else "" for key, value in values.items()}
    shape = "" if facts.terms is None else f" of shape {facts.terms.shape}, in {len(facts.terms.classes)} classes"
    page = _filled("site.md", NAME=name, SHAPE=shape, SERVER=ledger.server_uri, EXPIRES=f"{facts.expires:%Y-%m-%d}")
    return _whole(federation, facts, issued, authority, {
        "docker-compose.yml": _template("site.yml"),
        ".env": _filled("site.env", **values),
        "README.md": page,
    })  # fmt: skip


def server(
    federation: Federation,
    issued: certificates.Issued,
    authority: certificates.Authority,
    now: datetime,
    experiment: bytes,
) -> dict[str, bytes]:
    """Put together the server's kit: its files by their path; of them those that are nobody else's are signed."""
    facts = _facts(federation, SERVER, SERVER, issued, now, SERVER_OWN)
    port = federation.ledger.server_uri.rsplit(":", 1)[1].split("/", 1)[0]
    return _whole(federation, facts, issued, authority, {
        "docker-compose.yml": _template("server.yml"),
        ".env": _filled("server.env", PORT=port),
        "README.md": _filled("server.md", SERVER=federation.ledger.server_uri),
        EXPERIMENT: experiment,
        DENYLIST: b"# Certificates and names that may not take part, a line each; `fed kit revoke` adds to it.\n",
    })  # fmt: skip


def _facts(
    federation: Federation, name: str, role: str, issued: certificates.Issued, now: datetime, yours: tuple[str, ...]
) -> Facts:
    ledger = federation.ledger
    return Facts(
        role=role,
        name=name,
        server_uri=ledger.server_uri,
        server_name=ledger.server_name,
        server_headers=ledger.server_headers,
        terms=ledger.terms,
        issued=now,
        expires=issued.certificate.not_valid_after_utc,
        serial=f"{issued.certificate.serial_number:X}",
        yours=yours,
    )


def _whole(
    federation: Federation,
    facts: Facts,
    issued: certificates.Issued,
    authority: certificates.Authority,
    files: Mapping[str, bytes],
) -> dict[str, bytes]:
    identity = {
        f"{CERTS}/{CA_CERTIFICATE}": federation.ca.public_bytes(Encoding.PEM),
        facts.certificate: issued.pem,
        facts.key: issued.key_pem,
    }
    return sealed(facts, {**files, **identity}, authority)


def _template(name: str) -> bytes:
    return resources.files("services.kit").joinpath("files", name).read_bytes()


def _filled(name: str, **values: str) -> bytes:
    return Template(_template(name).decode()).substitute(values).encode()
