"""What sets a client up: every plan's passes, and code, strangers and giants are refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from declearn import messaging
from declearn.metrics import MetricSet
from declearn.model.sklearn import SklearnSGDModel

from services.architecture import Size
from services.client import blueprint
from services.client.blueprint import Limits
from services.errors import DistrustError
from services.experiment import Plan
from services.experiment.model import Preset
from services.server.model import build_metrics, build_model, build_optim
from services.transport.packs import unpack
from tests.test_registry import KINDS, content, plug_ins

LIMITS = Limits(1_000_000)

CASES = [
    *({"model": name} for name in Preset.__args__),  # type: ignore[attr-defined]
    *({"model": {"sklearn": {"loss": loss}}} for loss in ("log_loss", "hinge", "huber")),
    {"model": {"sklearn": {"penalty": "none"}}},
    {"model": {"sklearn": {"penalty": "elasticnet", "l1_ratio": 0.5, "fit_intercept": False}}},
    *(content(group, name) for group, name in plug_ins() if group in KINDS),
]


def request(changes: dict[str, Any], **more: Any) -> messaging.InitRequest:
    """Make what the server sends for a plan."""
    plan = Plan.model_validate(changes)
    optim = build_optim(plan)
    return messaging.InitRequest(
        model=build_model(plan),
        optim=optim.client_opt,
        aggrg=optim.aggregator,
        metrics=MetricSet(build_metrics(plan, 10)).get_config()["metrics"],
        **more,
    )


def fields(message: messaging.InitRequest) -> dict[str, Any]:
    """Give its fields as plain data."""
    found: dict[str, Any] = unpack(message.serialize()[1 + len(message.typekey) :], 200_000)
    return found


@pytest.fixture(scope="module")
def network() -> dict[str, Any]:
    """What a client of the smallest network is sent."""
    return fields(request({"model": "logistic"}))


@pytest.fixture(scope="module")
def linear() -> dict[str, Any]:
    """What a client of a linear model is sent."""
    return fields(request({"model": {"sklearn": {}}}))


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_what_a_plan_names_passes(changes: dict[str, Any]) -> None:
    """Each preset, linear model and plug-in of a plan sets a client up."""
    sent = fields(request({"model": "logistic", **changes}))
    checked, size = blueprint.checked(copy.deepcopy(sent), LIMITS)
    assert size.classes == 10
    assert {key: value for key, value in checked.items() if key != "model"} == {
        key: value for key, value in sent.items() if key != "model"
    }


@pytest.mark.parametrize("more", [{"dpsgd": True}, {"secagg": "masking"}, {"secagg": "joye-libert"}])
def test_privacy_and_secure_aggregation_pass(more: dict[str, Any]) -> None:
    """What a client may be asked to do beside training passes."""
    blueprint.checked(fields(request({"model": "logistic"}, **more)), LIMITS)


def test_names_alone_are_read_as_declearn_reads_them(network: dict[str, Any]) -> None:
    """A stock server may name a metric or a module without its parameters."""
    optim = {"__type__": "Optimizer", "dump": {**network["optim"]["dump"], "modules": ["adam", ["momentum", {}]]}}
    blueprint.checked({**network, "metrics": ["mse"], "optim": optim}, LIMITS)


def put(sent: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Copy what is sent, with a value in place of what stands at a path."""
    changed = copy.deepcopy(sent)
    *parents, last = path.split(".")
    place: Any = changed
    for part in parents:
        place = place[int(part) if part.isdecimal() else part]
    place[int(last) if last.isdecimal() else last] = value
    return changed


def refusal(sent: dict[str, Any], limits: Limits = LIMITS) -> str:
    """Give the line with which a set-up is refused."""
    with pytest.raises(DistrustError) as caught:
        blueprint.checked(sent, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {"function": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}},
    "registered_name": None,
}


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("model.dump.model.config.layers.1", LAMBDA, "the server's model is refused: a Lambda layer is code; wanted"),
        (
            "model.dump.model.config.layers.1",
            {"module": "os", "class_name": "system", "config": {}, "registered_name": None},
            "the server's model is refused: class 'system' is not of Keras; wanted",
        ),
        ("model.dump.model", LAMBDA, "the server's model is refused: a Lambda layer is code; wanted"),
        ("model.dump.model", {}, "the server's model is refused: None is no network; wanted"),
        ("model.dump.loss", "os.system", "the server's model is refused: loss 'os.system' is not of Keras; wanted"),
        ("model.dump.loss", LAMBDA, "the server's model is refused: a Lambda layer is code; wanted"),
        ("model.dump.kwargs", {"optimizer": "adam"}, "the server's model is refused: it is compiled with 'optimizer'"),
        ("model.dump.kwargs", {"metrics": [LAMBDA]}, "the server's model is refused: it is compiled with 'metrics'"),
        (
            "model.dump.kwargs",
            {"run_eagerly": True},
            "the server's model is refused: it is compiled with 'run_eagerly'",
        ),
        ("model.dump.more", 1, "the server's model has more 1; wanted extra inputs"),
        ("model.dump.model.config.layers", [], "the server's model is refused: Keras can't build it (ValueError: "),
        (
            "model.__type__",
            "TorchModel",
            "the server names 'TorchModel'; wanted one of SklearnSGDModel, TensorflowModel;",
        ),
        ("model.__type__", "HaikuModel", "the server names 'HaikuModel'; wanted one of"),
        ("model.__type__", "Optimizer", "the server names 'Optimizer'; wanted one of"),
        ("model.__type__", ["TensorflowModel"], "the server names ['TensorflowModel']; wanted one of"),
        ("model.more", 1, "the server names 'TensorflowModel'; wanted"),
        ("model", 3, "the server's set-up has model 3; wanted a valid dictionary"),
        ("optim.__type__", "TensorflowModel", "the server names 'TensorflowModel'; wanted one of Optimizer"),
        (
            "optim.dump.modules",
            [["tensorflow-optim", {"optim": LAMBDA}]],
            "the server names 'tensorflow-optim'; wanted",
        ),
        ("optim.dump.modules", [["adam", {"beta_1": 3}]], "the server's adam has beta_1 3; wanted"),
        ("optim.dump.modules", [["adam", {"hook": 3}]], "the server's adam has hook 3; wanted extra inputs"),
        ("optim.dump.modules", ["adam"] * 17, "the server's optimizer has modules "),
        ("optim.dump.modules", [3], "the server names 3; wanted a name and parameters"),
        ("optim.dump.regularizers", ["os"], "the server names 'os'; wanted one of fedprox, lasso, ridge"),
        ("optim.dump.lrate", "fast", "the server's optimizer has a rate of 'fast'; wanted a number, or a schedule"),
        ("optim.dump.lrate", float("nan"), "the server's optimizer has a rate of nan; wanted"),
        ("optim.dump.w_decay", ["os", {}], "the server names 'os'; wanted one of cosine-annealing"),
        ("optim.dump.lrate", ["warmup", {"base": ["os", {}], "warmup": 1}], "the server names 'os'; wanted one of"),
        (
            "optim.dump.lrate",
            ["linear-decay", {"base": 1, "rate": -1}],
            "the server's linear-decay has rate -1; wanted",
        ),
        ("aggrg.__type__", "Nothing", "the server names 'Nothing'; wanted one of AveragingAggregator"),
        ("aggrg.dump.hook", 1, "the server's averaging has hook 1; wanted extra inputs"),
        ("metrics", ["os"], "the server names 'os'; wanted one of binary-classif"),
        ("metrics", [["multi-classif", {"labels": "abc"}]], "the server's multi-classif has labels 'abc'; wanted"),
        ("metrics", [["multi-classif", {"labels": [[]]}]], "the server's multi-classif has labels [[]]; wanted"),
        (
            "metrics",
            [["multi-classif", {"labels": list(range(1001))}]],
            "the server's multi-classif counts 1,001 classes",
        ),
        ("metrics", [["binary-roc", {"scale": 1e-9}]], "the server's binary-roc has too fine a scale; wanted at most"),
        ("metrics", [["binary-roc", {"bound": [0.0, 1e9]}]], "the server's binary-roc has too fine a scale; wanted at"),
        ("metrics", [["binary-roc", {"bound": [1.0, 0.0]}]], "the server's binary-roc has too fine a scale; wanted at"),
        ("metrics", ["mse"] * 17, "the server's set-up has metrics "),
        ("secagg", "none", "the server's set-up has secagg 'none'; wanted"),
        ("dpsgd", 1, "the server's set-up has dpsgd 1; wanted a valid boolean"),
        ("hook", 1, "the server's set-up has hook 1; wanted extra inputs"),
    ],
)
def test_what_is_none_of_a_plan_s_is_refused(network: dict[str, Any], path: str, value: Any, line: str) -> None:
    """In each place what is code, unknown, of another place or out of range is named in one line."""
    assert refusal(put(network, path, value)).startswith(line)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("model.dump.kind", "regressor", "the server's model has kind 'regressor'; wanted 'classifier'"),
        ("model.dump.dtype", "object", "the server's model has dtype 'object'; wanted"),
        ("model.dump.params.loss", "os", "the server's model has loss 'os'; wanted"),
        ("model.dump.params.penalty", "os", "the server's model has penalty 'os'; wanted"),
        ("model.dump.params.alpha", -1, "the server's model has alpha -1; wanted"),
        ("model.dump.params.n_jobs", -1, "the server's model is refused: it has n_jobs -1; wanted"),
        ("model.dump.params.verbose", 5, "the server's model is refused: it has verbose 5; wanted"),
        ("model.dump.params.hook", 5, "the server's model is refused: it has hook 5; wanted"),
        ("model.dump.params.class_weight", {}, "the server's model has params.class_weight"),
        ("model.dump.data_info", None, "the server's model has data_info None; wanted"),
        ("model.dump.data_info.classes", [0], "the server's model has data_info.classes [0]; wanted"),
        (
            "model.dump.data_info.features_shape",
            [2, 2],
            "the server's model has data_info.features_shape [2, 2]; wanted",
        ),
        ("model.dump.data_info.features_shape", [0], "the server's model has data_info.features_shape.0 0; wanted"),
        (
            "model.dump.data_info.features_shape",
            [10**15],
            "the server's model has 10,000,000,000,000,010 parameters; wanted at most 1,000,000; raise MAX_PARAMETERS",
        ),
    ],
)
def test_a_linear_model_is_one_of_a_plan_s(linear: dict[str, Any], path: str, value: Any, line: str) -> None:
    """scikit-learn's classifier comes with what a plan may set, without threads, and of a size."""
    assert refusal(put(linear, path, value)).startswith(line)


def test_a_model_that_is_too_large_is_refused_unbuilt(network: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """More units than the limit allows are refused with their number, and no model is made; a larger limit helps."""
    monkeypatch.delattr("declearn.model.tensorflow.TensorflowModel.from_config")
    large = put(network, "model.dump.model.config.layers.2.config.units", 2000)
    line = "the server's model has 1,570,000 parameters; wanted at most 1,000,000; raise MAX_PARAMETERS"
    assert refusal(large).startswith(line)
    assert blueprint.checked(large, Limits(2_000_000))[1].parameters == 1_570_000


def test_a_model_of_too_many_layers_is_refused(network: dict[str, Any]) -> None:
    """More layers than are allowed are refused before Keras, which takes long for them, sees any."""
    layers = network["model"]["dump"]["model"]["config"]["layers"]
    many = put(network, "model.dump.model.config.layers", [*layers[:2], *[layers[1]] * 500, layers[2]])
    assert refusal(many).startswith("the server's model is refused: it has 503 layers, more than 500; wanted")


def test_what_a_model_makes_of_images_is_bounded(network: dict[str, Any]) -> None:
    """Few weights may make many numbers: an image blown up is refused, and so is a batch of too many."""
    layer = {
        "module": "keras.layers",
        "class_name": "UpSampling2D",
        "config": {"size": [400, 400], "data_format": "channels_last", "interpolation": "nearest"},
        "registered_name": None,
    }
    shrunk = {**layer, "class_name": "GlobalAveragePooling2D", "config": {"data_format": "channels_last"}}
    layers = network["model"]["dump"]["model"]["config"]["layers"]
    config = {
        "name": "net",
        "layers": [layers[0], layer, shrunk, {k: v for k, v in layers[2].items() if k != "build_config"}],
    }
    large = put(network, "model.dump.model.config", config)
    large["model"]["dump"]["model"].pop("build_config")
    assert refusal(large).startswith("the server's model makes 251,822,409 numbers of an image; wanted at most")
    assert blueprint.checked(large, Limits(10_000_000))[1].parameters == 20
    size = Size(parameters=10, values=1_000_000, image_shape=(28, 28), classes=10)
    blueprint.check_batch(size, 100, LIMITS)
    with pytest.raises(DistrustError, match="makes 101,000,000 numbers of a batch of 101; wanted at most 100,000,000"):
        blueprint.check_batch(size, 101, LIMITS)


def test_how_a_network_was_compiled_is_left_out(network: dict[str, Any]) -> None:
    """The server's optimizer of Keras' own, which nobody uses, is not even looked at."""
    sent = put(network, "model.dump.model.compile_config", {"optimizer": LAMBDA})
    checked, _ = blueprint.checked(sent, LIMITS)
    assert "compile_config" not in checked["model"]["dump"]["model"]


def test_declearn_would_start_threads_for_a_linear_model() -> None:
    """Without a look at it, a server may let scikit-learn take all processors of a client."""
    assert SklearnSGDModel.from_parameters("classifier", n_jobs=-1).get_config()["params"]["n_jobs"] == -1
