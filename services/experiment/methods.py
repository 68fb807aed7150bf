"""What may be added to plain rounds: a draw of clients, further metrics, an early stop, fairness, robustness."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from services.experiment.base import Number, Positive, Section, Seed, Truth
from services.experiment.plugins import Plugin, plugin, table

_Above = Annotated[Number, Field(gt=0)]
_NotBelow = Annotated[Number, Field(ge=0)]
_Share = Annotated[Number, Field(ge=0, le=1)]
Label = Annotated[int, Field(ge=0, strict=True)]

# -- who takes part in a round ----------------------------------------------------------------------------------------

Criterion = Literal[
    "composition", "constant", "gradient_norm", "normalized_divergence", "train_time", "train_time_history"
]
Sampler = Literal["composition", "criterion", "default", "uniform", "weighted"]


class CriterionPlugin(Plugin):
    """What declearn scores clients by, with its parameters."""

    name: Criterion


class SamplerPlugin(Plugin):
    """A client sampler of declearn, with its parameters."""

    name: Sampler = "default"

    def fewest(self) -> int | None:
        """Tell how many clients it draws where more are there; None stands for all."""
        if self.name == "composition":
            inner = [SamplerPlugin.model_validate(spec).fewest() for spec in self.parameters["samplers"]]
            return None if None in inner else sum(count or 0 for count in inner)
        found: int | None = self.parameters.get("n_samples")
        return found

    def criteria(self) -> set[str]:
        """Name the criteria that it goes by."""
        if self.name == "composition":
            inner = [SamplerPlugin.model_validate(spec).criteria() for spec in self.parameters["samplers"]]
            return set().union(*inner)
        return _names(self.parameters["criterion"]) if self.name == "criterion" else set()


def _names(criterion: dict[str, Any]) -> set[str]:
    parents = criterion.get("parameters", {}).get("parents", [])
    return {criterion["name"]}.union(*map(_names, parents))


_Criterion = Annotated[CriterionPlugin, BeforeValidator(plugin)]
_Sampler = Annotated[SamplerPlugin, BeforeValidator(plugin)]
_DRAWN = {"n_samples": (Positive, ...)}

CriterionPlugin.table = table(
    {
        "composition": {
            "operation": (Literal["add", "+", "sub", "-", "mul", "*", "div", "truediv", "/", "pow"], ...),
            "parents": (Annotated[tuple[_Criterion, ...], Field(min_length=2, max_length=2)], ...),
        },
        "constant": {"value": (Number, ...)},
        "gradient_norm": {},
        "normalized_divergence": {},
        "train_time": {"lower_is_better": (Truth, True)},
        "train_time_history": {
            "lower_is_better": (Truth, True),
            "agg_func": (Literal["average", "sum"], "average"),
        },
    }
)
# without `max_retries`, which is of no effect: none of them can draw nobody
SamplerPlugin.table = table(
    {
        "composition": {"samplers": (Annotated[tuple[_Sampler, ...], Field(min_length=1)], ...)},
        "criterion": {
            **_DRAWN,
            "criterion": (_Criterion, ...),
            "missing_scores_policy": (Literal["priority", "equal"], "priority"),
        },
        "default": {},
        "uniform": {**_DRAWN, "seed": (Seed | None, None)},
        "weighted": {**_DRAWN, "client_to_weight": (dict[str, _Above], ...), "seed": (Seed | None, None)},
    }
)

# -- what is measured -------------------------------------------------------------------------------------------------

Metric = Literal["binary-classif", "binary-roc", "mae", "mse", "multi-classif", "r2"]


class MetricPlugin(Plugin):
    """A metric of declearn, with its parameters."""

    # `labels` of multi-classif are the model's classes
    table = table(
        {
            "binary-classif": {"thresh": (_Share, 0.5), "label": (Label, 1)},
            "binary-roc": {
                "scale": (Annotated[_Above, Field(le=0.5)], 0.1),
                "label": (Label, 1),
                "bound": (tuple[Number, Number] | None, None),
            },
            "mae": {},
            "mse": {},
            "multi-classif": {},
            "r2": {},
        }
    )

    name: Metric


# -- when to stop -----------------------------------------------------------------------------------------------------


class EarlyStop(Section):
    """When to end a run before its last round.

    Attributes:
        patience: rounds in a row without improvement that end the run, or null for none.
        metric: the column of history.csv that is watched.
        tolerance: improvement on the best value so far that does not yet count as one.
        relative: take `tolerance` as a share of the best value.
        decrease: whether lower is better; null goes by the metric: a loss falls, an accuracy rises.
    """

    patience: Positive | None = None
    metric: Literal["loss", "accuracy", "test_loss", "test_accuracy"] = "loss"
    tolerance: Number = 0.0
    relative: Truth = False
    decrease: Truth | None = None


# -- fairness and robustness ------------------------------------------------------------------------------------------

Algorithm = Literal["fairbatch", "fairfed", "fairgrad", "monitor"]


class FairnessPlugin(Plugin):
    """A fairness controller of declearn, with its parameters."""

    table = table(
        {
            "fairbatch": {"alpha": (_Above, 0.005), "fedfb": (Truth, False)},
            "fairfed": {"beta": (_NotBelow, 1.0), "strict": (Truth, True), "target": (Label | None, None)},
            "fairgrad": {"eta": (_Above, 0.01), "eps": (_NotBelow, 1e-6)},
            "monitor": {},
        }
    )

    name: Algorithm


class Fairness(Section):
    """Fairness between groups of training images; a group is a label and an attribute.

    Attributes:
        algorithm: declearn's controller, or null for none; `monitor` measures and changes nothing.
        function: what is to be equal between groups.
        target: label that `equality_of_opportunity` is about.
        groups: attribute of an image: `ink`, whether it has much of it; `class`, its label; `own`, what its site says.
        ink: mean intensity from which an image has much ink; the default is MNIST's mean.
        positive: labels that count as 1, all others as 0, or null to keep labels apart.
    """

    algorithm: Annotated[FairnessPlugin, BeforeValidator(plugin)] | None = None
    function: Literal["accuracy_parity", "demographic_parity", "equality_of_opportunity", "equalized_odds"] = (
        "accuracy_parity"
    )
    target: Label = 1
    groups: Literal["ink", "class", "own"] = "ink"
    ink: Annotated[Number, Field(gt=0, lt=1)] = 0.13
    positive: Annotated[tuple[Label, ...], Field(min_length=1)] | None = None


class Robust(Section):
    """Rules of the server's against updates that some clients made up.

    Attributes:
        max_update_norm: L2 norm to which each client's update is clipped, or null for none.
        aggregator: rule in place of the plan's aggregator, each client counting once; or null.
        trim: share of clients that `trimmed-mean` leaves out at either end.
    """

    max_update_norm: _Above | None = None
    aggregator: Literal["median", "trimmed-mean"] | None = None
    trim: Annotated[Number, Field(gt=0, lt=0.5)] = 0.1
