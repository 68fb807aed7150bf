"""Experiment files: what is read, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services import experiment
from services.errors import ExperimentError
from services.experiment import Plan
from services.experiment.algorithm import AggregatorPlugin, ModulePlugin, RegularizerPlugin
from services.experiment.data import Dataset
from services.experiment.methods import MetricPlugin
from services.experiment.model import Preset, SklearnLoss
from services.experiment.notation import parse, write
from services.experiment.plugins import Plugin
from services.experiment.privacy import Accountant
from tests.support import REPOSITORY

FILES = sorted([REPOSITORY / "experiment.yml", *(REPOSITORY / "experiments").glob("*.yml")])

DATA = "dataset, scheme, alpha, classes_per_client, valid_fraction, seed, test_fraction, label, shape, size, grayscale"
PRESETS = "'cnn', 'cnn-strided', 'cnn-large', 'mlp', 'logistic' or 'cnn-tanh'"
SCHEMES = "'iid', 'labels', 'biased', 'dirichlet' or 'shards'"
KEYS = (
    "rounds, seed, deterministic, data, model, train, evaluate, optimizer, aggregator, sampling, metrics, early_stop,"
    " fairness, robust, secagg, privacy, compression, federation"
)
MODULES = (
    "'adagrad', 'adam', 'ewma', 'gaussian-noise', 'l2-clipping', 'l2-global-clipping', 'momentum', 'rmsprop',"
    " 'scaffold-client', 'scaffold-server', 'yogi' or 'yogi-momentum'"
)
SCHEDULERS = (
    "'cosine-annealing', 'cosine-annealing-warm-restarts', 'cyclic-exp-range', 'cyclic-triangular',"
    " 'exponential-decay', 'inverse-scaling', 'linear-decay', 'piecewise-decay', 'polynomial-decay', 'warmup'"
    " or 'warmup-rounds'"
)


def read(tmp_path: Path, text: str | bytes) -> Plan:
    """Load `text` as the file `e.yml`."""
    path = tmp_path / "e.yml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return experiment.load(path)


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """Load `text`, which must fail, and give its line without the folder's name."""
    with pytest.raises(ExperimentError) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_experiment_of_ours_loads(path: Path) -> None:
    """Each experiment file in the repository is a plan."""
    assert isinstance(experiment.load(path), Plan)


def test_the_default_file_states_the_defaults() -> None:
    """experiment.yml says in words what an empty file says by leaving it out."""
    assert experiment.load(REPOSITORY / "experiment.yml") == Plan()


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_the_default_experiment(tmp_path: Path, text: str) -> None:
    """A file that says nothing is the default plan."""
    assert read(tmp_path, text) == Plan()


def test_gma_is_short_for_gradient_masked_averaging(tmp_path: Path) -> None:
    """The name that people use for the aggregator will do, with parameters or without."""
    for text in ("aggregator: gma", "aggregator: {gma: {threshold: 0.5}}", "aggregator: {name: gma}"):
        assert read(tmp_path, text).aggregator.name == "gradient-masked-averaging"


def test_a_plug_in_has_three_spellings(tmp_path: Path) -> None:
    """A plug-in may be a name, a name with its parameters below it, or both as keys."""
    plan = read(
        tmp_path,
        """
        aggregator: {averaging: {steps_weighted: false}}
        optimizer:
          client:
            regularizers: [fedprox, ridge: , lasso: {alpha: 0.1}]
            modules: [{name: momentum, parameters: {beta: 0.9}}]
        """,
    )
    assert plan.aggregator.parameters == {"steps_weighted": False}
    assert [(plugin.name, plugin.parameters) for plugin in plan.optimizer.client.regularizers] == [
        ("fedprox", {}),
        ("ridge", {}),
        ("lasso", {"alpha": 0.1}),
    ]
    assert [(plugin.name, plugin.parameters) for plugin in plan.optimizer.client.modules] == [
        ("momentum", {"beta": 0.9})
    ]


def test_a_preset_has_two_spellings(tmp_path: Path) -> None:
    """A model may be the name of a preset, or a section with it."""
    assert read(tmp_path, "model: cnn") == read(tmp_path, "model: {preset: cnn}")


def test_another_key_stands_in_place_of_the_preset(tmp_path: Path) -> None:
    """A file that names a module has no preset, as it would be written out."""
    plan = read(tmp_path, "model: {module: my_model.py:build}")
    assert (plan.model.preset, plan.model.module) == (None, "my_model.py:build")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("+2e0", 2.0), ("1.5e3", 1500.0), (".5e1", 5.0), ("1.e+2", 100.0), ("1_0e2", 1e3)],
)
def test_scientific_notation_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    """`1e-3`, which YAML 1.1 takes for a text, is the number a person means, in a plug-in's parameters too."""
    client = read(tmp_path, f"optimizer: {{client: {{lrate: {text}, regularizers: [ridge: {{alpha: {text}}}]}}}}")
    assert client.optimizer.client.lrate == value
    assert client.optimizer.client.regularizers[0].parameters == {"alpha": value}


@pytest.mark.parametrize("text", ["1e-3", "1.5e3", ".5e1", "e1", "1e"])
def test_a_text_that_looks_like_a_number_stays_a_text(text: str) -> None:
    """A quoted text is written and read back as a text, whatever it looks like."""
    assert parse(write({"x": text})) == {"x": text}


def test_a_plan_is_fixed_once_read() -> None:
    """A plan can't be changed behind the back of who was given it."""
    with pytest.raises(ValidationError, match="frozen"):
        Plan().rounds = 3


def numbers(*, above: float, below: float = 1e9, closed: bool = False) -> st.SearchStrategy[float]:
    """Draw finite numbers above `above` (or equal, if `closed`) and below `below`."""
    return st.floats(above, below, exclude_min=not closed, exclude_max=True, allow_nan=False)


def plugins(kind: type[Plugin], *without: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw plug-ins with some of their parameters, but for those that count on one side alone, or with another key."""

    def parameters(name: str) -> st.SearchStrategy[dict[str, Any]]:
        drawn: dict[str, st.SearchStrategy[Any]] = {}
        for key, field in kind.table[name].model_fields.items():
            if isinstance(field.default, bool):
                drawn[key] = st.booleans()
            elif isinstance(field.default, float):
                drawn[key] = numbers(above=0, below=1)
        return st.fixed_dictionaries({}, optional=drawn)

    names = st.sampled_from([name for name in kind.table if name not in without])
    return names.flatmap(lambda name: st.fixed_dictionaries({"name": st.just(name), "parameters": parameters(name)}))


def schedulers() -> st.SearchStrategy[dict[str, Any]]:
    """Draw schedulers, one of which may warm up to another."""
    decay = st.fixed_dictionaries(
        {"base": numbers(above=0), "rate": numbers(above=0)}, optional={"step_level": st.booleans()}
    ).map(lambda given: {"linear-decay": given})
    base = numbers(above=0) | decay
    return decay | st.fixed_dictionaries({"base": base, "warmup": st.integers(1, 9)}).map(
        lambda given: {"warmup": given}
    )


def optimizers() -> st.SearchStrategy[dict[str, Any]]:
    """Draw an optimizer."""
    return st.fixed_dictionaries(
        {},
        optional={
            "lrate": numbers(above=0) | schedulers(),
            "w_decay": numbers(above=0, closed=True) | schedulers(),
            "regularizers": st.lists(plugins(RegularizerPlugin, "fedprox"), max_size=2),
            "modules": st.lists(plugins(ModulePlugin, "scaffold-client", "scaffold-server"), max_size=2),
        },
    )


def plans() -> st.SearchStrategy[Plan]:
    """Draw a plan of any content that the schema allows."""
    counts = st.integers(1, 10**6)
    section = st.fixed_dictionaries
    linear = section(
        {},
        optional={
            "loss": st.sampled_from(get_args(SklearnLoss)),
            "penalty": st.sampled_from(["l2", "l1", "elasticnet", "none"]),
            "alpha": numbers(above=0, closed=True),
            "l1_ratio": numbers(above=0, below=1, closed=True),
            "epsilon": numbers(above=0, closed=True),
            "fit_intercept": st.booleans(),
        },
    )
    networks = section(
        {},
        optional={
            "rounds": counts,
            "seed": st.integers(0, 2**32 - 1),
            "data": section({"scheme": st.just("dirichlet"), "alpha": numbers(above=0)})
            | section({"scheme": st.just("shards"), "classes_per_client": counts})
            | section(
                {},
                optional={
                    "scheme": st.sampled_from(experiment.SCHEMES),
                    "valid_fraction": numbers(above=0, below=1),
                    "dataset": st.sampled_from(get_args(Dataset)),
                },
            )
            | section(
                {"dataset": st.just("own")},
                optional={
                    "test_fraction": numbers(above=0, below=1),
                    "label": st.none() | st.text(min_size=1) | st.integers(1, 99),
                    "shape": st.none() | st.lists(counts, min_size=1, max_size=3),
                    "size": st.none() | st.tuples(counts, counts),
                    "grayscale": st.booleans(),
                },
            ),
            "model": st.sampled_from(get_args(Preset))
            | st.sampled_from([{"module": "a.py:f"}, {"module": "a/b-1.py:g"}]),
            "train": section(
                {},
                optional={
                    "batch_size": counts,
                    "epochs": counts,
                    "steps": st.none() | counts,
                    "shuffle": st.booleans(),
                },
            ),
            "evaluate": section({"batch_size": counts}),
            "optimizer": section({}, optional={"client": optimizers(), "server": optimizers()}),
            "aggregator": plugins(AggregatorPlugin),
            "sampling": section({"name": st.just("uniform"), "parameters": section({"n_samples": counts})}),
            "metrics": st.lists(
                plugins(MetricPlugin, "binary-roc"), max_size=3, unique_by=lambda metric: str(metric["name"])
            ),
            "early_stop": section(
                {"patience": counts}, optional={"tolerance": numbers(above=-1e9), "relative": st.booleans()}
            ),
            "robust": section({}, optional={"max_update_norm": st.none() | numbers(above=0)}),
            "privacy": st.none()
            | section(
                {"epsilon": numbers(above=0), "max_grad_norm": numbers(above=0)},
                optional={"delta": numbers(above=0, below=1), "accountant": st.sampled_from(get_args(Accountant))},
            ),
            "federation": section(
                {}, optional={"join_timeout": numbers(above=0), "join_grace": numbers(above=0, closed=True)}
            ),
        },
    )
    # apart: a linear classifier contradicts most metrics
    return (networks | section({"model": section({"sklearn": linear})})).map(Plan.model_validate)


@settings(deadline=None, max_examples=50)
@given(plan=plans())
def test_what_is_written_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    """Whatever plan is dumped is loaded again as the same plan."""
    path = tmp_path_factory.getbasetemp() / "written.yml"
    path.write_text(experiment.dump(plan), encoding="utf-8")
    assert experiment.load(path) == plan


@settings(deadline=None)
@given(text=st.text(alphabet=st.sampled_from("rounds: sed,ta0123456789-.x_[]{}!&*#|>?%@`'\"\n\t<=~")) | st.text())
def test_any_text_is_a_plan_or_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """No content of a file, however mangled, ends in anything but a plan or an ExperimentError of one line."""
    path = tmp_path_factory.getbasetemp() / "mangled.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        experiment.load(path)
    except ExperimentError as exc:
        assert str(exc).startswith(f"{path}")  # noqa: PT017 - both outcomes are fine
        assert "\n" not in str(exc)  # noqa: PT017


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("round: 3", f"e.yml: unknown key 'round'; wanted one of {KEYS}; did you mean 'rounds'?"),
        ("xyz: 3", f"e.yml: unknown key 'xyz'; wanted one of {KEYS}; remove it or correct it"),
        (
            "train: {batchsize: 3}",
            (
                "e.yml: unknown key 'batchsize' in train; wanted one of batch_size, epochs, steps, shuffle;"
                " did you mean 'batch_size'?"
            ),
        ),
        (
            "optimizer: {client: {lrat: 3}}",
            (
                "e.yml: unknown key 'lrat' in optimizer.client; wanted one of lrate, w_decay, regularizers, modules;"
                " did you mean 'lrate'?"
            ),
        ),
        (
            "optimizer: {server: {modules: [adam, {name: adam, params: {}}]}}",
            (
                "e.yml: unknown key 'params' in optimizer.server.modules.1; wanted one of name, parameters;"
                " did you mean 'parameters'?"
            ),
        ),
        (
            "rounds: 0\ndata: {schema: iid}",
            (f"e.yml: unknown key 'schema' in data; wanted one of {DATA}; did you mean 'scheme'?"),
        ),
        ("1: 2", f"e.yml: unknown key '1'; wanted one of {KEYS}; remove it or correct it"),
    ],
)
def test_an_unknown_key_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """An unknown key is named with its section, the known ones, and the nearest of them where one is near."""
    assert refusal(tmp_path, text) == line


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("rounds", "0", "at least 1"),
        ("rounds", "2.0", "a whole number"),
        ("rounds", "'2'", "a whole number"),
        ("seed", "-1", "at least 0"),
        ("seed", "4294967296", "a number below 4294967296"),
        ("data.alpha", "0", "a number above 0"),
        ("data.alpha", ".inf", "a finite number"),
        ("data.alpha", ".nan", "a finite number"),
        ("data.alpha", "much", "a number"),
        ("data.valid_fraction", "0", "a number above 0"),
        ("data.test_fraction", "1", "a number below 1"),
        ("data.label", "''", "a text that is not empty"),
        ("data.label", "true", "a text"),
        ("data.shape", "28", "a list"),
        ("data.grayscale", "1", "true or false"),
        ("data.valid_fraction", "1", "a number below 1"),
        ("train.batch_size", "0", "at least 1"),
        ("train.epochs", "0", "at least 1"),
        ("train.steps", "0", "at least 1"),
        ("train.shuffle", "1", "true or false"),
        ("train.shuffle", "maybe", "true or false"),
        ("evaluate.batch_size", "-5", "at least 1"),
        ("optimizer.client.lrate", "0", "a number above 0"),
        ("optimizer.client.lrate", "-0.1", "a number above 0"),
        ("optimizer.server.w_decay", "-1", "at least 0"),
        ("optimizer.client.modules", "adam", "a list"),
        ("optimizer.client.modules.0.parameters", "0", "a mapping of parameters"),
        *(
            ("model.module", value, "a file in the folder MODELS and a function in it, as my_model.py:build")
            for value in (
                "my_model.py",
                "build",
                "../a.py:f",
                "/a.py:f",
                "a.py:f()",
                "a.txt:f",
                "a//b.py:f",
                "./a.py:f",
            )
        ),
        ("model.module", "3", "a text"),
        ("federation.join_timeout", "0", "a number above 0"),
        ("federation.join_grace", "-1", "at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused(tmp_path: Path, key: str, value: str, wanted: str) -> None:
    """The line names file, key and value, and what would have been right."""
    path = key.split(".")
    if path[-1] == "parameters":
        text = "{optimizer: {client: {modules: [{adam: " + value + "}]}}}"
    else:
        text = "".join(f"{{{part}: " for part in path) + value + "}" * len(path)
    found = repr(yaml.safe_load(value))
    assert refusal(tmp_path, text) == f"e.yml: {key} is {found}; wanted {wanted}; correct {key}"


@pytest.mark.parametrize("truth", ["yes", "no", "true", "off"])
@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("rounds", "a whole number"),
        ("seed", "a whole number"),
        ("train.batch_size", "a whole number"),
        ("optimizer.client.lrate", "a number"),
        ("optimizer.client.w_decay", "a number"),
        ("data.alpha", "a number"),
        ("federation.join_grace", "a number"),
    ],
)
def test_a_truth_value_is_no_number(tmp_path: Path, key: str, wanted: str, truth: str) -> None:
    """YAML's `yes` and `no` are not taken for 1 and 0."""
    path = key.split(".")
    text = "".join(f"{{{part}: " for part in path) + truth + "}" * len(path)
    found = yaml.safe_load(truth)
    assert refusal(tmp_path, text) == f"e.yml: {key} is {found}; wanted {wanted}; correct {key}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "privacy: {epsilon: 3}",
            (
                "e.yml: privacy.max_grad_norm is missing; wanted a norm to clip to: no noise hides what has no bound;"
                " add max_grad_norm"
            ),
        ),
        ("privacy: {max_grad_norm: 1}", "e.yml: privacy.epsilon is missing; wanted a privacy budget; add epsilon"),
        (
            "privacy: {epsilon: 3, max_grad_norm: 1, delta: 1}",
            "e.yml: privacy.delta is 1; wanted a number below 1; correct privacy.delta",
        ),
        (
            "privacy: {epsilon: 3, max_grad_norm: 1, accountant: gdp}",
            "e.yml: privacy.accountant is 'gdp'; wanted 'rdp' or 'pld'; did you mean 'rdp'?",
        ),
        (
            "privacy: {epsilon: 3, max_grad_norm: 1, kind: local}",
            "e.yml: privacy.kind is 'local'; wanted 'sample' or 'central'; did you mean 'central'?",
        ),
        ("model: cn", f"e.yml: model.preset is 'cn'; wanted {PRESETS}; did you mean 'cnn'?"),
        ("model: vit", f"e.yml: model.preset is 'vit'; wanted {PRESETS}; correct model.preset"),
        (
            "data: {scheme: label}",
            f"e.yml: data.scheme is 'label'; wanted {SCHEMES}; did you mean 'labels'?",
        ),
        (
            "data: {dataset: cifar}",
            "e.yml: data.dataset is 'cifar'; wanted 'mnist', 'fashion-mnist' or 'own'; correct data.dataset",
        ),
        ("data: {size: [28]}", "e.yml: data.size is a list; wanted no fewer than 2 of them; correct data.size"),
        ("data: {size: [1, 2, 3]}", "e.yml: data.size is a list; wanted no more than 2 of them; correct data.size"),
        ("data: {shape: [28, 0]}", "e.yml: data.shape.1 is 0; wanted at least 1; correct data.shape.1"),
        (
            "aggregator: average",
            (
                "e.yml: aggregator.name is 'average'; wanted 'averaging', 'gradient-masked-averaging' or 'sum';"
                " did you mean 'averaging'?"
            ),
        ),
        (
            "optimizer: {client: {modules: [admm]}}",
            f"e.yml: optimizer.client.modules.0.name is 'admm'; wanted {MODULES}; did you mean 'adam'?",
        ),
        (
            "optimizer: {client: {regularizers: [adam]}}",
            (
                "e.yml: optimizer.client.regularizers.0.name is 'adam'; wanted 'fedprox', 'lasso' or 'ridge';"
                " correct optimizer.client.regularizers.0.name"
            ),
        ),
        (
            "optimizer: {client: {lrate: cosine}}",
            (f"e.yml: optimizer.client.lrate.name is 'cosine'; wanted {SCHEDULERS}; did you mean 'cosine-annealing'?"),
        ),
        (
            "data: {scheme: }",
            f"e.yml: data.scheme is empty; wanted {SCHEMES}; correct data.scheme",
        ),
    ],
)
def test_an_unknown_name_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """A name that is none of the known ones is answered with all of them, and the nearest where one is near."""
    assert refusal(tmp_path, text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *(
            (
                f"model: {text}",
                "e.yml: model is a mapping; wanted one of preset, module and sklearn, and one alone; correct model",
            )
            for text in ("{preset: cnn, module: a.py:f}", "{preset: }")
        ),
        (
            "optimizer: {client: {modules: [adam: {amsgrade: true}]}}",
            (
                "e.yml: unknown key 'amsgrade' in optimizer.client.modules.0.adam;"
                " wanted one of beta_1, beta_2, amsgrad, eps; did you mean 'amsgrad'?"
            ),
        ),
        (
            "optimizer: {server: {modules: [ewma, momentum: {beta: x}]}}",
            (
                "e.yml: optimizer.server.modules.1.momentum.beta is 'x'; wanted a number;"
                " correct optimizer.server.modules.1.momentum.beta"
            ),
        ),
        (
            "optimizer: {server: {modules: [{name: momentum, parameters: {beta: true}}]}}",
            (
                "e.yml: optimizer.server.modules.0.momentum.beta is True; wanted a number;"
                " correct optimizer.server.modules.0.momentum.beta"
            ),
        ),
        (
            "optimizer: {client: {regularizers: [fedprox: {alpha: }]}}",
            (
                "e.yml: optimizer.client.regularizers.0.fedprox.alpha is empty; wanted a number;"
                " correct optimizer.client.regularizers.0.fedprox.alpha"
            ),
        ),
        (
            "aggregator: {averaging: {steps_weighted: 1}}",
            (
                "e.yml: aggregator.averaging.steps_weighted is 1; wanted true or false;"
                " correct aggregator.averaging.steps_weighted"
            ),
        ),
        (
            "aggregator: {gradient-masked-averaging: {threshold: 2}}",
            (
                "e.yml: aggregator.gradient-masked-averaging.threshold is 2; wanted at most 1;"
                " correct aggregator.gradient-masked-averaging.threshold"
            ),
        ),
        (
            "optimizer: {client: {lrate: {cosine-annealing: {base: 0.1, max_lr: 1, duration: 2.5}}}}",
            (
                "e.yml: optimizer.client.lrate.cosine-annealing.duration is 2.5; wanted a whole number;"
                " correct optimizer.client.lrate.cosine-annealing.duration"
            ),
        ),
        (
            "optimizer: {client: {lrate: cosine-annealing}}",
            "e.yml: optimizer.client.lrate.cosine-annealing.base is missing; add base",
        ),
        (
            "optimizer: {client: {lrate: {warmup: {base: {linear-decay: {base: 1, rat: 1}}, warmup: 3}}}}",
            (
                "e.yml: unknown key 'rat' in optimizer.client.lrate.warmup.base.linear-decay; wanted one of base, rate,"
                " step_level; did you mean 'rate'?"
            ),
        ),
        ("aggregator: {sum: {x: 1}}", "e.yml: unknown key 'x' in aggregator.sum; wanted none; remove it or correct it"),
        (
            "optimizer: {client: {modules: [momentum: {1: 2}]}}",
            (
                "e.yml: unknown key '1' in optimizer.client.modules.0.momentum; wanted one of beta, nesterov;"
                " remove it or correct it"
            ),
        ),
    ],
)
def test_a_wrong_parameter_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """A parameter that a plug-in lacks, or a value it can't take, is named with the plug-in."""
    assert refusal(tmp_path, text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "data:",
            f"e.yml: data is empty; wanted a mapping of {DATA}; correct data",
        ),
        (
            "data: [1]",
            f"e.yml: data is a list; wanted a mapping of {DATA}; correct data",
        ),
        (
            "data: 3",
            f"e.yml: data is 3; wanted a mapping of {DATA}; correct data",
        ),
        (
            "optimizer: {client: 3}",
            (
                "e.yml: optimizer.client is 3; wanted a mapping of lrate, w_decay, regularizers, modules;"
                " correct optimizer.client"
            ),
        ),
        (
            "optimizer: {client: {modules: [3]}}",
            (
                "e.yml: optimizer.client.modules.0 is 3; wanted a mapping of name, parameters;"
                " correct optimizer.client.modules.0"
            ),
        ),
        (
            "optimizer: {client: {modules: [{}]}}",
            "e.yml: optimizer.client.modules.0.name is missing; add name",
        ),
        ("aggregator:", "e.yml: aggregator is empty; wanted a mapping of name, parameters; correct aggregator"),
        ("- rounds", f"e.yml: the file holds a list; wanted a mapping of sections; begin with one of {KEYS}"),
        ("rounds", f"e.yml: the file holds a text; wanted a mapping of sections; begin with one of {KEYS}"),
        ("3", f"e.yml: the file holds 3; wanted a mapping of sections; begin with one of {KEYS}"),
    ],
)
def test_what_is_no_section_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """Where keys are due, anything else is named for what it is, together with the keys."""
    assert refusal(tmp_path, text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nrounds: {", "e.yml, line 2: expected the node content, but found '<stream end>'"),
        ("rounds: 3\nrounds: 4", "e.yml, line 2: key 'rounds' stands twice"),
        ("train:\n  epochs: 1\n  steps: 2\n  epochs: 3", "e.yml, line 4: key 'epochs' stands twice"),
        ("rounds: 3\n\tseed: 1", "e.yml, line 2: found character '\\t' that cannot start any token"),
        ("? [a]\n: b", "e.yml, line 1: found unhashable key"),
        ("rounds: *x", "e.yml, line 1: found undefined alias 'x'"),
        (
            "train: !!python/object:os.system {}",
            "e.yml, line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("\nseed: 2026-13-45", "e.yml, line 2: '2026-13-45' can't be read as timestamp"),
        ("seed: 0x_", "e.yml, line 1: '0x_' can't be read as int"),
        ("seed: !!int ''", "e.yml, line 1: '' can't be read as int"),
        ("rounds: 3\x00", "e.yml: unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_malformed_yaml_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """What is no YAML, or no YAML that means one thing, is named with its line."""
    assert refusal(tmp_path, text) == f"{line}; wanted well-formed YAML; mend that line"


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """Brackets beyond what the parser bears are one line too."""
    assert refusal(tmp_path, "[" * 500) == "e.yml: nested too deeply; wanted well-formed YAML; mend that file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"rounds: 3 # caf\xe9", "not UTF-8 text"), (None, "Is a directory"), ("", "No such file or directory")],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    """A file that is missing, a folder or not UTF-8 is refused with the reason."""
    path = tmp_path / "e.yml"
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ExperimentError) as caught:
        experiment.load(path)
    assert str(caught.value) == (
        f"{path}: can't be read ({reason}); wanted an experiment file in YAML; set EXPERIMENT to the path of one"
    )
