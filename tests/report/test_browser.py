"""The report in a real browser, from disk: on a desk and on a phone, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from services.report import main
from services.tables import Measure
from tests.browser import browser as started
from tests.browser import needed
from tests.report import made

pytestmark = needed

PRIVACY = {"kind": "sample", "epsilon": 3.0, "epsilon_spent": 2.5, "delta": 1e-5, "noise_multiplier": 0.75}
OPEN = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with started() as made_:
        yield made_


@pytest.fixture(scope="module")
def page_of_faults(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report that has every section and every kind of fault."""
    measures = [Measure(5, "all", "mse.mse", 0.5)]
    folder = made.faulty(tmp_path_factory.mktemp("run"), privacy=PRIVACY, measures=measures)
    return main.write(folder).as_uri()


def test_it_opens_from_disk_and_asks_for_nothing(browser: Browser, page_of_faults: str) -> None:
    """The file is all that is loaded, its pictures are shown, and the browser has nothing to complain of."""
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_of_faults)
    assert page.title() == "Run 20260102-030405: stopped"
    widths = page.evaluate("[...document.images].map(each => each.naturalWidth)")
    assert widths == [28, 28, 28]
    assert [address for address in asked if not address.startswith("data:image/png;base64,")] == [page_of_faults]
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_is_accessible(browser: Browser, page_of_faults: str, scheme: str, width: int) -> None:
    """Nothing but tables scrolls sideways, and axe finds no barrier, with all that unfolds unfolded."""
    # axe is a script, which the page's own policy forbids
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page.goto(page_of_faults)
    page.evaluate(OPEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert [f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found] == []
