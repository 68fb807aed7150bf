"""Both websocket endpoints, over real TLS on loopback: who gets in, what is carried, who is missed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import websockets
from declearn import messaging
from declearn.communication.api.backend.actions import Accept, ActionMessage, Ping, Reject, Send

from services.errors import DistrustError, IdentityError, NetworkError, RefusedError, TrainingError
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, client_certificate, client_key
from services.transport import gate, tls
from services.transport.client import ClientEndpoint, ConnectionLostError, Route
from services.transport.messages import DEALABLE, HALVES, PROBES
from services.transport.server import Loss, ServerEndpoint
from tests.client.hostile import hostile, send_fragments
from tests.transport.conftest import PATIENCE, Site, issue

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, for at most four times `PATIENCE` seconds."""
    return asyncio.run(asyncio.wait_for(work, 4 * PATIENCE))


async def echo(client: ClientEndpoint) -> None:
    """Answer every request with an `Error` that names it, until the connection ends."""
    try:
        while True:
            received = await client.recv_message()
            await client.send_message(messaging.Error(received.deserialize().action))
    except ConnectionLostError:
        return


def test_messages_of_any_size_come_through(site: Site) -> None:
    """A message larger than a websocket frame's worth is carried whole, both ways."""

    async def scene() -> None:
        big = "x" * 3_000_000
        async with site.server() as server:
            client = site.client(server)
            await client.start()
            answering = asyncio.create_task(echo(client))
            request = messaging.GenericMessage(action=big, params={})
            answers = await server.ask({"client_0": request}, messaging.InitReply)
            assert answers.losses["client_0"].reason[:300] == big[:300]
            assert server.traffic["client_0"].sent > len(big)
            assert server.traffic["client_0"].received > len(big)
            await client.stop()
            await answering

    run(scene())


def test_the_name_is_that_of_the_certificate(site: Site) -> None:
    """A client joins under the name in its certificate, and the server knows what its handshake announced."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server, "client_1")
            await client.start()
            assert server.client_names == {"client_1"}
            assert server.traits("client_1") == {DEALABLE, PROBES, HALVES}
            await client.stop()

    run(scene())


def test_a_borrowed_name_is_refused(site: Site) -> None:
    """A valid certificate does not let its holder join under another name."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server, "client_1", identity="client_0")
            with pytest.raises(RefusedError) as caught:
                await client.start()
            assert str(caught.value) == (
                "the server refused client_1: your certificate names 'client_0', you asked to join as 'client_1'; "
                "join under the name of your certificate"
            )
            assert server.client_names == set()

    run(scene())


@pytest.fixture(scope="module")
def odd_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A federation some of whose clients have certificates out of their time."""
    return issue(tmp_path_factory.mktemp("odd"), client_0=1, late=40, early=-2)


REFUSED_IN_HANDSHAKE = {
    "no certificate": (None, "peer did not return a certificate", "certificate required"),
    "foreign CA": ("foreign", "its certificate is not accepted (unable to get local issuer certificate)", "unknown ca"),
    "expired": ("late", "its certificate is not accepted (certificate has expired)", "certificate expired"),
    "not yet valid": ("early", "its certificate is not accepted (certificate is not yet valid)", "bad certificate"),
    "a server's": ("server", "its certificate is not accepted (unsuitable certificate purpose)", "unsupported certif"),
}


@pytest.mark.parametrize("case", REFUSED_IN_HANDSHAKE)
def test_the_server_itself_refuses_a_certificate(odd_site: Site, other_site: Site, case: str) -> None:
    """Whatever a client checks of its own certificate, the server refuses it, counts why, and tells the client."""
    shown, reason, alert = REFUSED_IN_HANDSHAKE[case]

    def careless() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=odd_site.folder / CA_CERTIFICATE)
        if shown == "foreign":
            folder = other_site.folder / "clients"
            context.load_cert_chain(folder / client_certificate("client_0"), folder / client_key("client_0"))
        elif shown == "server":
            context.load_cert_chain(odd_site.folder / SERVER_CERTIFICATE, odd_site.folder / SERVER_KEY)
        elif shown is not None:
            folder = odd_site.folder / "clients"
            context.load_cert_chain(folder / client_certificate(shown), folder / client_key(shown))
        return context

    async def scene() -> None:
        async with odd_site.server() as server:
            client = ClientEndpoint(
                f"wss://localhost:{server.port}", "client_0", careless, dealable=True, timeout=PATIENCE
            )
            with pytest.raises(IdentityError) as caught:
                await client.start()
            assert caught.value.found.startswith(f"wss://localhost:{server.port} refused this client's certificate (")
            assert alert in caught.value.found
            assert list(server.door.refusals.totals) == [reason]
            assert server.client_names == set()

    run(scene())


def test_a_client_s_certificate_makes_no_server(odd_site: Site) -> None:
    """Nobody can play the server with a client's certificate and key."""
    folder = odd_site.folder / "clients"

    async def scene() -> None:
        context = tls.server_context(folder / client_certificate("client_0"), folder / client_key("client_0"), None)
        async with ServerEndpoint("localhost", 0, context) as server:
            with pytest.raises(IdentityError) as caught:
                await odd_site.client(server).start()
            assert "unsuitable certificate purpose" in caught.value.found

    run(scene())


def test_a_second_connection_under_a_live_identity_is_refused(site: Site) -> None:
    """While a client is connected nobody joins under its name, even with its certificate; once it is gone, one may."""

    async def scene() -> None:
        async with site.server() as server:
            first, second = site.client(server), site.client(server, timeout=1.0)
            await first.start()
            with pytest.raises((RefusedError, NetworkError)):  # the last of its tries may come to no answer
                await second.start()
            assert server.door.refusals.totals["another client is connected under its name"] >= 1
            assert server.client_names == {"client_0"}
            await first.stop()
            await site.client(server).start()
            assert server.client_names == {"client_0"}

    run(scene())


def test_a_server_of_another_ca_is_refused(site: Site, other_site: Site) -> None:
    """A client leaves a server alone whose certificate its CA did not sign."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server, ca=other_site.folder / CA_CERTIFICATE)
            with pytest.raises(IdentityError) as caught:
                await client.start()
            assert caught.value.found.startswith(f"the certificate of wss://localhost:{server.port} is not accepted")

    run(scene())


def test_a_server_is_reached_through_something_else(site: Site) -> None:
    """A client dials one address and asks for another name, in clear too; path and headers arrive."""

    async def scene() -> None:
        async with site.server() as server:
            asked: list[str | None] = []
            assert server._ssl is not None
            server._ssl.sni_callback = lambda _socket, name, _context: asked.append(name)
            route = Route("server", {"X-Site": "hospital-a"})
            client = site.client(server, address="wss://127.0.0.1:{}/federation/a", route=route)
            await client.start()
            (gate,) = server.handler.registered_clients
            assert asked == ["server"]
            assert (gate.path, gate.request_headers["X-Site"]) == ("/federation/a", "hospital-a")
            assert server.traits("client_0") == {DEALABLE, PROBES, HALVES}
            await client.stop()

    run(scene())


def test_a_name_that_is_not_the_server_s_is_refused(site: Site) -> None:
    """Whatever is dialled, the certificate must hold the name that was asked for."""

    async def scene() -> None:
        async with site.server() as server:
            with pytest.raises(IdentityError, match="is not accepted"):
                await site.client(server, route=Route("federation.example.org")).start()

    run(scene())


def test_a_failed_run_is_told_to_those_who_are_at_work(site: Site) -> None:
    """A client that collects no message when the run fails learns of it, and why, from how its connection ends."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server)
            await client.start()
            await server.dismiss("no client can train: " + "é" * 100, failed=True)
            await asyncio.wait_for(client.lost(), PATIENCE)
            told = client.loss()
            assert isinstance(told, TrainingError)
            assert str(told).startswith("the server cancelled training (no client can train: éé")

    run(scene())


def test_anybody_joins_where_client_authentication_is_off(site: Site) -> None:
    """Without client authentication, a client without certificate joins under the name it gives."""

    async def scene() -> None:
        async with site.server(anybody=True) as server:
            client = site.client(server, "hospital", anonymous=True)
            await client.start()
            assert server.client_names == {"hospital"}
            await client.stop()

    run(scene())


def test_a_polite_leave_is_noticed_at_once(site: Site) -> None:
    """A client that closes its connection is gone, with its reason, though nobody wrote to it."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server)
            await client.start()
            asking = asyncio.create_task(
                server.ask({"client_0": messaging.GenericMessage("x", {})}, messaging.InitReply)
            )
            await client.stop()
            assert (await asking).losses == {"client_0": Loss("gone", "it left")}
            assert server.client_names == set()

    run(scene())


def test_a_cut_connection_is_noticed_at_once(site: Site) -> None:
    """A client whose connection breaks is gone, though nobody wrote to it."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server)
            await client.start()
            waiting = asyncio.create_task(client.recv_message())
            await asyncio.sleep(0)
            assert client._socket is not None
            client._socket.transport.abort()
            await server.handler.until_clients(lambda count: count == 0)
            with pytest.raises(ConnectionLostError):
                await waiting

    run(scene())


def test_a_frozen_client_is_noticed_within_the_liveness_time_out(site: Site) -> None:
    """A client that answers no ping is gone after the liveness time-out, though its connection stands."""

    async def scene() -> None:
        async with site.server(liveness_timeout=0.4) as server:
            client = site.client(server)
            await client.start()
            assert client._socket is not None
            client._socket.transport.pause_reading()
            await server.handler.until_clients(lambda count: count == 0)

    run(scene())


def test_a_client_waits_for_a_server_that_comes_later(site: Site) -> None:
    """A client that is there first keeps trying, and joins when the server listens."""

    async def scene() -> None:
        with socket.create_server(("localhost", 0)) as taken:
            port = taken.getsockname()[1]
        server = site.server()
        server.port = port
        client = site.client(server)
        joining = asyncio.create_task(client.start())
        await asyncio.sleep(0.05)
        assert not joining.done()
        async with server:
            await joining
            assert server.client_names == {"client_0"}
            await client.stop()

    run(scene())


def test_a_client_gives_up_on_a_server_that_never_comes(site: Site) -> None:
    """A client stops trying after the time given, and says how long it tried."""

    async def scene() -> None:
        server = site.server()
        server.port = 1
        with pytest.raises(NetworkError) as caught:
            await site.client(server, timeout=0.3).start()
        assert str(caught.value) == (
            "wss://localhost:1 can't be reached (connection refused), for 0.3 s; "
            "start the server, or raise CONNECT_TIMEOUT"
        )

    run(scene())


def test_a_taken_port_is_said_in_one_line(site: Site) -> None:
    """A port that something else holds is named, with both ways out."""

    async def scene() -> None:
        async with site.server() as server:
            second = ServerEndpoint("localhost", server.port, None)
            with pytest.raises(NetworkError) as caught:
                await second.start()
            assert str(caught.value) == (
                f"port {server.port} on localhost is taken; wanted a free port; "
                "choose another PORT, or end what holds it"
            )

    run(scene())


def test_strangers_do_not_disturb(site: Site) -> None:
    """Plain TCP, plain HTTP and rubbish over TLS leave a connected client as it was."""

    async def scene() -> None:
        async with site.server() as server:
            client = site.client(server)
            await client.start()
            for opening in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))):
                _, writer = await asyncio.open_connection("localhost", server.port)
                writer.write(opening)
                writer.close()
                await writer.wait_closed()
            context = tls.client_context(
                site.folder / CA_CERTIFICATE,
                site.folder / "clients" / client_certificate("client_1"),
                site.folder / "clients" / client_key("client_1"),
            )
            async with websockets.connect(f"wss://localhost:{server.port}", ssl=context) as stranger:
                for rubbish in (b"\xff\xfe", "text", b"STREAM_START"):
                    await stranger.send(rubbish)
                await stranger.wait_closed()
            assert server.client_names == {"client_0"}
            await client.stop()

    run(scene())


# -- a dishonest server -----------------------------------------------------------------------------------------------


def frames(*parts: bytes | str) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Answer with these frames, whatever they are, and wait for the client to have had enough."""

    async def send(socket: Any) -> None:
        for part in parts:
            await socket.send(part)
        await socket.wait_closed()

    return send


def answer(content: bytes | str) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Answer with these bytes, and go on."""

    async def send(socket: Any) -> None:
        await socket.send(content)

    return send


START = b"STREAM_START"


async def fragments(socket: Any) -> None:
    """Answer with one message of empty frames, without end."""
    await send_fragments(socket)
    await socket.wait_closed()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (frames(START, *[b"x" * 500] * 3), "the server sent a message of more than 1,000 bytes; wanted at most 1,000 "),
        (frames(START, *[b"x"] * 20), "the server sent a message of more than 1,000 bytes; wanted at most 1,000 "),
        (frames(START, b""), "the server sent an empty chunk; wanted at most 1,000 bytes, sent steadily"),
        (frames(START, "x"), "the server sent a text among the chunks of a message; wanted at most 1,000 "),
        (frames(START, b"x"), "the server sent a message that comes too slowly; wanted at most 1,000 bytes"),
        (frames("good morning"), "the server sent a text where a binary message was due; wanted"),
        (frames(b"x" * (gate.CLIENT_FRAME + 1)), "the server sent a frame that is too large; wanted at most 1,049,600"),
        (fragments, "the server sent a malformed frame; wanted at most 1,049,600 bytes a"),
        (answer(b"hello"), "the server's answer is none: it can't be read"),
        (answer(Accept("welcome").serialize()), "the server answered a request for a message with 'Accept'"),
        (answer(Ping().serialize()), "the server answered a request for a message with 'Ping'"),
        (answer(Reject("a\nb").serialize()), "the server gives client_0 no message: a b"),
    ],
)
def test_a_server_s_answer_is_bounded(monkeypatch: pytest.MonkeyPatch, part: Any, line: str) -> None:
    """A server whose answer is too large, too slow, malformed or no message ends its client in one line."""
    monkeypatch.setattr(gate, "PATIENCE", 0.3)

    async def scene() -> None:
        async with hostile(part) as server:
            client = server.endpoint()
            client.largest = 1000
            await client.start()
            with pytest.raises((DistrustError, RefusedError)) as caught:
                await client.recv_message()
            assert str(caught.value).startswith(line)
            await client.stop()

    run(scene())


def test_a_server_that_does_not_take_messages_is_told_of() -> None:
    """A message that the server refuses, or answers with what is none, ends its client in one line."""

    async def scene(reply: ActionMessage, kind: type[Exception], line: str) -> None:
        async with hostile() as server:
            server.reply = reply
            client = server.endpoint()
            await client.start()
            with pytest.raises(kind, match=line):
                await client.send_message(messaging.Error("x"))
            await client.stop()

    run(scene(Reject("full"), RefusedError, "the server takes no message of client_0: full"))
    run(scene(Send(b"x"), DistrustError, "the server answered a message with 'Send'"))


def test_a_message_may_be_as_large_as_it_is_allowed_to() -> None:
    """Up to its limit a message in chunks is taken."""

    async def scene() -> None:
        message = messaging.CancelTraining("x" * 3_000_000)
        async with hostile(message) as server:
            client = server.endpoint()
            await client.start()
            received = await client.recv_message()
            assert received.deserialize() == message
            await client.stop()

    run(scene())
