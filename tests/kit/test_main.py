"""What `fed kit` does, at the operator's and at a site, up to handshakes with what it has issued."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
import stat
import tarfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from services import certificates
from services.client.secagg import load_keys
from services.errors import ConflictError, DataError, FedError, IdentityError, RefusedError, StorageError, UsageError
from services.kit import main
from services.kit.manifest import fingerprint, read_kit, verify
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, secagg_key, secagg_public_key
from services.server.trust import Trust
from services.transport import tls
from services.transport.client import DIRECT, ClientEndpoint, Route
from services.transport.server import ServerEndpoint
from tests.kit.conftest import Operator
from tests.support import contents
from tests.transport.conftest import PATIENCE


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a scene of a server and its clients, which ends in time."""
    asyncio.run(asyncio.wait_for(work, 6 * PATIENCE))


def trust(kit: Path) -> Trust:
    """Take up the server's kit as the server does."""
    certs = kit / "certs"
    return Trust(certs / SERVER_CERTIFICATE, certs / SERVER_KEY, certs / CA_CERTIFICATE, kit / "denylist")


def serving(trusted: Trust) -> ServerEndpoint:
    """Make the server's end, on a free port."""
    return ServerEndpoint("localhost", 0, trusted.context, liveness_timeout=20.0, denied=lambda: trusted.denied)


def dialling(kit: Path, server: ServerEndpoint, *, host: str = "localhost", route: Route = DIRECT) -> ClientEndpoint:
    """Make a client's end from a site's kit."""
    facts = read_kit(kit)
    context = functools.partial(
        tls.client_context, kit / "certs" / CA_CERTIFICATE, kit / facts.certificate, kit / facts.key
    )
    uri = f"wss://{host}:{server.port}"
    return ClientEndpoint(uri, facts.name, context, dealable=True, timeout=PATIENCE, route=route)


# -- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("fl.example.org", "wss://fl.example.org:8765"),
        ("fl.example.org:443", "wss://fl.example.org:443"),
        ("wss://fl.example.org:443/fed/ws", "wss://fl.example.org:443/fed/ws"),
        ("wss://fl.example.org/", "wss://fl.example.org:8765"),
        ("192.0.2.7:8765", "wss://192.0.2.7:8765"),
        ("[2001:db8::1]", "wss://[2001:db8::1]:8765"),
        ("[2001:db8::1]:443", "wss://[2001:db8::1]:443"),
        ("FL.example.org:1", "wss://fl.example.org:1"),
        ("fl:65535", "wss://fl:65535"),
    ],
)
def test_an_address_is_written_as_sites_dial_it(tmp_path: Path, given: str, uri: str) -> None:
    """Host, port and path may be given, of either kind of address; the certificate is for that host."""
    operator = Operator(tmp_path / "other")
    operator.init(given)
    assert operator.federation.ledger.server_uri == uri == read_kit(operator.server).server_uri
    leaf = certificates.read_certificate(operator.server / "certs" / SERVER_CERTIFICATE)
    assert leaf is not None
    (host,) = operator.federation.ledger.hosts
    assert certificates.general_name(host) in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


@pytest.mark.parametrize(
    "given",
    [
        "",
        ":8765",
        "ws://fl.example.org",
        "https://fl.example.org",
        "wss://",
        "fl.example.org:0",
        "fl.example.org:99999",
        "fl.example.org:x",
        "fl.example.org:-1",
        "wss://fl.example.org/?a=b",
        "wss://fl.example.org/#a",
        "wss://fl.example.org?",
        "user@fl.example.org",
        "@fl.example.org",
        "fl.exa mple.org",
        "fl.example.org\n",
        "[2001:db8::1",
        "2001:db8::1",
        "fl_.example..org",
        "flé.example.org",
        "wss://fl.example.org/a b",
    ],
)
def test_an_address_that_is_none_is_one_line(tmp_path: Path, given: str) -> None:
    """What can't be dialled is refused before anything is made."""
    operator = Operator(tmp_path / "other")
    with pytest.raises(UsageError) as caught:
        operator.init(given)
    assert str(caught.value).startswith(("the server's address is ", "host is "))
    assert "\n" not in str(caught.value)
    assert not operator.folder.exists()


def test_a_host_that_is_none_is_one_line(tmp_path: Path) -> None:
    """Further names, and the name that is asked for, are looked at too."""
    operator = Operator(tmp_path / "other")
    for wrong in ({"hosts": ("a b",)}, {"server_name": "https://x"}):
        with pytest.raises(UsageError, match=r"^host is "):
            operator.init("fl.example.org", **wrong)
    assert not operator.folder.exists()


def test_init_tells_the_fingerprint(tmp_path: Path) -> None:
    """The operator is told where the kit and the CA are, and what to tell sites by another way."""
    operator = Operator(tmp_path / "other")
    said = operator.init("fl.example.org", server_name="inner")
    assert said[0] == f"{operator.server}: the server's kit, for wss://fl.example.org:8765"
    assert said[2].endswith(fingerprint(operator.federation.ca))
    assert operator.federation.ledger.hosts == ("inner",)
    assert {path.name for path in operator.server.iterdir() if path.is_dir()} == {
        "certs",
        "data",
        "denylist",
        "results",
    }


def test_shape_and_classes_come_together(tmp_path: Path) -> None:
    """Terms are the data set's unless they are given; half of them is one line."""
    operator = Operator(tmp_path / "other")
    operator.root.mkdir()
    operator.plan.write_text("data: {dataset: own}\n")
    for half in ({"shape": (13,)}, {"classes": ("a", "b")}):
        with pytest.raises(UsageError, match=r"^of --shape and --classes one is given; wanted both, or neither"):
            operator.init(**half)
    assert not operator.folder.exists()
    operator.init(shape=(13,), classes=("a", "b"))
    terms = operator.federation.ledger.terms
    assert terms is not None
    assert (terms.shape, terms.classes) == ((13,), ("a", "b"))


# -- site, renew, revoke, list ----------------------------------------------------------------------------------------


def test_a_site_is_added_once(operator: Operator) -> None:
    """A name that has a valid certificate gets no second one by `site`: the line says what else to do."""
    before = contents(operator.folder)
    with pytest.raises(ConflictError) as caught:
        operator.site("north")
    assert str(caught.value) == (
        "north has a certificate that is valid; wanted a new name;"
        " renew it with `fed kit renew north`, or end it with `fed kit revoke north`"
    )
    assert contents(operator.folder) == before
    operator.revoke("north")
    operator.site("north")
    assert len(operator.serials("north")) == 2


@pytest.mark.parametrize("name", ["", "server", "ca", "../north", "a/b", ".north", "x" * 64, "nörd", "a b", "--x"])
def test_a_name_that_is_none_is_one_line(operator: Operator, name: str) -> None:
    """A site's name can't lead out of the folder, nor be the server's."""
    with pytest.raises(UsageError, match=r"^the client's name is "):
        operator.site(name)


def test_a_name_like_an_archive_s_is_one_line(operator: Operator) -> None:
    """A site whose folder would stand where another's archive does is refused before anything is issued."""
    before = contents(operator.folder)
    with pytest.raises(UsageError) as caught:
        operator.site("north.tar.gz")
    assert str(caught.value) == (
        "the site's name is 'north.tar.gz'; wanted one that does not end like a kit's archive, in .tar.gz;"
        " choose another"
    )
    assert contents(operator.folder) == before


def test_a_name_that_nobody_has_is_one_line(operator: Operator) -> None:
    """A mistyped name is refused before anything is done for those beside it."""
    before = contents(operator.folder)
    for call in (operator.renew, operator.revoke):
        with pytest.raises(UsageError) as caught:
            call("north", "nort")
        assert str(caught.value) == (
            "'nort' is no site of this federation; wanted one of its sites: north, south; correct the name"
        )
    assert contents(operator.folder) == before


@pytest.mark.parametrize("action", ["site", "renew"])
def test_nothing_is_done_with_a_wrong_passphrase(operator: Operator, action: str) -> None:
    """The folder is as it was."""
    operator.phrase.write_text("not this one, certainly")
    before = contents(operator.folder)
    with pytest.raises(IdentityError, match="does not open; wanted the passphrase"):
        operator.site("west") if action == "site" else operator.renew("north", "server")
    assert contents(operator.folder) == before


def test_a_renewed_kit_has_a_new_key_and_the_old_one_counts(operator: Operator, tmp_path: Path) -> None:
    """Renewing makes a new key and number; the old certificate counts until it is revoked or expires."""
    shutil.copytree(operator.kit("north"), tmp_path / "old")
    old = read_kit(tmp_path / "old")
    said = operator.renew("north")
    new = read_kit(operator.kit("north"))
    assert new.serial != old.serial
    assert (operator.kit("north") / new.key).read_bytes() != (tmp_path / "old" / old.key).read_bytes()
    assert operator.valid("north") == [old.serial, new.serial]
    assert operator.denied() == []
    assert said == [
        f"{operator.kit('north')}, and north.tar.gz beside it: the kit of north, valid until {new.expires:%Y-%m-%d}"
    ]
    operator.revoke("north")
    assert operator.valid("north") == []
    assert operator.denied() == [f"serial:{old.serial}", f"serial:{new.serial}"]


def test_renewing_after_a_leak_denies_the_old_one_alone(operator: Operator) -> None:
    """`--revoke` ends what was issued before, and not what is issued now."""
    old, other = operator.serials("north"), operator.serials("south")
    said = operator.renew("north", revoking=True)
    assert operator.denied() == [f"serial:{old[0]}"]
    assert operator.valid("north") == [read_kit(operator.kit("north")).serial]
    assert operator.valid("south") == other
    assert said[1] == (f"north: 1 certificate revoked; a server on another machine needs the new {operator.denylist}")


def test_the_server_can_t_be_revoked(operator: Operator) -> None:
    """Sites have no denylist; that is said, and nothing is done, by either command."""
    before = contents(operator.folder)
    for call in (operator.revoke, functools.partial(operator.renew, revoking=True)):
        with pytest.raises(UsageError) as caught:
            call("north", "server")
        assert str(caught.value) == (
            "the server's certificate can't be revoked: sites have no denylist; wanted names of sites;"
            " after a leak, make a new federation, and give each site a new kit"
        )
    assert contents(operator.folder) == before


def test_the_servers_kit_keeps_what_the_operator_changed(operator: Operator) -> None:
    """Renewed, the server has a new certificate for the same hosts; its settings, plan and denylist stay."""
    operator.revoke("south")
    own = {".env": "CLIENTS=7\n", "experiment.yml": "rounds: 9\n", "denylist/denied.txt": "evil\n", "data/x": "1"}
    for name, content in own.items():
        (operator.server / name).write_text(content)
    (operator.server / "docker-compose.yml").write_text("changed\n")
    before = read_kit(operator.server)
    operator.renew("server")
    after, _ = verify(operator.server)
    assert after.serial != before.serial
    assert {name: (operator.server / name).read_text() for name in own} == own
    leaf = certificates.read_certificate(operator.server / after.certificate)
    assert leaf is not None
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    verify(operator.kit("north"))


def test_a_server_whose_plan_is_gone_is_not_renewed(operator: Operator) -> None:
    """Nothing is issued where the kit could not be made whole."""
    (operator.server / "experiment.yml").unlink()
    before = contents(operator.folder)
    with pytest.raises(StorageError, match=r"experiment.yml can't be read"):
        operator.renew("server")
    assert contents(operator.folder) == before


@pytest.mark.parametrize("text", ["evil", "evil\n", "# a comment", ""])
def test_a_denylist_that_somebody_wrote_is_kept(operator: Operator, text: str) -> None:
    """Numbers are added below what is there, on lines of their own."""
    operator.denylist.write_text(text)
    operator.revoke("north")
    assert operator.denylist.read_text().startswith(text)
    assert trust(operator.server).denied == {
        f"serial:{operator.serials('north')[0].lstrip('0')}", *({"evil"} if "evil" in text else ())
    }  # fmt: skip


def test_a_denylist_that_can_t_be_read_is_one_line(operator: Operator) -> None:
    """It is not overwritten, and the ledger does not say what the server has not been told."""
    operator.denylist.write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="can't be read; wanted a denylist, in UTF-8"):
        operator.revoke("north")
    assert operator.denylist.read_bytes() == b"\xff\xfe"
    assert len(operator.valid("north")) == 1


def test_revoking_twice_adds_nothing(operator: Operator) -> None:
    """What is revoked is said to be; the denylist has each number once."""
    operator.revoke("north")
    assert operator.revoke("north", "south")[0] == "north: nothing left to revoke"
    assert len(operator.denied()) == len(set(operator.denied())) == 2


def test_the_list_tells_the_state_of_each(operator: Operator) -> None:
    """Each name has a line: valid, due to be renewed, expired or revoked, and how many older ones count."""
    operator.renew("south")
    operator.revoke("north")
    ledger = operator.federation.ledger
    ends = ledger.of("server")[0].expires

    def states(days_before_the_end: float) -> list[str]:
        lines = main.listed(operator.folder, ends - timedelta(days=days_before_the_end))
        return [line.split()[1] for line in lines[1:]]

    lines = main.listed(operator.folder)
    assert lines[0] == f"wss://localhost:8765  CA {fingerprint(operator.federation.ca)}"
    assert [line.split()[0] for line in lines[1:]] == ["server", "north", "south"]
    assert lines[3].endswith(f"serial {operator.serials('south')[-1]}, 1 older valid too")
    assert states(100) == ["valid", "revoked", "valid"]
    assert states(30) == ["renew", "revoked", "renew" if ledger.of("south")[-1].expires == ends else "valid"]
    assert states(-1) == ["expired", "revoked", "expired"]


# -- handshakes -------------------------------------------------------------------------------------------------------


def test_kits_of_one_federation_meet(made: Operator) -> None:
    """A client from a site's kit joins a server from the server's, under each host that was asked for."""

    async def scene() -> None:
        async with serving(trust(made.server)) as server:
            for host, route in (
                ("localhost", DIRECT),
                ("127.0.0.1", DIRECT),
                ("localhost", Route("fl.example.org", {"X-Route": "a"})),
            ):
                client = dialling(made.kit("north"), server, host=host, route=route)
                await client.start()
                assert server.client_names == {"north"}
                await client.stop()

    run(scene())


def test_a_name_that_was_not_asked_for_is_refused(made: Operator, tmp_path: Path) -> None:
    """A client joins no server whose certificate is for another name, nor one of another federation."""
    other = Operator(tmp_path / "other")
    other.init()
    other.site("north")

    async def scene() -> None:
        async with serving(trust(made.server)) as server:
            for kit, route in ((made.kit("north"), Route("evil.example.org", {})), (other.kit("north"), DIRECT)):
                with pytest.raises(FedError) as caught:
                    await dialling(kit, server, route=route).start()
                assert "\n" not in str(caught.value)
            assert server.client_names == set()

    run(scene())


def test_a_sites_certificate_makes_no_server(made: Operator, tmp_path: Path) -> None:
    """Who has a site's kit can't play the server to other sites."""
    certs = made.kit("south") / "certs"
    with contextlib.suppress(IdentityError):  # refused here, or at the handshake
        trusted = Trust(certs / "south-cert.pem", certs / "south-pkey.pem", certs / CA_CERTIFICATE, tmp_path)

        async def scene() -> None:
            async with serving(trusted) as server:
                with pytest.raises(FedError):
                    await dialling(made.kit("north"), server).start()
                assert server.client_names == set()

        run(scene())


def test_what_is_revoked_is_refused_and_nothing_else(operator: Operator, tmp_path: Path) -> None:
    """The server reads what `revoke` wrote: that certificate alone is put out; a renewed one, and others, take part."""
    shutil.copytree(operator.kit("north"), tmp_path / "stolen")

    async def scene() -> None:
        trusted = trust(operator.server)
        async with serving(trusted) as server:
            stolen, south = dialling(tmp_path / "stolen", server), dialling(operator.kit("south"), server)
            await stolen.start()
            await south.start()
            assert server.client_names == {"north", "south"}
            operator.renew("north", revoking=True)
            assert trusted.look()
            server.enforce_denials()
            await asyncio.wait_for(stolen.lost(), PATIENCE)
            with pytest.raises(RefusedError, match="does not let this identity take part"):
                await stolen.start()
            renewed = dialling(operator.kit("north"), server)
            await renewed.start()
            assert server.client_names == {"north", "south"}
            await renewed.stop()
            await south.stop()

    run(scene())


# -- at a site --------------------------------------------------------------------------------------------------------


def data(folder: Path, *, shape: tuple[int, ...] = (28, 28), labels: range = range(10), nan: bool = False) -> Path:
    """Write a site's own data, as arrays."""
    images = np.random.default_rng(1).random((40, *shape), dtype=np.float32)
    if nan:
        images[3] = np.nan
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "train_data.npy", images)
    np.save(folder / "train_target.npy", np.resize(np.asarray(labels, dtype=np.int64), 40))
    return folder


def test_verify_says_what_a_kit_is(made: Operator) -> None:
    """It tells whose kit it is; without a fingerprint, that one is to be asked for."""
    kit, told = made.kit("north"), fingerprint(made.federation.ca)
    lines = main.verified(kit, told)
    assert lines[0].startswith(f"{kit}: north, for wss://localhost:8765, as it was issued on ")
    assert lines[1].endswith(f"signed by the CA {told}")
    assert main.verified(kit, None) == [
        *lines, "ask the operator, by another way than this kit came, whether that is the CA's fingerprint"
    ]  # fmt: skip


def test_check_says_what_a_sites_data_are(operator: Operator, tmp_path: Path) -> None:
    """Data that fit are described, where they stand in the kit or elsewhere; nothing is changed."""
    kit = operator.kit("north")
    data(kit / "data")
    before = contents(kit)
    lines = main.checked(kit, None)
    assert lines[0] == f"{kit / 'data'}: fit for wss://localhost:8765"
    assert lines[1] == "40 examples to train on, 0 to validate on"
    assert lines[2].startswith("shape (28, 28) as float32, values from ")
    assert lines[3] == "of each class: " + ", ".join(f"{number} 4" for number in range(10))
    assert contents(kit) == before
    assert main.checked(kit, data(tmp_path / "elsewhere"))[0].startswith(f"{tmp_path / 'elsewhere'}: fit")


@pytest.mark.parametrize(
    ("wrong", "found", "wanted"),
    [
        ({"shape": (32, 32)}, "this site's examples have shape (32, 32)", "(28, 28), as the federation trains on"),
        ({"labels": range(12)}, "this site's labels go up to 11", "labels from 0 to 9, for 0, 1, 2"),
        ({"nan": True}, "", "finite"),
    ],
)
def test_check_refuses_what_does_not_fit(operator: Operator, wrong: dict[str, Any], found: str, wanted: str) -> None:
    """Another shape, unknown labels, numbers that are none: one line with what was found and what was wanted."""
    data(operator.kit("north") / "data", **wrong)
    with pytest.raises(DataError) as caught:
        main.checked(operator.kit("north"), None)
    assert "\n" not in str(caught.value)
    assert found in caught.value.found
    assert wanted in str(caught.value)


def test_check_refuses_a_folder_without_data(operator: Operator) -> None:
    """A kit as it was issued holds no data, which is one line."""
    with pytest.raises(DataError, match="holds no data that is known"):
        main.checked(operator.kit("north"), None)


def test_a_kit_is_for_its_role(made: Operator) -> None:
    """The server's kit makes no site, nor a site's the server."""
    for kit, role, wanted in ((made.server, "client", "server"), (made.kit("north"), "server", "client")):
        with pytest.raises(IdentityError, match=f"a {wanted}; wanted one of a {role}; name another kit"):
            main.read_for(kit, role)
    with pytest.raises(FedError, match="none"):
        main.read_for(made.folder / "none", "client")


def test_keys_for_secure_aggregation_are_made_at_the_sites(operator: Operator) -> None:
    """Each site makes its own, gives the public one away, and then trusts its peers; the operator has none of them."""
    kits = [operator.kit(name) for name in ("north", "south")]
    for kit, name in zip(kits, ("north", "south"), strict=True):
        lines = main.secagg(kit)
        public = kit / "secagg" / secagg_public_key(name)
        assert lines[0] == f"{public}: made; give it to every other site"
        assert stat.S_IMODE((kit / "secagg" / secagg_key(name)).stat().st_mode) == 0o600
    for kit, name, other in ((kits[0], "north", kits[1]), (kits[1], "south", kits[0])):
        for path in (other / "secagg").glob("*-secagg-public.pem"):
            shutil.copy(path, kit / "secagg")
        lines = main.secagg(kit)
        assert lines[0].startswith(f"{kit / 'secagg' / secagg_public_key(name)}: kept;")
        keys = load_keys(kit / "secagg", name)
        assert {key.public_bytes_raw().hex(":").upper() for key in keys.trusted} == {
            line.split(": ")[1] for line in lines[1:]
        }
        assert len(lines) == 3
        verify(kit)
    before = contents(operator.kit("north") / "secagg")
    operator.renew("north")
    assert contents(operator.kit("north") / "secagg") == before
    with tarfile.open(operator.archive("north")) as archive:
        assert not [name for name in archive.getnames() if "secagg" in name]
    assert not [name for name in contents(operator.server) if "secagg" in name]


@pytest.mark.parametrize("kind", ["rubbish", "empty", "ec", "x25519", "x448", "private"])
def test_a_peers_key_that_is_none_is_one_line(operator: Operator, kind: str) -> None:
    """A file that is no public key for secure aggregation is named, whatever it is."""
    kit = operator.kit("north")
    main.secagg(kit)
    keys: dict[str, Any] = {
        "ec": ec.generate_private_key(ec.SECP256R1()).public_key(),
        "x25519": x25519.X25519PrivateKey.generate().public_key(),
        "x448": x448.X448PrivateKey.generate().public_key(),
    }
    content = {"rubbish": b"-----BEGIN PUBLIC KEY-----\nx\n", "empty": b""}.get(kind)
    if kind == "private":
        content = (kit / "secagg" / secagg_key("north")).read_bytes()
    elif kind in keys:
        content = keys[kind].public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = kit / "secagg" / secagg_public_key("south")
    path.write_bytes(content or b"")
    with pytest.raises(DataError) as caught:
        main.secagg(kit)
    assert str(caught.value) == (
        f"{path} is no public key; wanted what `fed kit secagg` made at another site; ask that site for it again"
    )
    path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert len(main.secagg(kit)) == 3


def test_another_command_is_waited_for(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    """Two commands at once do not lose each other's entries in the ledger: the folder is held by one at a time."""

    async def scene() -> None:
        await asyncio.gather(*(asyncio.to_thread(operator.site, name) for name in ("west", "east", "middle")))

    with caplog.at_level(logging.INFO):
        run(scene())
    assert sorted(operator.federation.ledger.names()) == ["east", "middle", "north", "server", "south", "west"]
