"""Reading a run's state from its server: each change, through restarts, and from no other server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.errors import LostError, NetworkError
from services.terminal import feed
from tests.server.page.test_render import state
from tests.terminal.stage import page

URL = "http://127.0.0.1:8000"

State = dict[str, Any]


@pytest.mark.parametrize("again", [1, 2])
def test_each_new_state_is_whole(again: int) -> None:
    """What the server tells of changes alone is put together to a whole state each time."""
    with page() as run:
        for _ in range(again):
            states = feed.follow(run.url)
            first = next(states)
            assert first == run.state
            run.change(round=first["round"] + 1)
            assert next(states) == run.state
            states.close()


def test_the_end_of_the_feed_is_the_end() -> None:
    """When the server ends, the last state comes before the end."""
    with page() as run:
        states = feed.follow(run.url)
        next(states)
        run.change(phase="completed")
        run.close()
        assert [each["phase"] for each in states] == ["completed"]


def test_a_completed_run_is_left_although_its_page_stays() -> None:
    """Whoever looks on goes at the run's end, and does not wait for the page's."""
    with page() as run:
        states = feed.lasting(run.url)
        next(states)
        run.change(phase="failed")
        assert [each["phase"] for each in states if isinstance(each, dict)] == ["failed"]


def test_a_server_that_ends_before_its_run_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that ends in the midst of a run, and does not come back, is an error that says so."""
    monkeypatch.setattr(feed, "PATIENCE", 0.0)
    with page() as run:
        states = feed.lasting(run.url)
        next(states)
        run.close()
        with pytest.raises(LostError) as caught:
            next(states)
    assert str(caught.value) == "the server ended its status page before the run was over"


def played(*acts: list[State | NetworkError]) -> Callable[[str], Iterator[State]]:
    """Stand for `follow`: each act is what one connection brings."""
    waiting = list(acts)

    def follow(url: str) -> Iterator[State]:
        assert url == URL
        for each in waiting.pop(0):
            if isinstance(each, NetworkError):
                raise each
            yield each

    return follow


def test_a_server_that_comes_back_is_followed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that dies and is started anew is looked for meanwhile, which is told with the reason."""
    before, after = state(), state(phase="completed")
    silent, away = NetworkError("it fell silent"), NetworkError("nobody answers", "a server", "start one")
    monkeypatch.setattr(feed, "PAUSE", 0.0)
    monkeypatch.setattr(feed, "follow", played([before, silent], [away], [before, after]))
    assert list(feed.lasting(URL)) == [
        before,
        "it fell silent; looking for it for 60 s",
        "nobody answers; looking for it for 60 s",
        before,
        after,
    ]


def test_a_server_that_does_not_come_back_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the loss is an error, with the last reason."""
    monkeypatch.setattr(feed, "PATIENCE", 0.0)
    monkeypatch.setattr(feed, "follow", played([state(), NetworkError("it fell silent")]))
    states = feed.lasting(URL)
    next(states)
    with pytest.raises(LostError, match=r"^it fell silent$"):
        next(states)


def test_a_server_that_is_yet_to_come_may_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default one that is not there is an error at once; else it is waited for, without a word."""
    away = NetworkError("nobody answers")
    monkeypatch.setattr(feed, "PAUSE", 0.0)
    monkeypatch.setattr(feed, "follow", played([away], [away], [state(phase="completed")]))
    assert list(feed.lasting(URL, first=60.0)) == [state(phase="completed")]
    monkeypatch.setattr(feed, "follow", played([away]))
    with pytest.raises(NetworkError, match=r"^nobody answers$"):
        next(feed.lasting(URL))


@pytest.mark.parametrize(
    ("code", "body", "why"),
    [
        (404, b"", "it answers {path} with 404"),
        (200, b"event: state\ndata: <html>\n\n", "its answer is no JSON"),
        (200, b"event: state\ndata: [1]\n\n", "its answer is no state of a run"),
        (200, b'event: state\ndata: {"run_id": 1}\n\n', "its state has no accuracy"),
    ],
    ids=["404", "html", "list", "other"],
)
@pytest.mark.parametrize("path", ["/status", "/status/stream"])
def test_another_server_is_told_from_ours(code: int, body: bytes, why: str, path: str) -> None:
    """What answers at the address and is no status page is named with what gives it away."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.partition(b"data: ")[2] if path == "/status" else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            with pytest.raises(NetworkError) as caught:
                feed.ask(url) if path == "/status" else next(feed.follow(url))
        finally:
            server.shutdown()
            thread.join()
    assert str(caught.value) == (
        f"{url} is no status page of ours ({why.format(path=path)}); wanted that of `fed server`; correct --url"
    )


def test_a_feed_that_breaks_off_is_told_from_one_that_ends() -> None:
    """A connection that closes without a word of the end is an error."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"retry: 2000\n\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(NetworkError) as caught:
            next(feed.follow(url))
        thread.join()
    assert str(caught.value) == f"the server at {url} went away"


def test_no_proxy_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for the outside is not asked for a page of this machine."""
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")
    with page() as run:
        assert feed.ask(run.url) == run.state
