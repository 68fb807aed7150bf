"""What differs between the frameworks that a model may be of: a module for each, imported where a plan asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from declearn.model.api import Model
from numpy.typing import NDArray

from services import engine
from services.errors import DataError
from services.experiment import Plan
from services.runs import SKLEARN_MODEL
from services.source import Source


class Scorer(Protocol):
    """One model, made to be scored on many images; its weights count as they are now."""

    def predict(self, images: NDArray[Any]) -> NDArray[Any]:
        """Give scores (n, classes), the highest for the likeliest class, of float32 images (n, height, width, …)."""

    def losses(self, labels: NDArray[Any], scores: NDArray[Any]) -> NDArray[Any]:
        """Give the loss (n,) of scores (n, classes), by the measure that clients minimise."""

    def chances(self, scores: NDArray[Any]) -> NDArray[Any] | None:
        """Turn scores (n, classes) into probabilities; None where they tell none."""


@dataclass(frozen=True)
class Kept:
    """A model that was read from its file.

    Attributes:
        scorer: of it.
        shape: of one image that it takes: (height, width, channels), or (features,).
    """

    scorer: Scorer
    shape: tuple[int, ...]


class Engine(Protocol):
    """What the server needs of a framework."""

    @property
    def file(self) -> str:
        """Name of the file that a run's model is kept in."""

    def build(self, plan: Plan, image_shape: tuple[int, ...], classes: int, source: Source | None) -> Model[Any]:
        """Build the initial model of a plan.

        Args:
            plan: of it `model` and `seed` count here.
            image_shape: of one image: (height, width), or (height, width, channels).
            classes: number of classes.
            source: the file that `model.module` names, where it names one.

        Returns:
            A built declearn model, its initial weights drawn from the plan's seed.

        Raises:
            ExperimentError: the model can't take such images, or is none that a federation can train.
        """

    def scorer(self, model: Model[Any]) -> Scorer:
        """Make a model ready to be scored."""

    def dump(self, model: Model[Any]) -> bytes:
        """Write a model as a file that its own framework reads."""

    def read(self, path: Path) -> Kept:
        """Read a file that `dump` wrote; nothing in it is run.

        Raises:
            DataError: it can't be read, or holds no classifier of images.
        """


def of(plan: Plan) -> Engine:
    """Import the engine of a plan's model: seconds of work the first time."""
    return _load(sklearn=plan.model.sklearn is not None)


def read(path: Path) -> Kept:
    """Read the model that a run left in `path`, by the engine of such files; see `Engine.read`."""
    return _load(sklearn=path.suffix == Path(SKLEARN_MODEL).suffix).read(path)


def unreadable(path: Path, reason: str) -> DataError:
    """Word that a file holds no model that can be used."""
    return DataError(f"{path} can't be used as a model ({reason})", "the model that a run left", "name another file")


def _load(*, sklearn: bool) -> Engine:
    # each imports its framework, and one is needed
    if sklearn:
        from services.server.engines.sklearn import SklearnEngine  # noqa: PLC0415

        return SklearnEngine()
    engine.load()
    from services.server.engines.tensorflow import TensorflowEngine  # noqa: PLC0415

    return TensorflowEngine()
