"""Values in place of a file's: what they may be, which of them counts, and whose a mistake is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services import cli, experiment
from services.errors import ExperimentError
from services.experiment import Plan
from services.experiment.overrides import Override, read, split
from tests.experiment.test_files import KEYS, SCHEMES
from tests.support import logging_kept


def load(tmp_path: Path, text: str, *assignments: str) -> Plan:
    """Load `text` as the file `e.yml`, with each of these as `--set`."""
    path = tmp_path / "e.yml"
    path.write_text(text)
    return experiment.load(path, [read(assignment, "--set") for assignment in assignments])


def refusal(tmp_path: Path, text: str, *assignments: str) -> str:
    """Load as above, which must fail, and give the line without the folder's name."""
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, text, *assignments)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("text", "assignment", "content"),
    [
        ("", "rounds=3", {"rounds": 3}),
        ("rounds: 2", " rounds = 3", {"rounds": 3}),
        ("", "optimizer.client.lrate=1e-3", {"optimizer": {"client": {"lrate": 0.001}}}),
        ("train: {steps: 5}", "train.steps=null", {}),
        ("train: {steps: 5}", "train.steps=", {}),
        ("", "optimizer.client.modules=[]", {"optimizer": {"client": {"modules": []}}}),
        (
            "optimizer: {client: {modules: [ewma, adam], lrate: 1}}",
            "optimizer.client.modules=[momentum: {beta: 0.5}]",
            {"optimizer": {"client": {"modules": [{"momentum": {"beta": 0.5}}], "lrate": 1}}},
        ),
        ("data: {seed: 1}", "data={scheme: labels}", {"data": {"scheme": "labels"}}),
        ("model: cnn-strided", "model.preset=cnn", {"model": "cnn"}),
        ("model: cnn-strided", "model=cnn", {"model": "cnn"}),
        ("model: cnn-strided", "model.module=my_model.py:build", {"model": {"module": "my_model.py:build"}}),
        ("model: {module: 'my_model.py:build'}", "model.preset=cnn", {"model": "cnn"}),
        (
            "aggregator: {averaging: }",
            "aggregator.parameters.steps_weighted=false",
            {"aggregator": {"averaging": {"steps_weighted": False}}},
        ),
        (
            "",
            "aggregator={averaging: {steps_weighted: false}}",
            {"aggregator": {"averaging": {"steps_weighted": False}}},
        ),
        ("secagg: masking", "secagg=null", {}),
        (
            "optimizer: {client: {lrate: {linear-decay: {base: 1, rate: 0.1}}}}",
            "optimizer.client.lrate.parameters.rate=0.5",
            {"optimizer": {"client": {"lrate": {"linear-decay": {"base": 1, "rate": 0.5}}}}},
        ),
        ("data: {scheme: dirichlet, alpha: 0.1}", "data.scheme=iid", {}),
        (
            "data: {scheme: dirichlet, alpha: 0.1}",
            "data.scheme=dirichlet",
            {"data": {"scheme": "dirichlet", "alpha": 0.1}},
        ),
    ],
)
def test_a_value_stands_in_place_of_the_files(
    tmp_path: Path, text: str, assignment: str, content: dict[str, Any]
) -> None:
    """A value is read as YAML and replaces what the file has at that key, or adds to it; the rest stays."""
    assert load(tmp_path, text, assignment) == Plan.model_validate(content)


def test_of_several_the_last_counts(tmp_path: Path) -> None:
    """Values given later replace those given before, and those below them."""
    assert load(tmp_path, "", "rounds=3", "rounds=4").rounds == 4
    plan = load(tmp_path, "", "data.scheme=dirichlet", "data.alpha=2", "data.scheme=dirichlet")
    assert plan.data.alpha == 2
    assert load(tmp_path, "", "data={scheme: shards}", "data.classes_per_client=3").data.classes_per_client == 3


@pytest.mark.parametrize(
    ("text", "assignment", "line"),
    [
        ("", "rounds", "--set rounds; wanted KEY=VALUE, as in optimizer.client.lrate=0.01; correct --set"),
        ("", "=3", "--set =3; wanted KEY=VALUE, as in optimizer.client.lrate=0.01; correct --set"),
        ("", "data..seed=3", "--set data..seed=3; wanted KEY=VALUE, as in optimizer.client.lrate=0.01; correct --set"),
        (
            "",
            "rounds=[1",
            "--set rounds=[1: expected ',' or ']', but got '<stream end>'; wanted a value in YAML; correct --set",
        ),
        ("rounds: 2", "rounds=0", "--set rounds=0: rounds is 0; wanted at least 1; correct rounds"),
        (
            "data: {scheme: iid}",
            "data.scheme=iidd",
            f"--set data.scheme=iidd: data.scheme is 'iidd'; wanted {SCHEMES}; did you mean 'iid'?",
        ),
        ("", "dat.scheme=iid", f"--set dat.scheme=iid: unknown key 'dat'; wanted one of {KEYS}; did you mean 'data'?"),
        (
            "train: {epochs: 2}",
            "train.epoch=3",
            (
                "--set train.epoch=3: unknown key 'epoch' in train; wanted one of batch_size, epochs, steps, shuffle;"
                " did you mean 'epochs'?"
            ),
        ),
        (
            "",
            "optimizer.client.modules=[adam, momentum: {betta: 1}]",
            (
                "--set optimizer.client.modules=[adam, momentum: {betta: 1}]: unknown key 'betta' in"
                " optimizer.client.modules.1.momentum; wanted one of beta, nesterov; did you mean 'beta'?"
            ),
        ),
        (
            "aggregator: gradient-masked-averaging",
            "aggregator.parameters.threshold=2",
            (
                "--set aggregator.parameters.threshold=2: aggregator.gradient-masked-averaging.threshold is 2;"
                " wanted at most 1; correct aggregator.gradient-masked-averaging.threshold"
            ),
        ),
        ("", "rounds.x=3", "--set rounds.x=3: rounds is a mapping; wanted a whole number; correct rounds"),
        (
            "rounds: 2",
            "rounds.x=3",
            "--set rounds.x=3: rounds has no keys; wanted rounds as a whole; set rounds itself",
        ),
        (
            "optimizer: {client: {modules: [adam]}}",
            "optimizer.client.modules.0.name=yogi",
            (
                "--set optimizer.client.modules.0.name=yogi: optimizer.client.modules has no keys;"
                " wanted optimizer.client.modules as a whole; set optimizer.client.modules itself"
            ),
        ),
        (
            "optimizer: {client: {lrate: 0.1}}",
            "optimizer.client.lrate.parameters.base=0.2",
            (
                "--set optimizer.client.lrate.parameters.base=0.2: optimizer.client.lrate has no keys;"
                " wanted optimizer.client.lrate as a whole; set optimizer.client.lrate itself"
            ),
        ),
        (
            "",
            "optimizer.client.lrate=linear-decay",
            "--set optimizer.client.lrate=linear-decay: optimizer.client.lrate.linear-decay.base is missing; add base",
        ),
        (
            "secagg: masking",
            "deterministic=true",
            (
                "e.yml with --set deterministic=true: secagg and deterministic contradict each other: the clients'"
                " optimizer states, which a deterministic run keeps on the server, tell what secure aggregation hides;"
                " leave out one of them"
            ),
        ),
        (
            "",
            "data.alpha=3",
            (
                "e.yml with --set data.alpha=3: data.alpha counts with scheme dirichlet alone, and data.scheme is iid;"
                " leave out data.alpha, or set data.scheme to dirichlet"
            ),
        ),
    ],
)
def test_a_mistake_in_an_override_names_the_override(tmp_path: Path, text: str, assignment: str, line: str) -> None:
    """A wrong value, key or contradiction that an override brings is told as its own, with the nearest known key."""
    assert refusal(tmp_path, text, assignment) == line


@pytest.mark.parametrize(
    ("text", "assignment", "line"),
    [
        (
            "rounds: 0",
            "train.epochs=2",
            "e.yml: rounds is 0; wanted at least 1; correct rounds",
        ),
        (
            "train: 3",
            "train.epochs=2",
            "e.yml: train is 3; wanted a mapping of batch_size, epochs, steps, shuffle; correct train",
        ),
        ("a: 1\na: 2", "rounds=2", "e.yml, line 2: key 'a' stands twice; wanted well-formed YAML; mend that line"),
    ],
)
def test_a_mistake_of_the_file_is_told_as_the_files(tmp_path: Path, text: str, assignment: str, line: str) -> None:
    """What an override has nothing to do with names the file."""
    assert refusal(tmp_path, text, assignment) == line


def test_a_value_that_is_replaced_may_be_wrong(tmp_path: Path) -> None:
    """A wrong value in the file that an override takes the place of is no mistake."""
    assert load(tmp_path, "rounds: 0", "rounds=2").rounds == 2


def test_overrides_change_nothing_they_are_given() -> None:
    """The content of a file is the same after overrides were put into a copy of it."""
    content = {"train": {"epochs": 1}, "data": {"scheme": "dirichlet", "alpha": 2}}
    changed, misplaced = experiment.overrides.apply(
        content, [Override.of("train.epochs", 2, ""), Override.of("data.scheme", "iid", "")]
    )
    assert changed == {"train": {"epochs": 2}, "data": {"scheme": "iid"}}
    assert misplaced == []
    assert content == {"train": {"epochs": 1}, "data": {"scheme": "dirichlet", "alpha": 2}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a=1", ["a=1"]),
        ("a=1 b=2\nc=3\t d=4 ", ["a=1", "b=2", "c=3", "d=4"]),
        ("a=[x: {b: 1}, y] b={c: 1, d: 2}", ["a=[x: {b: 1}, y]", "b={c: 1, d: 2}"]),
        ("a='x y' b=\"z w\"", ["a='x y'", 'b="z w"']),
        ("a=[1 2", ["a=[1 2"]),
        ("a=1] b=2", ["a=1]", "b=2"]),
    ],
)
def test_several_stand_between_blanks(text: str, parts: list[str]) -> None:
    """Blanks and line ends part assignments, but not inside of brackets and quotes."""
    assert list(split(text, " \t\r\n")) == parts


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Tell how many rounds `fed check` prints, for a file of 2, with this environment and these words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.yml").write_text("rounds: 2")

    def tell(environment: dict[str, str], *words: str) -> str:
        with monkeypatch.context() as context, logging_kept():
            for key in ("ROUNDS", "SET", "SCHEME", "SEED", "EXPERIMENT"):
                context.delenv(key, raising=False)
            for key, value in environment.items():
                context.setenv(key, value)
            code = cli.main(["check", *words])
        out, err = capfd.readouterr()
        return out.splitlines()[0] if code == 0 else err.strip()

    return tell


def test_the_strongest_counts(rounds: Any) -> None:
    """`--set` wins over SET, that over ROUNDS, that over the file, and that over the default."""
    assert rounds({}) == "rounds: 2"
    assert rounds({"ROUNDS": "3"}) == "rounds: 3"
    assert rounds({"ROUNDS": "3", "SET": "rounds=4 seed=1"}) == "rounds: 4"
    assert rounds({"ROUNDS": "3", "SET": "rounds=4\nseed=1"}, "--set", "rounds=6") == "rounds: 6"
    assert rounds({"SET": "rounds=0"}, "--set", "rounds=6") == "rounds: 6"
    line = "fed check: error: SET rounds=0: rounds is 0; wanted at least 1; correct rounds"
    assert rounds({"SET": "rounds=0"}) == line
    assert rounds({"SET": "rounds=0 seed"}).startswith("fed check: error: SET seed; wanted KEY=VALUE")
