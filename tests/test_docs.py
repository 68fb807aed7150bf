"""What the pages in docs/ promise is what the code does; exit codes are held in test_errors.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from services import cli, distribution, settings, tables
from services.experiment import Plan
from services.experiment.contradictions import CONTRADICTION
from services.experiment.methods import CriterionPlugin, FairnessPlugin, MetricPlugin, SamplerPlugin
from services.experiment.model import SklearnModel
from services.experiment.plugins import AGGREGATORS, MODULES, REGULARIZERS, SCHEDULERS, Plugin
from services.experiment.privacy import Privacy
from services.report import findings, page
from services.report import main as report
from services.runs import PLAN, SUMMARY
from services.server import checkpoint, metrics, tensorboard
from services.server.engines.sklearn import SklearnEngine
from services.server.engines.tensorflow import TensorflowEngine
from services.server.main import Run
from services.server.results import LOCK, MODEL_SOURCE
from services.server.status import StatusServer
from services.server.view import View
from services.tables import CLIENT_COLUMNS, EVENT_COLUMNS, HISTORY_COLUMNS
from tests.server.test_model import COUNTS
from tests.support import REPOSITORY

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
OPERATING = (REPOSITORY / "docs" / "operating.md").read_text(encoding="utf-8")
METHODS = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")
EXTENDING = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """Give what stands below the heading `title`, up to the next one of its level."""
    return re.split(rf"^## {re.escape(title)}$", text, flags=re.MULTILINE)[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """List the cells of each row of the tables in `text`, but for the heads."""
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    heads = [number for number, cells in enumerate(found) if set(cells[0]) <= set("- |")]
    return [cells for number, cells in enumerate(found) if number not in heads and number + 1 not in heads]


def words(text: str) -> list[str]:
    """List what stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def env_file() -> dict[str, str]:
    """Read the keys of .env with their values."""
    lines = (REPOSITORY / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# -- .env -------------------------------------------------------------------------------------------------------------


def test_every_key_of_env_is_documented() -> None:
    """The first table of settings has a row for each key of .env, in its order, with its default."""
    table = [[words(cell) for cell in cells[:2]] for cells in rows(section(OPERATING, "Settings"))]
    documented = {key: (default or [""])[0] for (key,), default in table}
    keys = env_file()
    assert dict(list(documented.items())[: len(keys)]) == keys
    assert list(documented)[: len(keys)] == list(keys)


def test_every_key_of_env_is_explained_where_it_stands() -> None:
    """In .env itself each key, or a group of keys, has a comment above it."""
    text = (REPOSITORY / ".env").read_text(encoding="utf-8")
    assert all(block.startswith("# ") for block in text.split("\n\n"))


def known_keys() -> tuple[set[str], set[str]]:
    """Give the variables that services/settings.py reads, and those that docker-compose.yml does."""
    read = set(re.findall(r'\(env, "([A-Z_]+)"', inspect.getsource(settings)))
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    return read, set(re.findall(r"\$\{([A-Z_]+)", compose))


def test_every_documented_key_is_read() -> None:
    """Each key of .env is read by docker-compose.yml, and each other documented one by it or by the settings."""
    read, compose = known_keys()
    documented = [words(cells[0])[0] for cells in rows(section(OPERATING, "Settings"))]
    assert set(env_file()) <= compose
    assert set(documented) <= read | compose
    assert len(documented) == len(set(documented))


def test_every_key_that_is_read_is_documented() -> None:
    """No variable is read of which nobody is told; SSL_CERT_FILE is the system's own."""
    read, compose = known_keys()
    documented = {words(cells[0])[0] for cells in rows(section(OPERATING, "Settings"))}
    assert (read | compose) - documented == {"SSL_CERT_FILE"}


def test_compose_and_settings_agree_on_defaults() -> None:
    """Where .env says nothing, docker-compose.yml falls back on the value that .env has, wherever it is read."""
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    keys = env_file()
    assert {(key, default) for key, default in re.findall(r"\$\{([A-Z_]+):-([^${}]*)\}", compose) if key in keys} == {
        (key, value) for key, value in keys.items()
    }


# -- results and status -----------------------------------------------------------------------------------------------


def test_every_column_is_documented() -> None:
    """Each column of history.csv has its row, in order, and each of clients.csv and events.csv its mention."""
    text = section(OPERATING, "Results")
    history, rest = text.split("`history.csv`:")[1].split("`clients.csv` has")
    clients, events = rest.split("`events.csv` has")
    assert [column for cells in rows(history) for column in words(cells[0])] == list(HISTORY_COLUMNS)
    assert set(words(clients)) == {*CLIENT_COLUMNS, "trained", "idle", "gone", "late", "error", "refused"}
    names = ("attendance.py", "boundary.py", "federation.py", "privacy.py")
    rooms = [REPOSITORY / "services" / "server" / name for name in names]
    source = "".join(room.read_text(encoding="utf-8") for room in rooms)
    told = set(
        re.findall(r'"(joined|returned|left|lost|forgotten|refused|standby|dealt|dropped|void|unagreed|spent)"', source)
    )
    assert set(words(events)) == {*EVENT_COLUMNS, *told, "resumed"}


def test_every_fact_of_the_summary_is_documented() -> None:
    """Each fact that the server writes into summary.json is named, and none that it does not write."""
    text = section(OPERATING, "Results").split("`summary.json`:")[1].split("\n\n")[0]
    written = set(re.findall(r'^ +"(\w+)":', inspect.getsource(Run._write_summary), re.MULTILINE))
    states = {"running", "completed", "stopped", "failed"}
    assert set(words(text)) - {"model.keras", "model.module", "null"} == written | states


def test_every_file_of_a_run_is_documented() -> None:
    """Each file that the server writes has a row, and no other has one."""
    folder = REPOSITORY / "services" / "server"
    source = "".join((folder / name).read_text(encoding="utf-8") for name in ("main.py", "results.py"))
    written = set(re.findall(r'(?:write\(|/ )"(\w+\.\w+)"', source))
    table = section(OPERATING, "Results").split("`summary.json`:")[0]
    told = {SUMMARY, PLAN, tables.HISTORY, tables.CLIENTS, tables.MEASURES, tables.EVENTS}
    models = {TensorflowEngine.file, SklearnEngine.file}
    found = {findings.CONFUSION, findings.MISTAKES, distribution.TABLE}
    shown = {page.FILE, report.CURVES, report.CLIENTS, report.CONFUSION, report.MISTAKES, report.PRIVACY}
    named = {
        str(checkpoint.FILE),
        str(checkpoint.LEDGER),
        LOCK,
        MODEL_SOURCE,
        distribution.FILE,
        f"{tensorboard.FOLDER}/",
    }
    documented = [word for cells in rows(table) for word in words(cells[0])]
    assert sorted(documented) == sorted(written | told | models | found | shown | named)


def test_every_path_of_the_status_page_is_documented() -> None:
    """Each path that is served has a row, and each fact of the state is named."""
    table = {words(cells[0])[0]: cells[1] for cells in rows(section(OPERATING, "Status"))}
    assert set(table) == set(re.findall(r'Route\("([^"]+)"', inspect.getsource(StatusServer)))


def test_every_metric_and_every_alert_is_documented() -> None:
    """Each metric that is told has a row, and each alert of the example what to do about it."""
    table = [name for cells in rows(section(OPERATING, "Metrics")) for name in words(cells[0])]
    source = inspect.getsource(metrics)
    counters = {f"{name}_total" for name in re.findall(r'CounterMetricFamily\(\s*"(\w+)"', source)}
    gauges = set(re.findall(r'(?:_gauge|_states)\(\s*"(\w+)"', source))
    others = {"fed_run_info", "fed_loss", "fed_accuracy"}
    alerts = re.findall(r"alert: (\w+)", (REPOSITORY / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    assert set(table) == counters | gauges | others | set(alerts)


def test_every_fact_of_the_state_is_documented() -> None:
    """Each key of `/status`, and of what it tells of a client, has a row, in the order in which they come."""
    table = [words(cells[0])[0] for cells in rows(section(OPERATING, "State"))]
    told = re.findall(r'^ {12}"(\w+)":', inspect.getsource(View.snapshot), re.MULTILINE)
    client = re.findall(r'^ {12}"(\w+)":', inspect.getsource(View._client), re.MULTILINE)
    client += re.findall(r'^ {12}"(\w+)":', inspect.getsource(View._figures), re.MULTILINE)
    assert table == [*told, *(f"clients.*.{key}" for key in client)]


# -- experiments ------------------------------------------------------------------------------------------------------


def keys(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key of an experiment file with its default; a plug-in counts as one."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel) and not isinstance(value, Plugin):
            yield from keys(value, f"{prefix}{name}.")
        elif isinstance(value, Plugin):
            yield prefix + name, value.name
        elif isinstance(value, tuple):
            yield prefix + name, [plugin.name for plugin in value]
        else:
            yield prefix + name, value


def test_every_key_of_an_experiment_is_documented() -> None:
    """The table has a row for each key, in the order in which `fed check` prints them, with its default."""
    table = [cells for cells in rows(section(EXTENDING, "An experiment file")) if len(cells) == 4]
    documented = [(words(cells[0])[0], yaml.safe_load(words(cells[2])[0])) for cells in table]
    assert documented == list(keys(Plan()))


def test_every_choice_is_documented() -> None:
    """Where a key takes one of several names, its row lists them all; so does the page for plug-ins."""
    schema = Plan.model_json_schema()
    ranges = {words(cells[0])[0]: words(cells[1]) for cells in rows(section(EXTENDING, "An experiment file"))}
    sections = schema["$defs"]
    assert ranges["data.scheme"] == sections["Data"]["properties"]["scheme"]["enum"]
    assert ranges["data.dataset"] == sections["Data"]["properties"]["dataset"]["enum"]
    assert ranges["model.preset"] == sections["Model"]["properties"]["preset"]["anyOf"][0]["enum"]
    lists = section(EXTENDING, "Plug-ins").split("```")[2]
    titles = ("Aggregators", "Aggregator"), ("Regularizers", "Regularizer"), ("Modules", "Module")
    for title, kind in (*titles, ("Schedulers", "Scheduler")):
        line = lists.split(f"- {title}:")[1].split("\n- ")[0].split("\n\n")[0]
        assert words(line) == sections[f"{kind}Plugin"]["properties"]["name"]["enum"]


def test_every_parameter_of_a_plug_in_is_documented() -> None:
    """Each plug-in with parameters has them in the table, with their defaults."""
    documented = {
        name: [yaml.safe_load(word) for word in words(parameters)]
        for names, parameters in rows(section(EXTENDING, "Plug-ins"))
        for name in words(names)
    }
    tables = {**AGGREGATORS, **MODULES, **REGULARIZERS, **SCHEDULERS}
    assert documented == {
        name: [key if field.is_required() else {key: field.default} for key, field in parameters.model_fields.items()]
        for name, parameters in tables.items()
        if parameters.model_fields
    }


def test_every_preset_is_described() -> None:
    """The table of presets has a row for each, with the number of parameters that tests hold it to."""
    table = section(EXTENDING, "Models").split("**scikit-learn**")[0]
    assert {words(cells[0])[0]: int(cells[1].replace(",", "")) for cells in rows(table)} == COUNTS


def test_every_parameter_of_a_linear_model_is_described() -> None:
    """The table of linear models has a row for each key, with its choices and its default."""
    table = rows(section(EXTENDING, "Models").split("**scikit-learn**")[1])
    fields = SklearnModel.model_fields
    assert {words(cells[0])[0]: yaml.safe_load(words(cells[2])[0]) for cells in table} == {
        name: field.default for name, field in fields.items()
    }
    ranges = {words(cells[0])[0]: words(cells[1]) for cells in table}
    assert ranges["loss"] == list(get_args(fields["loss"].annotation))
    assert ranges["penalty"] == list(get_args(fields["penalty"].annotation))


OPTIONAL = {"train.steps": int, "early_stop.patience": int, "robust.max_update_norm": float}
"""Numbers that are null by default, and what they are."""


def test_every_key_of_privacy_is_documented() -> None:
    """The page on privacy has a row for each key of its section, in order, with its choices, bounds and default."""
    page = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf-8")
    properties = Privacy.model_json_schema()["properties"]
    table = rows(section(page, "Keys"))
    assert [words(cells[0])[0] for cells in table] == list(properties)
    for cells, schema in zip(table, properties.values(), strict=True):
        default = yaml.safe_load(words(cells[2])[0]) if words(cells[2]) else None
        assert (default if default is None or isinstance(default, str) else float(default)) == schema.get("default")
        assert words(cells[1]) == schema.get("enum", [])
        for sign, bound in re.findall(r"([><]) (\d+)", cells[1]):
            step = 1e-3 if sign == ">" else -1e-3
            needed = {"epsilon": 1.0, "max_grad_norm": 1.0}
            assert accepts("privacy", needed | {words(cells[0])[0]: int(bound) + step})
            assert not accepts("privacy", needed | {words(cells[0])[0]: int(bound)})
    Plan.model_validate(yaml.safe_load(page.split("```yaml")[1].split("```")[0]))


def accepts(key: str, value: Any) -> bool:
    """Tell whether an experiment file may set `key` to `value`, if need be with another key beside it."""
    content: Any = value
    for part in reversed(key.split(".")):
        content = {part: content}
    try:
        Plan.model_validate(content)
    except ValidationError as exc:
        return exc.errors()[0]["type"] == CONTRADICTION
    return True


def test_ranges_are_those_of_the_schema() -> None:
    """A bound that a row states is the one that the schema holds, and each number has at least one."""
    ranges = {words(cells[0])[0]: cells[1] for cells in rows(section(EXTENDING, "An experiment file"))}
    assert ranges.pop("seed").startswith("0 … 2³²")
    assert accepts("seed", 0)
    assert not accepts("seed", -1)
    assert accepts("seed", 2**32 - 1)
    assert not accepts("seed", 2**32)
    for key, value in keys(Plan()):
        bounds = re.findall(r"([≥><]) ([\d.]*\d)", ranges.get(key, ""))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        assert bool(bounds) == (number or key in OPTIONAL) or key in {"seed", "early_stop.tolerance"}, key
        whole = isinstance(value, int) or OPTIONAL.get(key) is int
        for sign, text in bounds:
            bound, step = (int(text), 1) if whole else (float(text), 0.001)
            below, above = bound - step, bound + step
            inside, outside = {"≥": (bound, below), ">": (above, bound), "<": (below, bound)}[sign]
            assert accepts(key, inside), key
            assert not accepts(key, outside), key


@pytest.mark.parametrize("title", ["Plug-ins", "Schedules"])
def test_the_examples_of_a_plan_load(title: str) -> None:
    """The YAML in the page is a plan."""
    Plan.model_validate(yaml.safe_load(section(EXTENDING, title).split("```yaml")[1].split("```")[0]))


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("A draw of clients", [SamplerPlugin, CriterionPlugin]),
        ("Metrics", [MetricPlugin]),
        ("Fairness", [FairnessPlugin]),
    ],
)
def test_every_method_is_documented(title: str, kinds: list[type[Plugin]]) -> None:
    """Each plug-in has its row with its parameters and their defaults, and the YAML in the page is a plan."""
    text = section(METHODS, title)
    documented = [(words(cells[0])[0], [yaml.safe_load(word) for word in words(cells[1])]) for cells in rows(text)]
    assert sorted(documented, key=str) == sorted(
        [
            (
                name,
                [
                    key if field.is_required() else {key: field.default}
                    for key, field in parameters.model_fields.items()
                ],
            )
            for kind in kinds
            for name, parameters in kind.table.items()
        ],
        key=str,
    )


@pytest.mark.parametrize("title", re.findall(r"^## (.*)$", METHODS, re.MULTILINE))
def test_the_example_of_a_method_loads(title: str) -> None:
    """The YAML of each section of the page is a plan."""
    Plan.model_validate(yaml.safe_load(section(METHODS, title).split("```yaml")[1].split("```")[0]))


# -- words and links --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link inside the repository leads to a file, and each fragment to a heading of it."""
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        page = path.parent / name if name else path
        assert page.exists(), target
        headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not fragment or fragment in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_paths_and_commands_are_there(path: Path) -> None:
    """Each file of the repository that a page names is there, and each `fed` command is one."""
    text = path.read_text(encoding="utf-8")
    commands = cli._parser()._subparsers
    assert commands is not None
    known = set(next(iter(commands._group_actions)).choices or ())
    for word in words(text):
        if found := re.match(r"((?:script|services|tests|experiments|docs)/[\w./-]+)", word):
            assert (REPOSITORY / found[1]).exists(), word
        if found := re.match(r"fed ([a-z]+)", word):
            assert found[1] in known, word
