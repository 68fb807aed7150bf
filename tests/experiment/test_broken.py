"""Broken experiment files: each is one clear line and exit code 2, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from services import cli
from services.experiment import SCHEMES, Data, Plan
from services.experiment.mistakes import known_keys
from services.experiment.model import Preset
from services.experiment.plugins import AGGREGATORS, MODULES, REGULARIZERS
from tests.support import logging_kept

CHOICES = {
    "data.dataset": Data.model_json_schema()["properties"]["dataset"]["enum"],
    "data.scheme": [*SCHEMES],
    "model.preset": [*get_args(Preset)],
    "aggregator": [*AGGREGATORS],
    "modules": [*MODULES],
    "regularizers": [*REGULARIZERS],
}
"""Names that a key may take."""

BROKEN = [
    ("rounds: 0", "rounds is 0; wanted at least 1; correct rounds"),
    ("rounds: -3", "rounds is -3; wanted at least 1; correct rounds"),
    ("rounds: 2.5", "rounds is 2.5; wanted a whole number; correct rounds"),
    ("rounds: ten", "rounds is 'ten'; wanted a whole number; correct rounds"),
    ("rounds:", "rounds is empty; wanted a whole number; correct rounds"),
    ("rounds: [1, 2]", "rounds is a list; wanted a whole number; correct rounds"),
    ("rounds: yes", "rounds is True; wanted a whole number; correct rounds"),
    ("round: 3", "unknown key 'round'; wanted one of <>; did you mean 'rounds'?"),
    ("Rounds: 3", "unknown key 'Rounds'; wanted one of <>; did you mean 'rounds'?"),
    ("seed: -1", "seed is -1; wanted at least 0; correct seed"),
    ("seed: 4294967296", "seed is 4294967296; wanted a number below 4294967296; correct seed"),
    ("seed: 1.0", "seed is 1.0; wanted a whole number; correct seed"),
    ("deterministic: 1", "deterministic is 1; wanted true or false; correct deterministic"),
    ("deterministic: maybe", "deterministic is 'maybe'; wanted true or false; correct deterministic"),
    ("data: mnist", "data is 'mnist'; wanted a mapping of <data>; correct data"),
    ("data: []", "data is a list; wanted a mapping of <data>; correct data"),
    ("data: {dataset: cifar-10}", "data.dataset is 'cifar-10'; wanted <data.dataset>; correct data.dataset"),
    (
        "data: {dataset: fashion_mnist}",
        "data.dataset is 'fashion_mnist'; wanted <data.dataset>; did you mean 'fashion-mnist'?",
    ),
    ("data: {scheme: random}", "data.scheme is 'random'; wanted <data.scheme>; correct data.scheme"),
    ("data: {scheme: non-iid}", "data.scheme is 'non-iid'; wanted <data.scheme>; did you mean 'iid'?"),
    ("data: {scheme: IID}", "data.scheme is 'IID'; wanted <data.scheme>; did you mean 'iid'?"),
    ("data: {scheme: dirichlet, alpha: 0}", "data.alpha is 0; wanted a number above 0; correct data.alpha"),
    ("data: {scheme: dirichlet, alpha: low}", "data.alpha is 'low'; wanted a number; correct data.alpha"),
    (
        "data: {alpha: 0.1}",
        (
            "data.alpha counts with scheme dirichlet alone, and data.scheme is iid; leave out data.alpha, or"
            " set data.scheme to dirichlet"
        ),
    ),
    (
        "data: {scheme: shards, classes_per_client: 0}",
        "data.classes_per_client is 0; wanted at least 1; correct data.classes_per_client",
    ),
    (
        "data: {scheme: iid, classes_per_client: 2}",
        (
            "data.classes_per_client counts with scheme shards alone, and data.scheme is iid; leave out"
            " data.classes_per_client, or set data.scheme to shards"
        ),
    ),
    ("data: {valid_fraction: 0}", "data.valid_fraction is 0; wanted a number above 0; correct data.valid_fraction"),
    ("data: {valid_fraction: 1.0}", "data.valid_fraction is 1.0; wanted a number below 1; correct data.valid_fraction"),
    ("data: {valid_fraction: 20%}", "data.valid_fraction is '20%'; wanted a number; correct data.valid_fraction"),
    ("data: {seed: abc}", "data.seed is 'abc'; wanted a whole number; correct data.seed"),
    ("data: {path: /data}", "unknown key 'path' in data; wanted one of <data>; remove it or correct it"),
    ("model: resnet50", "model.preset is 'resnet50'; wanted <model.preset>; correct model.preset"),
    ("model: {preset: cnn-strode}", "model.preset is 'cnn-strode'; wanted <model.preset>; did you mean 'cnn-strided'?"),
    ("model: {name: cnn}", "unknown key 'name' in model; wanted one of <model>; remove it or correct it"),
    ("train: {batch_size: 0}", "train.batch_size is 0; wanted at least 1; correct train.batch_size"),
    ("train: {batch_size: 64.0}", "train.batch_size is 64.0; wanted a whole number; correct train.batch_size"),
    ("train: {batchsize: 64}", "unknown key 'batchsize' in train; wanted one of <train>; did you mean 'batch_size'?"),
    ("train: {epochs: 0}", "train.epochs is 0; wanted at least 1; correct train.epochs"),
    ("train: {steps: 0}", "train.steps is 0; wanted at least 1; correct train.steps"),
    ("train: {shuffle: always}", "train.shuffle is 'always'; wanted true or false; correct train.shuffle"),
    ("train: {lrate: 0.1}", "unknown key 'lrate' in train; wanted one of <train>; remove it or correct it"),
    (
        "evaluate: {batch_size: none}",
        "evaluate.batch_size is 'none'; wanted a whole number; correct evaluate.batch_size",
    ),
    ("evaluate: {batch: 10}", "unknown key 'batch' in evaluate; wanted one of <evaluate>; did you mean 'batch_size'?"),
    ("optimizer: adam", "optimizer is 'adam'; wanted a mapping of <optimizer>; correct optimizer"),
    ("optimizer: {lrate: 0.1}", "unknown key 'lrate' in optimizer; wanted one of <optimizer>; remove it or correct it"),
    (
        "optimizer: {client: {lrate: 0}}",
        "optimizer.client.lrate is 0; wanted a number above 0; correct optimizer.client.lrate",
    ),
    (
        "optimizer: {client: {lrate: .nan}}",
        "optimizer.client.lrate is nan; wanted a finite number; correct optimizer.client.lrate",
    ),
    (
        "optimizer: {client: {lrate: 0,01}}",
        "optimizer.client.lrate is 0; wanted a number above 0; correct optimizer.client.lrate",
    ),
    (
        "optimizer: {client: {learning_rate: 0.1}}",
        "unknown key 'learning_rate' in optimizer.client; wanted one of <optimizer.client>; did you mean 'lrate'?",
    ),
    (
        "optimizer: {client: {w_decay: -1e-4}}",
        "optimizer.client.w_decay is -0.0001; wanted at least 0; correct optimizer.client.w_decay",
    ),
    (
        "optimizer: {client: {modules: adam}}",
        "optimizer.client.modules is 'adam'; wanted a list; correct optimizer.client.modules",
    ),
    (
        "optimizer: {client: {modules: [sgd]}}",
        "optimizer.client.modules.0.name is 'sgd'; wanted <modules>; correct optimizer.client.modules.0.name",
    ),
    (
        "optimizer: {client: {modules: [Adam]}}",
        "optimizer.client.modules.0.name is 'Adam'; wanted <modules>; did you mean 'adam'?",
    ),
    (
        "optimizer: {client: {modules: [adam: 0.9]}}",
        (
            "optimizer.client.modules.0.parameters is 0.9; wanted a mapping of parameters; correct"
            " optimizer.client.modules.0.parameters"
        ),
    ),
    (
        "optimizer: {client: {modules: [adam: {beta1: 0.9}]}}",
        (
            "unknown key 'beta1' in optimizer.client.modules.0.adam; wanted one of beta_1, beta_2, amsgrad,"
            " eps; did you mean 'beta_1'?"
        ),
    ),
    (
        "optimizer: {client: {modules: [adam: {beta_1: 1}]}}",
        (
            "optimizer.client.modules.0.adam.beta_1 is 1; wanted a number below 1; correct"
            " optimizer.client.modules.0.adam.beta_1"
        ),
    ),
    (
        "optimizer: {client: {modules: [momentum: {beta: 1.5}]}}",
        (
            "optimizer.client.modules.0.momentum.beta is 1.5; wanted a number below 1; correct"
            " optimizer.client.modules.0.momentum.beta"
        ),
    ),
    (
        "optimizer: {client: {modules: [momentum: {nesterov: 1}]}}",
        (
            "optimizer.client.modules.0.momentum.nesterov is 1; wanted true or false; correct"
            " optimizer.client.modules.0.momentum.nesterov"
        ),
    ),
    (
        "optimizer: {client: {modules: [l2-clipping: {max_norm: 0}]}}",
        (
            "optimizer.client.modules.0.l2-clipping.max_norm is 0; wanted a number above 0; correct"
            " optimizer.client.modules.0.l2-clipping.max_norm"
        ),
    ),
    (
        "optimizer: {client: {modules: [{parameters: {beta: 1}}]}}",
        "optimizer.client.modules.0.name is missing; add name",
    ),
    (
        "optimizer: {client: {modules: [gaussian-noise: {std: 0.1, seed: 3}]}}",
        (
            "seed of gaussian-noise in optimizer.client.modules has no effect with safe_mode true: the system's"
            " secure generator takes none; leave out seed, or set safe_mode to false"
        ),
    ),
    (
        "optimizer: {client: {modules: [scaffold-client]}}",
        (
            "scaffold-client is in optimizer.client.modules without scaffold-server in"
            " optimizer.server.modules: each needs what the other sends; add scaffold-server to"
            " optimizer.server.modules"
        ),
    ),
    (
        "optimizer: {client: {modules: [scaffold-server]}}",
        (
            "scaffold-server is in optimizer.client.modules: it is the server's part of SCAFFOLD; move it to"
            " optimizer.server.modules"
        ),
    ),
    (
        "optimizer: {server: {modules: [scaffold-server]}}",
        (
            "scaffold-server is in optimizer.server.modules without scaffold-client in"
            " optimizer.client.modules: each needs what the other sends; add scaffold-client to"
            " optimizer.client.modules"
        ),
    ),
    (
        "optimizer: {client: {regularizers: [l2]}}",
        (
            "optimizer.client.regularizers.0.name is 'l2'; wanted <regularizers>; correct"
            " optimizer.client.regularizers.0.name"
        ),
    ),
    (
        "optimizer: {client: {regularizers: [fedprox: {mu: 0.1}]}}",
        "unknown key 'mu' in optimizer.client.regularizers.0.fedprox; wanted one of alpha; remove it or correct it",
    ),
    (
        "optimizer: {server: {regularizers: [fedprox]}}",
        (
            "fedprox is in optimizer.server.regularizers: it holds a client's steps near the weights that its"
            " round began with, and the server takes one step a round; move it to optimizer.client.regularizers"
        ),
    ),
    (
        "optimizer: {servers: {lrate: 1}}",
        "unknown key 'servers' in optimizer; wanted one of <optimizer>; did you mean 'server'?",
    ),
    ("aggregator: fedavg", "aggregator.name is 'fedavg'; wanted <aggregator>; correct aggregator.name"),
    (
        "aggregator: {sum: {weights: 3}}",
        "unknown key 'weights' in aggregator.sum; wanted none; remove it or correct it",
    ),
    (
        "aggregator: {gradient-masked-averaging: {threshold: 80}}",
        (
            "aggregator.gradient-masked-averaging.threshold is 80; wanted at most 1; correct"
            " aggregator.gradient-masked-averaging.threshold"
        ),
    ),
    (
        "aggregator: {averaging: {}, sum: {}}",
        "unknown key 'averaging' in aggregator; wanted one of name, parameters; remove it or correct it",
    ),
    ("secagg: true", "secagg is True; wanted 'masking' or 'joye-libert'; correct secagg"),
    ("secagg: mask", "secagg is 'mask'; wanted 'masking' or 'joye-libert'; did you mean 'masking'?"),
    ("secagg: {method: masking}", "secagg is a mapping; wanted 'masking' or 'joye-libert'; correct secagg"),
    (
        "{secagg: masking, deterministic: true}",
        (
            "secagg and deterministic contradict each other: the clients' optimizer states, which a"
            " deterministic run keeps on the server, tell what secure aggregation hides; leave out one of them"
        ),
    ),
    ("compression: true", "compression is True; wanted 'none' or 'float16'; correct compression"),
    ("compression: float", "compression is 'float'; wanted 'none' or 'float16'; did you mean 'float16'?"),
    ("compression: null", "compression is empty; wanted 'none' or 'float16'; correct compression"),
    ("federation: {min_clients: 0}", "federation.min_clients is 0; wanted at least 1; correct federation.min_clients"),
    (
        "federation: {join_timeout: forever}",
        "federation.join_timeout is 'forever'; wanted a number; correct federation.join_timeout",
    ),
    (
        "federation: {round_timeout: 0}",
        "federation.round_timeout is 0; wanted a number above 0; correct federation.round_timeout",
    ),
    (
        "federation: {quorum_timeout: -1}",
        "federation.quorum_timeout is -1; wanted at least 0; correct federation.quorum_timeout",
    ),
    (
        "federation: {timeout: 10}",
        "unknown key 'timeout' in federation; wanted one of <federation>; did you mean 'join_timeout'?",
    ),
    ("rounds 5", "the file holds a text; wanted a mapping of sections; begin with one of <>"),
    ("- rounds: 5", "the file holds a list; wanted a mapping of sections; begin with one of <>"),
    ("rounds: 5\nrounds: 6", ", line 2: key 'rounds' stands twice; wanted well-formed YAML; mend that line"),
    ("rounds: 5\n  seed: 1", ", line 2: mapping values are not allowed here; wanted well-formed YAML; mend that line"),
    (
        "train:\n\tepochs: 1",
        ", line 2: found character '\\t' that cannot start any token; wanted well-formed YAML; mend that line",
    ),
    (
        "data: {scheme: iid",
        ", line 1: expected ',' or '}', but got '<stream end>'; wanted well-formed YAML; mend that line",
    ),
    ('rounds: "5', ", line 1: found unexpected end of stream; wanted well-formed YAML; mend that line"),
    (
        "rounds: !!python/name:os.system",
        (
            ", line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system';"
            " wanted well-formed YAML; mend that line"
        ),
    ),
]
"""Texts of files, each with what is said of it after the file's name; `<section>` stands for the keys of that section,
`<>` for the sections, and `<key>` for its choices.
"""


def written_out(line: str) -> str:
    """Put the lists of keys and names into `line`."""
    line = line.replace("<>", ", ".join(Plan.model_fields))
    for key, names in CHOICES.items():
        *others, last = map(repr, names)
        line = line.replace(f"<{key}>", f"{', '.join(others)} or {last}")
    for section in ("data", "model", "train", "evaluate", "optimizer", "optimizer.client", "federation"):
        line = line.replace(f"<{section}>", ", ".join(known_keys(section.split("."))))
    return line if line.startswith(",") else f": {line}"


def test_there_are_enough_of_them() -> None:
    """No text stands twice, and there are sixty at least."""
    assert len({text for text, _ in BROKEN}) == len(BROKEN) >= 60


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_a_broken_file_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], text: str, line: str
) -> None:
    """`fed check` says in one line what was found, what was wanted and what to do, prints no plan, and ends with 2."""
    monkeypatch.chdir(tmp_path)
    for key in ("SCHEME", "SEED", "ROUNDS", "SET"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "e.yml").write_text(text)
    with logging_kept():
        assert cli.main(["check", "e.yml"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"fed check: error: e.yml{written_out(line)}\n"
