"""What the page says of a run; that nothing in it is taken for markup, and that it loads nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from services.server.page.render import Renderer, bar
from services.tables import HISTORY_COLUMNS
from services.wording import NONE

CLIENT: dict[str, Any] = {
    "state": "training",
    "reason": "",
    "step": 120,
    "steps": 500,
    "seen_s": 0.4,
    "seat": 0,
    "train": 16000,
    "valid": 4000,
    "labels": [9000, 7000],
    "round": 1,
    "train_s": 4.25,
    "eval_s": 0.5,
    "loss": 0.1,
    "accuracy": 0.97,
    "epsilon": None,
    "bytes_sent": 430_000,
    "bytes_received": 428,
}


def state(**changes: Any) -> dict[str, Any]:
    """Make up a snapshot of a run in its second round."""
    row = [1, 5.5, 4.25, 0.5, 0.75, 2, 1, 0.149, 0.9593, 0.1, 0.9631, 1, 1, 3, None]
    content: dict[str, Any] = {
        "run_id": "20261124-064015",
        "phase": "training",
        "reason": "",
        "healthy": True,
        "round": 1,
        "rounds_planned": 5,
        "seconds": 75.2,
        "seconds_left": 22.0,
        "loss": 0.149,
        "accuracy": 0.9593,
        "test_loss": 0.1,
        "test_accuracy": 0.9631,
        "clients_wanted": 3,
        "clients": {"client_0": CLIENT},
        "gone": {"client_1": CLIENT | {"state": "gone", "reason": "connection lost", "labels": None, "steps": None}},
        "history": {column: [value] for column, value in zip(HISTORY_COLUMNS, row, strict=True)},
        "drops": {"gone": 1},
        "events": [["2026-11-24T06:40:21.000+00:00", 1, "dropped", "client_1", "connection lost"]],
        "refusals": {"a malformed frame": 3},
        "privacy": {"epsilon": 3.0, "epsilon_spent": 1.25},
        "dataset": {"name": "mnist", "scheme": "iid", "classes": ["0", "1"]},
        "drawable": False,
        "experiment": {"rounds": 5, "model": {"preset": "cnn"}},
    }
    return content | changes


class Seen(HTMLParser):
    """What a page holds: its text, its tags, and where it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "action"}]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def page(**changes: Any) -> Seen:
    """Render a page and look at it."""
    return Seen(Renderer().page(state(**changes)))


def test_the_page_tells_who_is_there_how_far_and_whether_it_learns() -> None:
    """Phase, round, accuracy, time left, each client with its state, events and the plan are there to be read."""
    text = page().text
    for words in (
        "Training", "1 of 5", "96.31 %", "1 of 3", "1 min 15 s", "22 s", "ε 1.25 of 3.00",
        "client_0", "16,000", "430.0 kB", "now", "client_1", "gone", "connection lost",
        "dropped", "a malformed frame (3)", "preset: cnn", "0.9593",
    ):  # fmt: skip
        assert words in text, words


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_inline() -> None:
    """All that the page refers to is the server's own, and no script or style stands in it."""
    found = page(phase="completed", drawable=True)
    assert all(re.match(r"(/static/|/status$|/metrics$|#)", reference) for reference in found.references)
    assert found.tags.count("script") == 1
    assert "style" not in found.tags
    assert not re.search(r"\s(style|on\w+)=", Renderer().page(state()))


def test_what_others_say_is_text() -> None:
    """Names of clients, reasons, events and refusals can't bring markup into the page."""
    evil = "<script>alert(1)</script>"
    found = page(
        clients={evil: CLIENT | {"reason": evil}},
        reason=evil,
        events=[[evil, 1, evil, evil, evil]],
        refusals={evil: 1},
        dataset={"name": evil, "scheme": evil, "classes": [evil, evil]},
        experiment={evil: evil},
    )
    assert found.tags.count("script") == 1
    assert evil in "".join(found.texts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": {}, "gone": {}}, "Nobody yet. The server waits for 3 clients."),
        ({"phase": "gathering"}, "Waiting for clients"),
        ({"phase": "completed"}, "Completed"),
        ({"phase": "failed", "reason": "the loss is nan"}, "Failed the loss is nan"),
        ({"phase": "waiting"}, "Too few clients: waiting for them to return"),
        ({"events": []}, "Nothing yet."),
        ({"drawable": False}, "Once the run is completed, you can draw here"),
        ({"drawable": True}, "Draw one of 0, 1"),
        ({"history": {column: [] for column in HISTORY_COLUMNS}, "test_accuracy": None}, "No round yet."),
    ],
)
def test_each_state_of_a_run_has_its_words(changes: dict[str, Any], words: str) -> None:
    """Empty, waiting, finished and failed runs say so."""
    assert words in page(**changes).text


def test_a_client_that_has_yet_to_train_has_dashes() -> None:
    """Of a client that was in no round yet, what there is no figure of is a dash."""
    fresh = dict.fromkeys(CLIENT) | {"state": "joining", "reason": "", "bytes_sent": 0, "bytes_received": 0}
    assert f"client_7 joining its own {NONE} {NONE} 0 bytes 0 bytes {NONE}" in page(clients={"client_7": fresh}).text


def test_a_model_that_takes_no_picture_has_no_box_to_draw_in() -> None:
    """Where nothing can be drawn the page does not speak of it."""
    assert "draw" not in page(drawable=None).text.lower()


def test_every_table_and_picture_can_be_told_to_the_blind() -> None:
    """Tables have heads with a scope, pictures a label, regions that scroll can be reached by keyboard."""
    html = Renderer().page(state(drawable=True, phase="completed"))
    assert re.findall(r"<th(?! scope)[ >]", html) == []
    assert all("aria-label" in tag for tag in re.findall(r"<(?:svg|canvas|progress)[^>]*>", html))
    assert all('tabindex="0"' in tag for tag in re.findall(r'<div class="scroll[^>]*>', html))
    assert '<html lang="en">' in html


def test_a_bar_is_as_wide_as_the_counts_are_large() -> None:
    """Widths are shares of all images; nobody's images make no bar."""
    assert re.findall(r'width="([\d.]+)"', bar([30, 10], ["a", "b"])) == ["75.00", "25.00"]
    assert re.findall(r'width="([\d.]+)"', bar([0, 0], ["a", "b"])) == ["0.00", "0.00"]
    assert 'aria-label="a: 30, b: 10"' in bar([30, 10], ["a", "b"])
