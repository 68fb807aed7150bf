"""The status page in a real browser, beside a real run: what a person sees from the first client to the last round."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.browser import browser, needed
from tests.compose.conftest import stacks
from tests.compose.stack import QUICK
from tests.support import deadline

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(900),
    needed,
]

ROUNDS = 8
PLAN = QUICK | {
    "rounds": ROUNDS,
    "model": "cnn-strided",
    "train": {"batch_size": 32, "steps": 150},
    "optimizer": {"client": {"lrate": 0.005, "modules": [{"adam": {}}]}},
    "federation": QUICK["federation"] | {"join_timeout": 300, "rejoin_grace": 100},
}
WAIT = 1000 * deadline(90)
"""Milliseconds to wait for what must come."""


class Visit:
    """One person at one screen: the page, and whatever the browser complained of."""

    def __init__(self, browser: Browser, address: str, name: str, **context: Any) -> None:
        self.name = name
        self.complaints: list[str] = []
        self.page: Page = browser.new_context(**context).new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def sees(self, selector: str, words: str | re.Pattern[str]) -> None:
        """Wait until an element shows these words; what lasts a moment only is proved by that."""
        self.page.locator(selector).filter(has_text=words).first.wait_for(timeout=WAIT)

    def violations(self) -> list[str]:
        """List what axe finds inaccessible."""
        found = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found]

    def keep(self, moment: str) -> None:
        """Take a picture of the whole page, where somebody wants them."""
        folder = os.environ.get("FED_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"page-{moment}-{self.name}.png", full_page=True)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Watch one run at a desk by daylight and on a phone by night; tells what was seen, by moment."""
    with stacks("page", tmp_path_factory.mktemp("page")) as make, browser() as chromium:
        stack = make(PLAN, CLIENTS=3, LINGER=300)
        stack.up("--scale", "client=2")
        stack.until(lambda: len(stack.status.get("clients", ())) == 2, "two clients")
        address = f"http://127.0.0.1:{stack.environment['STATUS_PORT']}/"
        desk = Visit(chromium, address, "desk", viewport={"width": 1200, "height": 900}, color_scheme="light")
        phone = Visit(chromium, address, "phone", viewport={"width": 390, "height": 844}, color_scheme="dark")
        plain = Visit(chromium, address, "plain", java_script_enabled=False)
        found: dict[str, Any] = {"violations": [], "text": {}}

        def look(moment: str) -> None:
            for visit in (desk, phone):
                found["violations"] += [f"{moment}, {visit.name}: {each}" for each in visit.violations()]
                visit.keep(moment)
            found["text"][moment] = desk.page.locator("main").inner_text()

        desk.sees("#headline", "Waiting for clients")
        plain.page.reload()
        found["plain"] = plain.page.locator("main").inner_text()
        look("gathering")
        stack.up()
        desk.sees("#headline", "Training")
        desk.sees("#clients tr:has(progress)", re.compile(r"client_\d\s+training"))
        look("training")
        _by_keyboard(desk.page, found)
        stack.until_round(2)
        killed = stack.clients()[2]
        name = stack.name_of(killed)
        stack.docker("kill", killed)
        desk.sees("#clients tr", "connection lost")
        desk.sees("#events li", f"lost {name}")
        look("lost")
        stack.up()
        desk.sees("#events li", f"returned {name}")
        desk.sees("#headline", "Completed")
        look("completed")
        found["curves"] = [
            len(str(line.get_attribute("d")).split()) for line in desk.page.locator("#curves path.line").all()
        ]
        found["rows"] = len(desk.page.locator("#curves tbody tr").all())
        found["answers"] = {digit: _draw(desk.page, digit) for digit in STROKES}
        look("drawn")
        found["complaints"] = desk.complaints + phone.complaints
        found["summary"] = stack.summary
        stack.kill(stack.container("server"))
        desk.sees("#connection", "Connection lost")
        desk.keep("disconnected")
        found["code"] = stack.exit_code(stack.container("server"))
        found["after"] = stack.summary
        found["name"] = name
        yield found


def _by_keyboard(page: Page, found: dict[str, Any]) -> None:
    """Go through the page with the Tab key, and open what can be opened."""
    page.locator("body").focus()
    page.keyboard.press("Tab")
    found["first"] = page.evaluate("document.activeElement.textContent")
    page.locator("#experiment summary").focus()
    page.keyboard.press("Enter")
    # a state later it is still open, and still has the focus
    page.locator("#headline[data-html]").wait_for(timeout=WAIT)
    page.wait_for_timeout(2500)
    found["open"] = page.locator("#experiment details").get_attribute("open") is not None
    found["focus"] = page.evaluate("document.activeElement.tagName")


STROKES: dict[int, list[tuple[float, float]]] = {
    0: [
        (140 + 60 * math.cos(angle / 12 * math.tau), 140 - 90 * math.sin(angle / 12 * math.tau)) for angle in range(13)
    ],
    1: [(150, 40), (145, 120), (140, 240)],
    7: [(70, 60), (200, 60), (160, 140), (130, 240)],
}
"""How a hand draws a digit, on a canvas of 280 by 280."""


def _draw(page: Page, digit: int) -> str:
    """Draw a digit with the mouse; tells what the page says it is."""
    canvas = page.locator("#canvas")
    page.locator("#clear").click()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    points = [(box["x"] + x, box["y"] + y) for x, y in STROKES[digit]]
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(x, y, steps=5)
    page.mouse.up()
    page.locator("#scores li").first.wait_for(timeout=WAIT)
    return page.locator("#answer").inner_text()


def test_the_page_goes_through_the_run(seen: dict[str, Any]) -> None:
    """Waiting, training, a client lost and back, completed: each moment has its words, and who is there its row."""
    text = seen["text"]
    assert "Waiting for clients" in text["gathering"]
    assert "2 of 3" in text["gathering"]
    assert "client_1" in text["gathering"]
    assert re.search(rf"{seen['name']}\s+gone\s+connection lost", text["lost"])
    assert "Completed" in text["completed"]
    assert f"{ROUNDS} of {ROUNDS}" in text["completed"]
    assert f"{100 * seen['summary']['test_accuracy']:.2f} %" in text["completed"]


def test_a_server_killed_at_its_page_alone_begins_no_other_run(seen: dict[str, Any]) -> None:
    """Killed when the run is complete and only the page is left, a server that is started again ends with 0."""
    assert seen["code"] == 0
    assert seen["after"] == seen["summary"]


def test_curves_have_a_point_a_round(seen: dict[str, Any]) -> None:
    """Each of the four lines has a point for each round, and the table beside them a row."""
    assert seen["curves"] == [ROUNDS] * 4
    assert seen["rows"] == ROUNDS


def test_a_drawn_digit_is_recognised(seen: dict[str, Any]) -> None:
    """What a hand draws on the finished page is what the federated model says it is."""
    assert seen["answers"] == {digit: str(digit) for digit in STROKES}


def test_the_browser_has_nothing_to_complain_of(seen: dict[str, Any]) -> None:
    """No error and no warning in any console, from the first look to the last."""
    assert seen["complaints"] == []


def test_the_page_is_accessible(seen: dict[str, Any]) -> None:
    """Axe finds no violation at any moment, on a wide screen by day and on a phone by night."""
    assert seen["violations"] == []


def test_the_page_is_used_by_keyboard(seen: dict[str, Any]) -> None:
    """The first stop leads past the head, and what was opened keeps open, and its focus, as states follow another."""
    assert seen["first"] == "Skip to the run"
    assert seen["open"]
    assert seen["focus"] == "SUMMARY"


def test_without_javascript_the_page_is_a_snapshot(seen: dict[str, Any]) -> None:
    """A browser that runs no script shows the state of the moment all the same."""
    assert "Waiting for clients" in seen["plain"]
    assert "client_0" in seen["plain"]
