"""Sections that contradict each other are refused with their reason."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from services import experiment
from services.errors import ExperimentError, UsageError
from services.experiment import Plan, contradictions
from services.experiment.contradictions import check_clients


def modules(client: list[Any], server: list[Any]) -> dict[str, Any]:
    """Write the optimizers with these modules."""
    return {"optimizer": {"client": {"modules": client}, "server": {"modules": server}}}


NOISE = {"gaussian-noise": {"std": 0.1}}

CASES: list[tuple[str, str]] = [
    (
        "{secagg: masking, deterministic: true}",
        (
            "secagg and deterministic contradict each other: the clients' optimizer states, which a deterministic run"
            " keeps on the server, tell what secure aggregation hides; leave out one of them"
        ),
    ),
    (
        "{secagg: joye-libert, compression: float16}",
        (
            "secagg and compression float16 contradict each other: secure aggregation sends whole numbers as large as"
            " its sums need, which are no floats any more; leave out one of them"
        ),
    ),
    (
        "{model: {sklearn: {}}, metrics: [multi-classif, mse]}",
        (
            "mse in metrics and model.sklearn contradict each other: it compares probabilities, and a linear classifier"
            " gives scores without bounds; leave out mse, or choose a preset"
        ),
    ),
    (
        "{deterministic: true, optimizer: {client: {modules: [gaussian-noise: {safe_mode: false, seed: 1}]}}}",
        (
            "deterministic and gaussian-noise in optimizer.client.modules contradict each other: where its generator"
            " stands is in no state that is kept, so a resumed run would draw other noise; leave out one of them"
        ),
    ),
    (
        "{optimizer: {server: {modules: [gaussian-noise: {seed: 1}]}}}",
        (
            "seed of gaussian-noise in optimizer.server.modules has no effect with safe_mode true: the system's secure"
            " generator takes none; leave out seed, or set safe_mode to false"
        ),
    ),
    (
        "{optimizer: {client: {modules: [scaffold-client]}}}",
        (
            "scaffold-client is in optimizer.client.modules without scaffold-server in optimizer.server.modules: each"
            " needs what the other sends; add scaffold-server to optimizer.server.modules"
        ),
    ),
    (
        "{optimizer: {server: {modules: [scaffold-server]}}}",
        (
            "scaffold-server is in optimizer.server.modules without scaffold-client in optimizer.client.modules: each"
            " needs what the other sends; add scaffold-client to optimizer.client.modules"
        ),
    ),
    (
        "{optimizer: {client: {modules: [scaffold-server]}}}",
        (
            "scaffold-server is in optimizer.client.modules: it is the server's part of SCAFFOLD; move it to"
            " optimizer.server.modules"
        ),
    ),
    (
        "{optimizer: {server: {modules: [scaffold-client]}}}",
        (
            "scaffold-client is in optimizer.server.modules: it is the client's part of SCAFFOLD; move it to"
            " optimizer.client.modules"
        ),
    ),
    (
        "{optimizer: {client: {modules: [scaffold-client, scaffold-client]}, server: {modules: [scaffold-server]}}}",
        (
            "scaffold-client stands 2 times in optimizer.client.modules: what the two sides tell each other would"
            " reach one of them alone; leave one"
        ),
    ),
    (
        "{optimizer: {server: {regularizers: [fedprox]}}}",
        (
            "fedprox is in optimizer.server.regularizers: it holds a client's steps near the weights that its round"
            " began with, and the server takes one step a round; move it to optimizer.client.regularizers"
        ),
    ),
    (
        "{data: {alpha: 0.5}}",
        (
            "data.alpha counts with scheme dirichlet alone, and data.scheme is iid; leave out data.alpha, or set"
            " data.scheme to dirichlet"
        ),
    ),
    (
        "{data: {scheme: labels, classes_per_client: 3}}",
        (
            "data.classes_per_client counts with scheme shards alone, and data.scheme is labels; leave out"
            " data.classes_per_client, or set data.scheme to shards"
        ),
    ),
    (
        "{sampling: {uniform: {n_samples: 1}}, federation: {min_clients: 2}}",
        (
            "sampling draws 1 clients a round, and federation.min_clients lets none count with fewer than 2; raise "
            "n_samples, or lower federation.min_clients"
        ),
    ),
    (
        "{sampling: {uniform: {n_samples: 1}}, secagg: masking}",
        (
            "sampling draws one client a round, and secagg hides an update in the sum of two or more; raise"
            " n_samples, or"
            " leave out secagg"
        ),
    ),
    (
        "{sampling: {criterion: {n_samples: 2, criterion: gradient_norm}}, secagg: masking}",
        (
            "sampling by criterion and secagg contradict each other: scores come from each client's own"
            " reply, of which "
            "the server reads the sum alone; leave out one of them"
        ),
    ),
    (
        (
            "{sampling: {composition: {samplers: [criterion: {n_samples: 2, criterion: train_time}]}},"
            " deterministic: true}"
        ),
        (
            "sampling by train_time and deterministic contradict each other: times are never the same; choose another "
            "criterion, or leave out deterministic"
        ),
    ),
    (
        "{metrics: [mse, mae, mse]}",
        ("mse stands 2 times in metrics; leave one"),
    ),
    (
        "{metrics: [binary-roc], secagg: masking}",
        (
            "binary-roc without bound and secagg contradict each other: thresholds that go by the data"
            " can't be summed; "
            "set bound to [0, 1]"
        ),
    ),
    (
        "{metrics: [binary-roc: {label: 10}]}",
        ("label of binary-roc in metrics is 10, and mnist has classes 0 to 9; correct label"),
    ),
    (
        "{early_stop: {tolerance: 0.1}}",
        (
            "early_stop.tolerance counts with early_stop.patience alone; set early_stop.patience, or leave out "
            "early_stop.tolerance"
        ),
    ),
    (
        "{fairness: {positive: [1]}}",
        (
            "fairness.positive counts with fairness.algorithm alone; set fairness.algorithm, or leave out "
            "fairness.positive"
        ),
    ),
    (
        "{robust: {trim: 0.2, aggregator: median}}",
        (
            "robust.trim counts with aggregator trimmed-mean alone, and robust.aggregator is median; leave out "
            "robust.trim, or set robust.aggregator to trimmed-mean"
        ),
    ),
    (
        "{robust: {max_update_norm: 1}, secagg: masking}",
        (
            "robust.max_update_norm and secagg contradict each other: the server reads the sum of updates alone; leave "
            "out one of them"
        ),
    ),
    (
        (
            "{robust: {max_update_norm: 5}, optimizer: {client: {modules: [scaffold-client]}, server:"
            " {modules: [scaffold-server]}}}"
        ),
        (
            "robust.max_update_norm and optimizer.client.modules contradict each other: what SCAFFOLD's clients send "
            "beside updates would be summed as it is; leave out one of them"
        ),
    ),
    (
        "{robust: {aggregator: median}, aggregator: sum}",
        (
            "robust.aggregator and aggregator contradict each other: it takes the place of averaging; leave out one of "
            "them"
        ),
    ),
    (
        (
            "{robust: {aggregator: median}, optimizer: {client: {modules: [scaffold-client]}, server:"
            " {modules: [scaffold-server]}}}"
        ),
        (
            "robust.aggregator and optimizer.client.modules contradict each other: what SCAFFOLD's clients send beside "
            "updates would be summed as it is; leave out one of them"
        ),
    ),
    (
        "{robust: {aggregator: median}, fairness: {algorithm: fairgrad}}",
        (
            "robust.aggregator and fairness.algorithm contradict each other: it weighs groups in a sum over"
            " all clients; "
            "leave out one of them"
        ),
    ),
    (
        "{fairness: {algorithm: monitor}, secagg: masking}",
        (
            "fairness.algorithm and secagg contradict each other: the server reads each client's accuracy"
            " on its groups; "
            "leave out one of them"
        ),
    ),
    (
        "{fairness: {algorithm: monitor}, sampling: {uniform: {n_samples: 2}}}",
        (
            "fairness.algorithm and sampling contradict each other: groups are weighed over all clients,"
            " not over those "
            "drawn; leave out one of them"
        ),
    ),
    (
        "{fairness: {algorithm: {fairfed: {strict: false}}}, deterministic: true}",
        (
            "fairness.algorithm and deterministic contradict each other: the weights of fairfed live with the clients, "
            "and a restarted one begins anew; leave out one of them"
        ),
    ),
    (
        "{fairness: {algorithm: fairgrad}, aggregator: gma}",
        (
            "fairness.algorithm and aggregator contradict each other: fairgrad has an aggregator of its own; leave out "
            "one of them"
        ),
    ),
    (
        "{fairness: {algorithm: fairbatch, function: equalized_odds}}",
        (
            "fairness.algorithm and fairness.positive contradict each other: fairbatch takes two labels and two "
            "attributes; set fairness.positive to the labels that count as 1, and fairness.groups to ink or own"
        ),
    ),
    (
        "{fairness: {algorithm: fairfed, positive: [1], groups: class}}",
        (
            "fairness.algorithm and fairness.positive contradict each other: fairfed with strict true takes two labels "
            "and two attributes; set fairness.positive to the labels that count as 1, and fairness.groups to ink or own"
        ),
    ),
    (
        "{fairness: {algorithm: fairbatch, positive: [1]}}",
        (
            "fairness.algorithm and fairness.function contradict each other: fairbatch has no rule for"
            " accuracy_parity; "
            "set fairness.function to demographic_parity, equality_of_opportunity or equalized_odds"
        ),
    ),
    (
        "{fairness: {algorithm: monitor, function: demographic_parity}}",
        (
            "fairness.function and fairness.positive contradict each other: demographic_parity takes two labels; set "
            "fairness.positive to the labels that count as 1"
        ),
    ),
    (
        "{fairness: {algorithm: monitor, function: equalized_odds, groups: class}}",
        (
            "fairness.groups and fairness.function contradict each other: equalized_odds compares images of one label, "
            "which are of one class; set fairness.groups to ink or own"
        ),
    ),
    (
        "{fairness: {algorithm: monitor, groups: class, ink: 0.5}}",
        ("fairness.groups and fairness.ink contradict each other: groups by class know no ink; leave out fairness.ink"),
    ),
    (
        "{fairness: {algorithm: monitor, target: 2}}",
        (
            "fairness.target and fairness.function contradict each other: accuracy_parity has no target; leave out "
            "fairness.target"
        ),
    ),
    (
        "{fairness: {algorithm: monitor, function: equality_of_opportunity, target: 10}}",
        (
            "fairness.target and fairness.positive contradict each other: labels of groups go from 0 to 9;"
            " correct target"
        ),
    ),
    (
        "{fairness: {algorithm: monitor, positive: [10]}}",
        (
            "fairness.positive and fairness.groups contradict each other: mnist has classes 0 to 9; correct "
            "fairness.positive"
        ),
    ),
    (
        "{data: {size: [32, 32]}}",
        (
            "data.size counts with dataset own alone, and data.dataset is mnist; leave out data.size, or set"
            " data.dataset to own"
        ),
    ),
    (
        "{deterministic: true, privacy: {epsilon: 3, max_grad_norm: 1}}",
        (
            "privacy and deterministic contradict each other: noise that can be repeated hides nothing;"
            " leave out one of them"
        ),
    ),
    (
        "{model: {sklearn: {}}, privacy: {epsilon: 3, max_grad_norm: 1}}",
        (
            "privacy.kind sample and model.sklearn contradict each other: DP-SGD clips the gradient of each image,"
            " which is computed of a network; set model to logistic, or privacy.kind to central"
        ),
    ),
    (
        "{secagg: masking, privacy: {kind: central, epsilon: 3, max_grad_norm: 1}}",
        (
            "secagg and privacy.kind central contradict each other: the server clips each client's update, which secure"
            " aggregation keeps from it; leave out secagg, or set privacy.kind to sample"
        ),
    ),
    (
        "{aggregator: sum, privacy: {kind: central, epsilon: 3, max_grad_norm: 1}}",
        (
            "privacy.kind central and aggregator contradict each other: clients must count alike, so that none changes"
            " the average by more than the noise is made for; set aggregator to averaging, without steps_weighted"
        ),
    ),
    (
        "{fairness: {algorithm: monitor}, privacy: {epsilon: 3, max_grad_norm: 1}}",
        (
            "privacy and fairness.algorithm contradict each other: clients tell how many of their training images the"
            " model gets right in each group, without noise; leave out one of them"
        ),
    ),
]
"""Files, each with the line that refuses it."""


@pytest.mark.parametrize(("text", "line"), CASES)
def test_a_contradiction_is_refused_with_its_reason(tmp_path: Path, text: str, line: str) -> None:
    """What can't go together is named, and why, and what to do."""
    path = tmp_path / "e.yml"
    path.write_text(text)
    with pytest.raises(ExperimentError) as caught:
        experiment.load(path)
    assert str(caught.value) == f"{path}: {line}"


@pytest.mark.parametrize("rule", contradictions.RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_its_case(monkeypatch: pytest.MonkeyPatch, rule: contradictions.Rule) -> None:
    """No rule is there that no case above trips over, and each names keys of the file."""
    monkeypatch.setattr(contradictions, "RULES", [rule])
    tripped = []
    for text, line in CASES:
        try:
            Plan.model_validate(yaml.safe_load(text))
        except ValidationError as exc:
            contradiction = exc.errors()[0]["ctx"]["contradiction"]
            assert f"{contradiction.found}; {contradiction.remedy}" == line
            tripped.append(contradiction)
    assert tripped
    for contradiction in tripped:
        for key in contradiction.keys:
            functools.reduce(getattr, key.split("."), Plan())


@pytest.mark.parametrize(
    "content",
    [
        modules(["scaffold-client"], ["scaffold-server"]),
        modules(["scaffold-client"], ["scaffold-server"]) | {"secagg": "masking"},
        {"secagg": "masking", "aggregator": "gradient-masked-averaging"},
        {"secagg": "joye-libert", "aggregator": "sum"},
        modules([NOISE], [{"gaussian-noise": {"safe_mode": False, "seed": 3}}]),
        {"data": {"scheme": "dirichlet", "alpha": 1}},
        {"data": {"scheme": "shards", "classes_per_client": 1}},
        {"data": {"scheme": "dirichlet"}},
        {"secagg": "masking", "sampling": {"uniform": {"n_samples": 2}}},
        {"deterministic": True, "sampling": {"criterion": {"n_samples": 2, "criterion": "gradient_norm"}}},
        {"federation": {"min_clients": 9}, "sampling": {"composition": {"samplers": ["default", "default"]}}},
        {"secagg": "masking", "metrics": [{"binary-roc": {"bound": [0, 1]}}, "r2"]},
        {"secagg": "masking", "early_stop": {"patience": 1, "tolerance": 0.1}},
        {"robust": {"max_update_norm": 1}, "aggregator": "gma", "fairness": {"algorithm": "monitor"}},
        {"robust": {"aggregator": "trimmed-mean", "trim": 0.3}, "fairness": {"algorithm": "monitor"}},
        {"fairness": {"algorithm": "fairbatch", "function": "equalized_odds", "positive": [1]}},
        {"fairness": {"algorithm": {"fairfed": {"strict": False}}, "groups": "class"}},
    ],
)
def test_what_goes_together_is_accepted(content: dict[str, Any]) -> None:
    """No rule refuses what works."""
    Plan.model_validate(content)


def test_a_plan_that_is_written_contradicts_nothing() -> None:
    """What `fed check` prints holds no parameter of another scheme."""
    assert "alpha" not in experiment.dump(Plan())
    text = experiment.dump(Plan.model_validate({"data": {"scheme": "dirichlet"}}))
    assert "alpha: 0.5" in text
    assert "classes_per_client" not in text


@pytest.mark.parametrize(
    ("content", "clients", "line"),
    [
        (
            {"secagg": "masking"},
            1,
            (
                "CLIENTS is 1 and secagg is masking: the sum over a single client would be that client's own; wanted"
                " at least 2 clients; raise CLIENTS, or correct secagg in the experiment file"
            ),
        ),
        (
            {"federation": {"min_clients": 4}},
            3,
            (
                "CLIENTS is 3 and federation.min_clients is 4; wanted at least 4 clients; raise CLIENTS, or correct"
                " federation.min_clients in the experiment file"
            ),
        ),
    ],
)
def test_too_few_clients_for_any_round_are_refused(content: dict[str, Any], clients: int, line: str) -> None:
    """A number of clients with which no round could count is refused; one more will do."""
    plan = Plan.model_validate(content)
    with pytest.raises(UsageError) as caught:
        check_clients(plan, clients)
    assert str(caught.value) == line
    check_clients(plan, clients + 1)


@pytest.mark.parametrize(
    "other",
    [
        {"aggregator": {"averaging": {"steps_weighted": True}}},
        modules(["scaffold-client"], ["scaffold-server"]),
        {"robust": {"aggregator": "median"}},
        {"sampling": {"criterion": {"n_samples": 2, "criterion": "gradient_norm"}}},
        {"early_stop": {"patience": 2}},
    ],
)
def test_central_privacy_refuses_what_would_pass_its_noise_by(other: dict[str, Any]) -> None:
    """With central privacy no client may weigh more than others, nor tell them anything beside its update."""
    private = {"epsilon": 3.0, "max_grad_norm": 1.0}
    Plan.model_validate(other | {"privacy": private})
    with pytest.raises(ValidationError, match="central"):
        Plan.model_validate(other | {"privacy": private | {"kind": "central"}})
