"""The page: its figures are the files', it loads nothing, and no text of a stranger's becomes anything but text."""

from __future__ import annotations

import base64
import csv
import itertools
import re
from pathlib import Path
from typing import Any

from services.report import facts, page, timeline
from services.shards import Seat
from services.tables import Measure
from tests.report import made
from tests.report.made import event, faulty, row
from tests.report.parsing import Element, Page


def text_of(folder: Path, pictures: dict[str, bytes] | None = None) -> str:
    """Render a run."""
    found = facts.read(folder)
    return page.render(found, timeline.tell(found), pictures or {})


def parsed(folder: Path, pictures: dict[str, bytes] | None = None) -> Element:
    """Render a run and parse the page."""
    return Page(text_of(folder, pictures)).root


def tiles(root: Element) -> dict[str, str]:
    """Read the figures at the top."""
    (found,) = root.all("dl", class_="tiles")
    return {div.all("dt")[0].text: div.all("dd")[0].text for div in found.all("div")}


def test_the_figures_at_the_top_are_those_of_the_files(tmp_path: Path) -> None:
    """Each is computed here anew, from the files as another program reads them."""
    folder = faulty(tmp_path / "run")
    root = parsed(folder)
    history, clients = made.table(folder / "history.csv"), made.table(folder / "clients.csv")
    with (folder / "confusion.csv").open(newline="") as file:
        counts = [[int(cell) for cell in cells[1:]] for cells in list(csv.reader(file))[1:]]
    images = sum(map(sum, counts))
    wrong = images - sum(cells[place] for place, cells in enumerate(counts))
    sent = sum(int(each["bytes_sent"]) for each in history)
    received = sum(int(each["bytes_received"]) for each in history)
    trained = len({each["client"] for each in clients if each["state"] == "trained"})
    assert tiles(root) == {
        "Test accuracy": f"96.00 % {wrong} of {images} wrong, loss 0.1250",
        "Rounds": f"{len(history)} of 8 model of round 5",
        "Clients": f"2 in the last round; {trained} in all",
        "Time": "1 min 15 s from start to end",
        "Traffic": f"{(sent + received) / 1e6:.1f} MB"
        f" {sent / 1e6:.1f} MB to clients, {received / 1e6:.1f} MB from them",
    }
    assert root.all("h1")[0].text == f"96.00 % of {images} test images right"
    (lead,) = root.all("p", class_="lead")
    assert lead.text == (
        "stopped It was stopped after 6 of 8 rounds: stopped by a signal. Started again with the same plan, the run"
        " goes on."
    )
    (over,) = root.all("p", class_="over")
    assert over.text == (
        "Federated learning on mnist (dealt iid, seed 7), run 20260102-030405 , begun 2026-01-02 03:04:05 UTC"
    )


def test_faults_are_told_where_a_person_looks(tmp_path: Path) -> None:
    """The lines at the top, the table of clients and the timeline say who dropped out when, and what was done again."""
    root = parsed(faulty(tmp_path / "run"))
    (happened,) = root.all("ul", class_="happened")
    assert [line.text for line in happened.all("li")] == [
        "client_1 dropped out of 1 round: 3 (gone, connection lost).",
        (
            "client_2 dropped out of 2 rounds: 3 (late, no reply in 60 s), 5 (its update was refused, its update is not"
            " finite)."
        ),
        "client_3 dropped out of 1 round: 4 (reported an error, OSError(5, 'Input/output error')).",
        "Round 2 had to be run again (1 of 2 clients finished it).",
        "The server ended and was started again 1 time: after round 3.",
        "The data set was dealt anew: to 3 clients after round 3.",
    ]
    figures, told = next(each for each in root.all("section") if each.attributes["id"] == "clients").all("table")
    assert [[cell.text for cell in [*line.all("th"), *line.all("td")]][:6] for line in figures.all("tr")[1:]] == [
        ["client_0", "6", "0", "0", "400", "40.0 %"],
        ["client_1", "3", "1 + 1 again", "0", "600", "60.0 %"],
        ["client_2", "0", "2", "2", "–", "–"],  # noqa: RUF001
        ["client_3", "0", "1", "0", "–", "–"],  # noqa: RUF001
    ]
    words = [[cell.text for cell in line.all("td")] for line in told.all("tr")[1:]]
    assert words[1] == [
        "trained 1-2 gone 3 (connection lost) not there 4-5 trained 6",
        "after round 3 lost: connection lost after round 5 returned",
    ]
    (svg,) = (each for each in root.all("svg") if each.attributes.get("preserveaspectratio"))
    assert [each.text for each in svg.all("title")] == [
        "client_1: gone 3 (connection lost)",
        "client_2: late 3 (no reply in 60 s)",
        "client_2: its update was refused 5 (its update is not finite)",
        "client_3: reported an error 4 (OSError(5, 'Input/output error'))",
    ]
    assert len(svg.all("line", class_="resumed")) == len(svg.all("line", class_="dealt")) == 1
    bars = {each.attributes["class"]: each.attributes["d"] for each in svg.all("path", class_="bar")}
    assert bars["bar trained"] == "M0 15h2M5 15h1"  # the second client's; the first one's is written before
    assert bars["bar late"] == "M2 25h1"


def test_every_round_and_event_is_in_a_table(tmp_path: Path) -> None:
    """A row a round, the one whose model is kept marked, and a row an event, in words."""
    root = parsed(faulty(tmp_path / "run"))
    rounds = next(each for each in root.all("table") if "A row a round" in each.text)
    lines = rounds.all("tr")[1:]
    assert [line.all("th")[0].text for line in lines] == ["1", "2", "3", "4", "5", "6"]
    assert [line.attributes.get("class") for line in lines] == [None, None, None, None, "best", None]
    cells = [[cell.text for cell in line.all("td")] for line in lines]
    assert cells[1][:9] == ["0.9500", "0.2500", "0.9600", "0.2000", "2", "0", "1", "10 s", "6.0 s"]
    (events,) = root.all("table", class_="events")
    assert [[cell.text for cell in line.all("td")] for line in events.all("tr")[1:]][3] == [
        "2026-01-02 03:04:05",
        "2",
        "round did not count",
        "",
        "1 of 2 clients finished it",
    ]
    assert len(events.all("tr")) == 9


def test_curves_are_described_for_who_does_not_see_them(tmp_path: Path) -> None:
    """Each chart has its sentence, with the figures of its first, last and kept round, and a mark there."""
    root = parsed(faulty(tmp_path / "run"))
    accuracy, loss = (each for each in root.all("svg") if each.attributes.get("role") == "img")
    assert accuracy.attributes["aria-label"] == (
        "Accuracy on the test images: 0.9200 after the first round, 0.9867 after the last of 6, 0.9840 after round 5,"
        " whose model is kept."
    )
    assert len(accuracy.all("circle", class_="kept")) == len(loss.all("circle", class_="kept")) == 1
    assert len(accuracy.all("path", class_="void")) == len(accuracy.all("line", class_="resumed")) == 1


def test_who_held_what_is_a_table(tmp_path: Path) -> None:
    """A row a client, a column a class, the darkest cell the largest; a seat that nobody holds is told as such."""
    seats = [Seat(100, 10, (25, 75)), Seat(50, 5, (50, 0)), Seat(8, 2, (4, 4))]
    rows = [row(1, "client_0", size=3, seat=1), row(1, "client_1", size=3, seat=0)]
    folder = made.write(
        tmp_path / "run", history=[made.round_(1, size=3)], rows=rows, seats=seats, classes=("cat", "dog")
    )
    table = parsed(folder).all("table", class_="heat")[0]
    assert [[cell.text for cell in [*line.all("th"), *line.all("td")]] for line in table.all("tr")] == [
        ["Client", "cat", "dog", "In all", "Validation"],
        ["client_1", "25", "75", "100", "10"],
        ["client_0", "50", "0", "50", "5"],
        ["seat 2", "4", "4", "8", "2"],
    ]
    assert [cell.attributes.get("style") for cell in table.all("td")][:2] == ["--v:0.33", "--v:1.00"]


def test_what_it_gets_wrong_is_shown(tmp_path: Path) -> None:
    """The matrix, what is mistaken most, and the worst mistakes as pictures with what they are and are taken for."""
    names = ("cat", "dog")
    folder = made.write(tmp_path / "run", classes=names)
    root = parsed(folder)
    matrix = root.all("table", class_="heat")[1]
    assert [[cell.text for cell in line.all("td")] for line in matrix.all("tr")[1:]] == [["49", "4"], ["0", "49"]]
    assert "Most often: cat taken for dog (4 ×)." in root.text  # noqa: RUF001
    (gallery,) = root.all("ul", class_="mistakes")
    first = gallery.all("li")[0]
    assert first.text == "cat → dog 80.0 % image 0"
    (picture,) = first.all("img")
    assert picture.attributes["alt"] == "Test image 0: cat, taken for dog"
    source = picture.attributes["src"] or ""
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_more_classes_than_a_table_bears_are_a_picture(tmp_path: Path) -> None:
    """Of hundreds of classes the matrix and the deal are shown as pictures, which the page holds."""
    classes = [f"class {number}" for number in range(40)]
    root = parsed(made.write(tmp_path / "run", classes=classes), {"confusion.png": b"one", "distribution.png": b"two"})
    assert root.all("table", class_="heat") == []
    sources = [each.attributes["src"] for each in root.all("img", class_="picture")]
    assert sources == [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in (b"two", b"one")]


def test_privacy_is_told_where_there_is_any(tmp_path: Path) -> None:
    """What was spent, of how much, round by round and for each client; without privacy there is no word of it."""
    privacy = {"kind": "sample", "epsilon": 3.0, "epsilon_spent": 2.5, "delta": 1e-5, "noise_multiplier": 0.75}
    folder = made.write(
        tmp_path / "run",
        history=[made.round_(1, epsilon=1.5), made.round_(2, epsilon=2.5)],
        rows=[row(1, "client_0", epsilon=1.25), row(2, "client_0", epsilon=2.25)],
        privacy=privacy,
    )
    root = parsed(folder)
    assert tiles(root)["Privacy spent"] == "ε 2.50 of 3, at δ 1e-05"
    (section,) = root.all("section", id="privacy")
    assert section.all("p")[0].text == (
        "DP-SGD on each client hides any one training image: epsilon 2.50 was spent, of 3 at most, at delta 1e-05, with"
        " noise of 0.75 clipping norms."
    )
    assert section.all("svg")[0].attributes["aria-label"] == "Epsilon spent after 2 rounds: 2.50 of 3."
    assert len(section.all("line", class_="level")) == 1
    assert "2.25" in root.all("section", id="clients")[0].all("table")[0].text
    central = parsed(made.write(tmp_path / "central", privacy=privacy | {"kind": "central", "noise_multiplier": None}))
    assert "Noise on the average hides any one client: epsilon" in central.text
    assert "psilon" not in parsed(made.write(tmp_path / "plain")).text.split("The experiment, as it was run")[0]


def test_metrics_of_all_clients_are_a_table(tmp_path: Path) -> None:
    """Each metric has its value in the round whose model is kept, and the last; single clients' stay in the file."""
    measures = [Measure(1, "all", "mse.mse", 0.5), Measure(2, "all", "mse.mse", 0.25), Measure(2, "c", "mse.mse", 9.0)]
    (section,) = parsed(made.write(tmp_path / "run", measures=measures, model_round=1)).all("section", id="metrics")
    lines = [[cell.text for cell in [*line.all("th"), *line.all("td")]] for line in section.all("tr")]
    assert lines == [["Metric", "Round 1, kept", "Last told"], ["mse.mse", "0.5000", "0.2500"]]


def test_where_the_time_went_sums_up(tmp_path: Path) -> None:
    """Training, evaluation, the rest of rounds and what is around them are the run's wall time."""
    (section,) = parsed(made.write(tmp_path / "run")).all("section", id="time")
    assert [[cell.text for cell in line.all("td")] for line in section.all("tr")[1:]] == [
        ["12 s", "15.9 %"],
        ["6.0 s", "8.0 %"],
        ["2.0 s", "2.7 %"],
        ["55 s", "73.4 %"],
    ]


def test_it_says_how_to_run_it_again(tmp_path: Path) -> None:
    """Commands with the clients it was begun with, the plan itself, digests of data and model, and versions."""
    folder = made.write(tmp_path / "run", model_sha256="e" * 64)
    (section,) = parsed(folder).all("section", id="again")
    compose, demo, plan = (each.text for each in section.all("pre"))
    assert compose == "CLIENTS=3 EXPERIMENT=results/20260102-030405/experiment.yml docker compose up"
    assert demo == "fed demo --clients 3 --experiment results/20260102-030405/experiment.yml"
    assert plan == " ".join((folder / "experiment.yml").read_text(encoding="utf-8").split())
    digests, versions = section.all("table")
    assert digests.all("tr")[1].all("td")[0].text == "d" * 64
    assert "model.py" in digests.text
    assert "model.keras , 7 bytes" in digests.text
    assert [line.text for line in versions.all("tr")[1:]] == ["fed 0.1.0", "numpy 2.0.0"]
    own = parsed(made.write(tmp_path / "own", dataset="own")).all("section", id="again")[0]
    assert own.all("pre")[0].text.startswith("DATA=<folder of the data> CLIENTS=3 ")


def test_a_run_without_a_round_says_what_it_came_to(tmp_path: Path) -> None:
    """No model, the reason, who came, and how to begin anew; nothing that there is nothing to show of."""
    events = [event(0, "joined", "client_0"), event(0, "lost", "client_0", "connection lost")]
    folder = made.write(
        tmp_path / "run",
        history=(),
        events=events,
        status="stopped",
        reason="1 of 3 clients joined within 300 s; wanted 3 clients",
        test_accuracy=None,
        test_loss=None,
        model_round=None,
    )
    root = parsed(folder)
    assert root.all("h1")[0].text == "No model was learned"
    assert "It was stopped after 0 of 2 rounds: 1 of 3 clients joined within 300 s; wanted 3 clients." in root.text
    assert {each.attributes["id"] for each in root.all("section")} == {"clients", "events", "again"}
    assert tiles(root)["Clients"] == "2 waited for"


NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title></svg><iframe src=//x.example>",
    "javascript:alert(1)",
    "&lt;b&gt; &amp; \0\x1b[31m",
    "\u202egnp.exe",
]


def hostile(folder: Path) -> Path:
    """Write a run in which every text is an attack."""
    rows = [row(1, name, "trained" if number % 2 else name, name) for number, name in enumerate(NASTY)]
    rows.append(row(1, "seated", size=2, seat=0, state="trained"))
    events = [event(1, name, name, name) for name in NASTY] + [event(1, "void", name, name) for name in NASTY]
    return made.write(
        folder,
        history=[made.round_(1)],
        rows=rows,
        events=[*events, event(1, "dealt", "", NASTY[0]), event(1, "dealt", "", NASTY[0])],
        measures=[Measure(1, "all", name, 1.0) for name in NASTY],
        classes=NASTY,
        status=NASTY[0],
        reason=NASTY[1],
        scheme=NASTY[2],
        dataset=NASTY[3],
        run_id=NASTY[4],
        versions=dict.fromkeys(NASTY, NASTY[0]),
        experiment={"deterministic": False},
    )


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    """Names, reasons, classes and keys that are attacks stand as text: no element and no attribute comes of them."""
    folder = hostile(tmp_path / "run")
    (folder / "experiment.yml").write_text("\n".join(NASTY).replace("\0", ""), encoding="utf-8")
    root = parsed(folder)
    sound = parsed(made.write(tmp_path / "sound", measures=[Measure(1, "all", "m", 1.0)], classes=NASTY[:2]))
    usual = [each for page_ in (sound, parsed(faulty(tmp_path / "faulty"))) for each in page_]
    assert {each.name for each in root} <= {each.name for each in usual}
    assert {key for each in root for key in each.attributes} <= {key for each in usual for key in each.attributes}
    for each in root:
        assert re.fullmatch(r"[-\w:.;%(), ]*", each.attributes.get("style") or "")
    text = root.text
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}{% raw %}" in text
    assert not set(text_of(folder)) & {"\0", "\x1b", "\u202e"}


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    """No address but of parts of the page and pictures in it, no script, no import, and a policy that forbids them."""
    for folder in (faulty(tmp_path / "faulty"), hostile(tmp_path / "hostile")):
        text = text_of(folder)
        root = Page(text).root
        for each in root:
            for key in ("href", "src", "srcset", "action", "data", "xlink:href", "poster", "background"):
                address = each.attributes.get(key)
                assert address is None or address.startswith(("#", "data:image/png;base64,")), address
        ids = [each.attributes["id"] for each in root if "id" in each.attributes]
        assert len(ids) == len(set(ids))
        assert {(each.attributes["href"] or "")[1:] for each in root.all("a")} <= set(ids)
        assert not {each.name for each in root} & {"script", "link", "iframe", "object", "embed", "base", "form"}
        (style,) = root.all("style")
        assert not re.search(r"@import|url\(|expression|https?:", style.text)
        policy = next(each for each in root.all("meta") if each.attributes.get("http-equiv"))
        assert policy.attributes["content"] == (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        )


def test_it_can_be_read_by_ear_and_by_keyboard(tmp_path: Path) -> None:
    """It has a language and a title, headings that skip no level, alternatives of pictures, heads in tables; what
    scrolls can be reached and has a name.
    """
    root = parsed(faulty(tmp_path / "run"))
    assert root.all("html")[0].attributes["lang"] == "en"
    assert root.all("title")[0].text == "Run 20260102-030405: stopped"
    levels = [int(each.name[1]) for each in root if re.fullmatch(r"h\d", each.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(each.attributes.get("alt") for each in root.all("img"))
    for table in root.all("table"):
        assert all(each.attributes.get("scope") in {"col", "row"} for each in table.all("th"))
        assert table.all("thead")[0].all("th")
    for each in root:
        if each.attributes.get("tabindex") == "0" and each.name == "div":
            assert each.attributes["role"] == "region"
            assert each.attributes["aria-label"]
    hidden = {id(inner) for each in root if each.attributes.get("aria-hidden") == "true" for inner in (each, *each)}
    for svg in root.all("svg"):
        assert id(svg) in hidden or svg.attributes.get("aria-label")
    assert [each.attributes["aria-labelledby"] for each in root.all("section")] == [
        each.attributes["id"] for each in root.all("h2")
    ]


def test_a_large_run_stays_small_and_legible(tmp_path: Path) -> None:
    """40 clients in 300 rounds full of trouble, with reasons of a usual length, are less than 3 MB."""
    reason = "no reply within 600 s, and its connection was lost"
    states = ("trained", "trained", "idle", "late", "gone", "trained", "error", "refused")
    names = [f"client_{number}" for number in range(40)]
    rows = [
        row(number, name, states[(number * 7 + place * 5) % 8], reason, size=40, seat=place)
        for number in range(1, 301)
        for place, name in enumerate(names)
        if (number + place) % 50
    ]
    trouble = [each for each in rows if each.state not in ("trained", "idle")]
    events = [
        event(each.round, what, each.client, reason) for each in trouble for what in ("dropped", "lost", "returned")
    ]
    folder = made.write(
        tmp_path / "run",
        history=[made.round_(number, size=40) for number in range(1, 301)],
        rows=rows,
        events=events,
        seats=[Seat(1500, 100, (150,) * 10)] * 40,
        mistakes=24,
        rounds_planned=300,
    )
    text = text_of(folder)
    assert len(text.encode()) < 3_000_000
    root = Page(text).root
    (pane,) = root.all("div", class_="timeline")
    assert "--rows:40;--columns:300;--least:5px" in (pane.attributes["style"] or "")
    assert [each.text for each in pane.all("span", class_="tick")] == ["1", *map(str, range(50, 301, 50))]
    (events_,) = root.all("table", class_="events")
    assert len(events_.all("tr")) == page.MOST_ROWS + 2
    assert f"{len(events) - page.MOST_ROWS:,} more rows: see events.csv" in events_.text


def test_more_rounds_than_fit_share_a_column(tmp_path: Path) -> None:
    """Thousands of rounds of many clients are drawn in columns of several, and the page says so."""
    rows = [row(number, f"client_{place}") for number in range(1, 2001) for place in range(25)]
    history = [made.round_(number) for number in range(1, 2001)]
    root = parsed(made.write(tmp_path / "run", history=history, rows=rows, rounds_planned=2000))
    (pane,) = root.all("div", class_="timeline")
    assert "--columns:1000" in (pane.attributes["style"] or "")
    assert "2 rounds a column, each client as it was in the worst of them, a row a client." in root.text
    assert [each.text for each in pane.all("span", class_="tick")][:3] == ["1", "199", "399"]


def test_a_long_text_of_a_stranger_is_cut() -> None:
    """What a client may choose fills no page."""
    assert page.told("x" * 1000) == "x" * 299 + "…"
    found: Any = page.told(None)
    assert found == "None"
