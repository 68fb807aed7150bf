"""Identities: real handshakes that must succeed and that must fail; what is kept, renewed and left alone."""

from __future__ import annotations

import fcntl
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services import certificates
from services.errors import StorageError, UsageError
from services.init import identities
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, client_certificate, client_key, write_atomic
from tests.support import contents, deadline, stats

NAMES = identities.client_names(3)
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Folders:
    """The two folders of one federation."""

    root: Path

    @property
    def server(self) -> Path:
        return self.root / "certs"

    @property
    def client(self) -> Path:
        return self.root / "certs" / "clients"

    def ensure(
        self,
        names: Sequence[str] = NAMES,
        hosts: Sequence[str] = identities.HOSTS,
        *,
        now: datetime | None = None,
        days: float = identities.DAYS,
    ) -> identities.Report:
        return identities.ensure(self.server, self.client, names, hosts, now=now, days=days)

    def certificate(self, name: str) -> Path:
        return self.server / SERVER_CERTIFICATE if name == "server" else self.client / client_certificate(name)

    def key(self, name: str) -> Path:
        return self.server / SERVER_KEY if name == "server" else self.client / client_key(name)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Two folders that nobody has written into."""
    return Folders(tmp_path)


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _name(certificate: x509.Certificate) -> str:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def _bundle(folder: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates((folder / CA_CERTIFICATE).read_bytes())


def _context(protocol: int, folders: Folders, name: str, ca: Path) -> ssl.SSLContext:
    """Build a context that proves itself by the identity `name` and trusts `ca`, as strictly as OpenSSL can."""
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(ca)
    made.load_cert_chain(folders.certificate(name), folders.key(name))
    return made


def _shake(
    folders: Folders,
    name: str = "client_0",
    *,
    host: str = "localhost",
    as_server: str = "server",
    server_ca: Path | None = None,
    client_ca: Path | None = None,
    client: Folders | None = None,
) -> str:
    """Shake hands on loopback; give the name the server read in the client's certificate.

    Raises:
        ssl.SSLCertVerificationError: by whichever side refused the other.
    """
    serving = _context(ssl.PROTOCOL_TLS_SERVER, folders, as_server, server_ca or folders.server / CA_CERTIFICATE)
    dialling = _context(
        ssl.PROTOCOL_TLS_CLIENT, client or folders, name, client_ca or (client or folders).client / CA_CERTIFICATE
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(deadline(10))

        def serve() -> str:
            accepted, _ = listener.accept()
            accepted.settimeout(deadline(10))
            with serving.wrap_socket(accepted, server_side=True) as tls:
                tls.sendall(b"welcome")
                peer = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
                return _name(peer)

        served = pool.submit(serve)
        refused: Exception | None = None
        try:
            with (
                socket.create_connection(listener.getsockname(), deadline(10)) as raw,
                dialling.wrap_socket(raw, server_hostname=host) as tls,
            ):
                # In TLS 1.3 a client learns only here that the server refused it.
                assert tls.recv(16) == b"welcome"
        except ssl.SSLCertVerificationError:
            raise
        except (OSError, AssertionError) as exc:
            refused = exc
        seen = served.result(deadline(10))
        if refused:
            raise refused
        return seen


def test_first_run_issues_everything(folders: Folders) -> None:
    """A first run issues the server's and every client's identity, and leaves exactly the files that are documented."""
    report = folders.ensure()
    assert report.kept == ()
    assert report.held == {}
    assert report.made == dict.fromkeys(["server", *NAMES], "missing certificate")
    assert timedelta(days=29, hours=23) < report.expires - NOW < timedelta(days=30, hours=1)
    names = {CA_CERTIFICATE, ".lock"} | {f"{name}-{part}.pem" for name in NAMES for part in ("cert", "pkey")}
    assert {path.name for path in folders.client.iterdir()} == names
    assert {path.name for path in folders.server.iterdir()} == {
        CA_CERTIFICATE,
        SERVER_CERTIFICATE,
        SERVER_KEY,
        ".lock",
        "clients",
    }


def test_key_of_the_ca_is_nowhere(folders: Folders) -> None:
    """No file holds the CA's key: every key belongs to the certificate beside it."""
    folders.ensure()
    authorities = [ca.public_key() for ca in _bundle(folders.server)]
    keys = [path for path in folders.root.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
    assert sorted(keys) == sorted(folders.key(name) for name in ("server", *NAMES))
    for path in keys:
        key = load_pem_private_key(path.read_bytes(), None)
        assert key.public_key() not in authorities
        certificate = _read(path.with_name(path.name.replace("-pkey", "-cert")))
        assert key.public_key() == certificate.public_key()


def test_only_the_owner_reads_a_key(folders: Folders) -> None:
    """Keys have mode 0600, certificates 0644, and a key whose mode was lost gets it back."""
    folders.ensure()
    for name in ("server", *NAMES):
        assert folders.key(name).stat().st_mode & 0o777 == 0o600
        assert folders.certificate(name).stat().st_mode & 0o777 == 0o644
    folders.key("client_1").chmod(0o644)
    assert folders.ensure().kept == ("server", *NAMES)
    assert folders.key("client_1").stat().st_mode & 0o777 == 0o600


def test_ca_is_a_ca_and_nothing_else(folders: Folders) -> None:
    """The CA may sign leaves and do nothing else; each of its extensions is as RFC 5280 asks."""
    folders.ensure()
    (ca,) = _bundle(folders.server)
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.digital_signature, usage.value.crl_sign) == (True, False, False)
    ca.verify_directly_issued_by(ca)


@pytest.mark.parametrize("name", ["server", "client_2"])
def test_leaf_is_a_leaf(folders: Folders, name: str) -> None:
    """Neither the server nor a client can sign, each has its role alone, and none outlives its CA."""
    folders.ensure()
    (ca,) = _bundle(folders.server)
    leaf = _read(folders.certificate(name))
    extensions = leaf.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=False, path_length=None))
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (False, True)
    role = ExtendedKeyUsageOID.SERVER_AUTH if name == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [role]
    assert _name(leaf) == name
    identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert identifier == ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.not_valid_after_utc <= ca.not_valid_after_utc
    assert leaf.not_valid_before_utc >= ca.not_valid_before_utc
    if name == "server":
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
        assert found == ["server", "localhost", "127.0.0.1", "::1"]


@pytest.mark.parametrize("host", ["server", "localhost", "127.0.0.1", "::1"])
def test_handshake_under_each_name_dialled(folders: Folders, host: str) -> None:
    """Both sides accept each other, whichever of the server's names is dialled."""
    folders.ensure()
    assert _shake(folders, "client_1", host=host) == "client_1"


def test_handshake_under_a_host_asked_for(folders: Folders) -> None:
    """Hosts asked for are covered, by name and by address, and only those."""
    folders.ensure(hosts=["fl.example.org", "192.0.2.7"])
    for host in ("fl.example.org", "192.0.2.7"):
        assert _shake(folders, host=host) == "client_0"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _shake(folders, host="localhost")


def test_wrong_host_is_refused(folders: Folders) -> None:
    """A client that dialled another name refuses the server."""
    folders.ensure()
    with pytest.raises(
        ssl.SSLCertVerificationError, match="Hostname mismatch, certificate is not valid for 'elsewhere'"
    ):
        _shake(folders, host="elsewhere")


def test_foreign_server_is_refused(folders: Folders, tmp_path: Path) -> None:
    """A client refuses a server whose certificate another CA signed."""
    folders.ensure()
    foreign = Folders(tmp_path / "foreign")
    foreign.ensure()
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed certificate in certificate chain"):
        _shake(foreign, client_ca=folders.client / CA_CERTIFICATE)


def test_foreign_client_is_refused(folders: Folders, tmp_path: Path) -> None:
    """A server refuses a client whose certificate another CA signed, although the client trusts the server."""
    folders.ensure()
    foreign = Folders(tmp_path / "foreign")
    foreign.ensure()
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
        _shake(folders, client=foreign, client_ca=folders.client / CA_CERTIFICATE)


def test_expired_server_is_refused(folders: Folders) -> None:
    """A client refuses a server whose certificate has expired."""
    folders.ensure(now=NOW - timedelta(days=2), days=1)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        _shake(folders)


def test_expired_client_is_refused(folders: Folders, tmp_path: Path) -> None:
    """A server refuses a client whose certificate has expired."""
    folders.ensure()
    late = Folders(tmp_path / "late")
    late.ensure(now=NOW - timedelta(days=2), days=1)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        _shake(folders, client=late, client_ca=folders.client / CA_CERTIFICATE, server_ca=late.server / CA_CERTIFICATE)


def test_client_cannot_pose_as_the_server(folders: Folders) -> None:
    """A client's certificate is refused as a server's, host name aside."""
    folders.ensure()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _shake(folders, as_server="client_1")


def test_server_cannot_pose_as_a_client(folders: Folders) -> None:
    """The server's certificate is refused as a client's."""
    folders.ensure()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _shake(folders, "server")


def test_client_cannot_sign(folders: Folders, tmp_path: Path) -> None:
    """A certificate that a client signed with its own key is refused, although the client is trusted."""
    folders.ensure()
    forged = Folders(tmp_path / "forged")
    forged.ensure()
    signer = _read(folders.certificate("client_0"))
    key = load_pem_private_key(folders.key("client_0").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    identity = identities._Identity("client_9", forged.certificate("client_9"), forged.key("client_9"))
    assert identities._issue(identity, certificates.Authority(signer, key), NOW, 1)
    with forged.certificate("client_9").open("ab") as file:
        file.write(folders.certificate("client_0").read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError, match=r"invalid CA certificate|path length constraint exceeded"):
        _shake(folders, "client_9", client=forged, client_ca=folders.client / CA_CERTIFICATE)


def test_second_run_touches_nothing(folders: Folders) -> None:
    """When all is valid every file keeps its bytes, its inode and its time."""
    folders.ensure()
    before = contents(folders.root), stats(folders.root)
    report = folders.ensure()
    assert (contents(folders.root), stats(folders.root)) == before
    assert (report.kept, report.made, report.held) == (("server", *NAMES), {}, {})


def test_growing_adds_identities_and_keeps_the_rest(folders: Folders) -> None:
    """More clients get identities of a second CA; what was there stays and goes on being trusted, both ways."""
    folders.ensure()
    before = contents(folders.root)
    report = folders.ensure(identities.client_names(5))
    assert report.made == dict.fromkeys(["client_3", "client_4"], "missing certificate")
    after = contents(folders.root)
    assert {name for name in before if before[name] != after[name]} == {
        "certs/ca-cert.pem",
        "certs/clients/ca-cert.pem",
    }
    assert len(_bundle(folders.server)) == len(_bundle(folders.client)) == 2
    for name in identities.client_names(5):
        assert _shake(folders, name) == name


def test_client_with_an_older_bundle_knows_the_kept_server(folders: Folders, tmp_path: Path) -> None:
    """A bundle carried off before a renewal still knows the server that was kept."""
    folders.ensure()
    old = tmp_path / "old.pem"
    shutil.copy(folders.client / CA_CERTIFICATE, old)
    folders.ensure(identities.client_names(4))
    assert _shake(folders, "client_3", client_ca=old) == "client_3"


def _corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _swap_key(folders: Folders) -> None:
    shutil.copy(folders.key("client_2"), folders.key("client_1"))


def _take_name(folders: Folders) -> None:
    shutil.copy(folders.key("client_2"), folders.key("client_1"))
    shutil.copy(folders.certificate("client_2"), folders.certificate("client_1"))


def _take_role(folders: Folders) -> None:
    shutil.copy(folders.key("server"), folders.key("client_1"))
    shutil.copy(folders.certificate("server"), folders.certificate("client_1"))


def _take_foreign(folders: Folders) -> None:
    foreign = Folders(folders.root / "foreign")
    foreign.ensure()
    shutil.copy(foreign.key("client_1"), folders.key("client_1"))
    shutil.copy(foreign.certificate("client_1"), folders.certificate("client_1"))
    shutil.rmtree(foreign.root)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.certificate("client_1").unlink(), "missing certificate"),
        (lambda f: f.key("client_1").unlink(), "missing key"),
        (lambda f: _corrupt(f.certificate("client_1")), "unreadable certificate"),
        (lambda f: _corrupt(f.key("client_1")), "unreadable key"),
        (lambda f: f.certificate("client_1").write_bytes(b""), "unreadable certificate"),
        (_swap_key, "key of another certificate"),
        (_take_name, "made for ['client_2']"),
        (_take_role, "made for another role"),
        (_take_foreign, "signed by an unknown CA"),
    ],
)
def test_spoilt_identity_is_renewed(folders: Folders, spoil: Callable[[Folders], None], reason: str) -> None:
    """Whatever is missing, half-written or wrong in one identity is renewed, with the reason; the others are kept."""
    folders.ensure()
    spoil(folders)
    before = contents(folders.root)
    report = folders.ensure()
    assert report.made == {"client_1": reason}
    assert report.kept == ("server", "client_0", "client_2")
    after = contents(folders.root)
    kept = {path for path in before if "client_1" not in path and CA_CERTIFICATE not in path}
    assert all(before[path] == after[path] for path in kept)
    assert _shake(folders, "client_1") == "client_1"
    assert _shake(folders, "client_2") == "client_2"
    assert folders.ensure().made == {}


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (timedelta(days=22), None),
        (timedelta(days=24), r"expires on \d{4}-\d\d-\d\d"),
        (timedelta(days=31), r"expired on \d{4}-\d\d-\d\d"),
        (timedelta(days=-2), r"not valid before \d{4}-\d\d-\d\d"),
    ],
)
def test_lifetimes_are_checked(folders: Folders, age: timedelta, reason: str | None) -> None:
    """What has more than a week left is kept; what has less, has expired or is not valid yet is renewed."""
    folders.ensure(now=NOW - age)
    report = folders.ensure(now=NOW)
    if reason is None:
        assert report.made == {}
        return
    assert set(report.made) == {"server", *NAMES}
    assert all(re.fullmatch(reason, why) for why in report.made.values())
    assert _shake(folders) == "client_0"


def test_identity_of_days_is_not_renewed_at_once(folders: Folders) -> None:
    """An identity issued for less than a week is kept until a quarter of its life is left."""
    folders.ensure(days=2, now=NOW)
    assert folders.ensure(days=2, now=NOW + timedelta(days=1)).made == {}
    assert set(folders.ensure(days=2, now=NOW + timedelta(days=1.6)).made) == {"server", *NAMES}


def test_expired_ca_is_dropped(folders: Folders) -> None:
    """A CA that has expired leaves the _bundle, one that has not stays although nothing of it is kept here."""
    folders.ensure(now=NOW - timedelta(days=40))
    folders.ensure(now=NOW - timedelta(days=14))
    assert len(_bundle(folders.server)) == len(_bundle(folders.client)) == 2
    assert folders.ensure(now=NOW).made == {}
    assert len(_bundle(folders.server)) == len(_bundle(folders.client)) == 1
    assert _shake(folders) == "client_0"


def test_server_of_too_few_hosts_is_renewed(folders: Folders) -> None:
    """A server certificate that lacks a host asked for is renewed; one that covers more than asked is kept."""
    folders.ensure(hosts=["server"])
    report = folders.ensure(hosts=["server", "FL.example.org", "192.0.2.7"])
    assert report.made == {"server": "made before FL.example.org, 192.0.2.7 was asked for"}
    assert folders.ensure(hosts=["fl.example.org"]).made == {}
    assert _shake(folders, host="192.0.2.7") == "client_0"


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_lost_bundle_renews_everything(folders: Folders, content: bytes | None) -> None:
    """Without its bundle the server knows nobody, so all identities are issued anew."""
    folders.ensure()
    path = folders.server / CA_CERTIFICATE
    path.unlink() if content is None else path.write_bytes(content)
    assert folders.ensure().made == dict.fromkeys(["server", *NAMES], "signed by an unknown CA")
    assert _shake(folders) == "client_0"


def test_clients_bundle_is_mended_from_the_servers(folders: Folders) -> None:
    """A damaged bundle of the clients is written again; a CA slipped into it never reaches the server's."""
    folders.ensure()
    whole = (folders.server / CA_CERTIFICATE).read_bytes()
    foreign = Folders(folders.root / "foreign")
    foreign.ensure()
    for content in (b"half", whole + (foreign.server / CA_CERTIFICATE).read_bytes()):
        (folders.client / CA_CERTIFICATE).write_bytes(content)
        assert folders.ensure().made == {}
        assert (folders.client / CA_CERTIFICATE).read_bytes() == (folders.server / CA_CERTIFICATE).read_bytes() == whole


def test_identity_in_use_is_left_alone(folders: Folders) -> None:
    """A running client's identity is never replaced, only reported; once the client is gone it is renewed."""
    folders.ensure(now=NOW - timedelta(days=25))
    with folders.certificate("client_1").open("rb") as claimed:
        fcntl.flock(claimed, fcntl.LOCK_EX)
        before = folders.certificate("client_1").read_bytes(), folders.key("client_1").read_bytes()
        report = folders.ensure(now=NOW)
        assert set(report.made) == {"server", "client_0", "client_2"}
        assert list(report.held) == ["client_1"]
        assert report.held["client_1"].startswith("expires on ")
        assert (folders.certificate("client_1").read_bytes(), folders.key("client_1").read_bytes()) == before
        # Renewed or not, all of them are trusted.
        for name in NAMES:
            assert _shake(folders, name) == name
    assert set(folders.ensure(now=NOW).made) == {"client_1"}


def test_all_in_use_makes_no_ca(folders: Folders) -> None:
    """When everything that needs renewal is in use, nothing is written and the bundle does not grow."""
    folders.ensure(["client_0"], now=NOW - timedelta(days=25), hosts=["server"])
    folders.ensure([], now=NOW, hosts=["server"])
    before = contents(folders.root)
    with folders.certificate("client_0").open("rb") as claimed:
        fcntl.flock(claimed, fcntl.LOCK_EX)
        report = folders.ensure(["client_0"], now=NOW, hosts=["server"])
    assert list(report.held) == ["client_0"]
    assert report.kept == ("server",)
    assert contents(folders.root) == before


def test_valid_identity_in_use_is_simply_kept(folders: Folders) -> None:
    """A claim on an identity that needs nothing is no news."""
    folders.ensure()
    with folders.certificate("client_1").open("rb") as claimed:
        fcntl.flock(claimed, fcntl.LOCK_EX)
        report = folders.ensure()
    assert (report.kept, report.held) == (("server", *NAMES), {})


def test_claim_that_comes_while_renewing_wins(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that claims an identity after it was found wanting, but before it is replaced, keeps it."""
    folders.ensure(now=NOW - timedelta(days=25))
    original = certificates.new_authority
    with folders.certificate("client_2").open("rb") as claimed:

        def claim_meanwhile(now: datetime, days: float) -> certificates.Authority:
            fcntl.flock(claimed, fcntl.LOCK_EX)
            return original(now, days)

        monkeypatch.setattr(certificates, "new_authority", claim_meanwhile)
        report = folders.ensure(now=NOW)
    assert set(report.made) == {"server", "client_0", "client_1"}
    assert list(report.held) == ["client_2"]
    assert _shake(folders, "client_2") == "client_2"


@pytest.mark.parametrize("written", range(8))
def test_crash_at_any_write_is_mended(folders: Folders, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """Whichever write a crash follows, the next run leaves every identity valid and the kept ones kept."""
    folders.ensure(now=NOW - timedelta(days=25))
    done = 0

    def crash(path: Path, content: bytes, *, mode: int = 0o644) -> None:
        nonlocal done
        if done == written:
            raise StorageError("the disk is full")
        done += 1
        write_atomic(path, content, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(identities, "write_atomic", crash)
        with pytest.raises(StorageError):
            folders.ensure(now=NOW)
    renewed = [
        name
        for name in ("server", *NAMES)
        if _read(folders.certificate(name)).not_valid_after_utc > NOW + timedelta(days=7)
    ]
    report = folders.ensure(now=NOW)
    assert set(report.made) | set(report.kept) == {"server", *NAMES}
    assert set(report.kept) <= set(renewed)
    for name in NAMES:
        assert _shake(folders, name) == name
    assert folders.ensure(now=NOW).made == {}


@pytest.mark.parametrize("host", ["", "a b", "https://server", "server:8765", "-server", "sérver"])
def test_host_that_is_none_is_refused(folders: Folders, host: str) -> None:
    """What is neither a DNS name nor an address is refused before anything is written."""
    with pytest.raises(UsageError) as caught:
        folders.ensure(hosts=["localhost", host])
    assert str(caught.value) == f"host is {host!r}; wanted a DNS name or an IP address, with no port; correct it"
    assert not folders.server.exists()


def test_no_host_is_refused(folders: Folders) -> None:
    """A server needs at least one name."""
    with pytest.raises(UsageError, match="no host is given; wanted the names under which the server is reached"):
        folders.ensure(hosts=[])


@pytest.mark.parametrize("name", ["", "server", "ca", "../client_0", "a/b", "x" * 64, ".hidden"])
def test_name_that_is_no_file_name_is_refused(folders: Folders, name: str) -> None:
    """A client's name can't lead out of its folder, nor replace the server's or the CA's files."""
    with pytest.raises(UsageError) as caught:
        folders.ensure(["client_0", name])
    assert str(caught.value) == (
        f"the client's name is {name!r}; wanted 1 to 63 letters, digits, '_', '.' or '-',"
        " and neither 'server' nor 'ca'; choose another name"
    )


def test_one_folder_may_serve_both(tmp_path: Path) -> None:
    """Server and clients may share one folder."""
    identities.ensure(tmp_path, tmp_path, NAMES)
    assert identities.ensure(tmp_path, tmp_path, NAMES).kept == ("server", *NAMES)
