"""Linear models of scikit-learn; without TensorFlow."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from declearn.model.api import Model
from declearn.model.sklearn import SklearnSGDModel
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier

from services.experiment import Plan
from services.linear import BINARY, LOSSES, LinearModel
from services.runs import SKLEARN_MODEL
from services.server.engines import Kept, unreadable
from services.source import Source


class SklearnEngine:
    """`SGDClassifier`s, through declearn's `SklearnSGDModel`."""

    file = SKLEARN_MODEL

    def build(self, plan: Plan, image_shape: tuple[int, ...], classes: int, source: Source | None) -> Model[Any]:
        """Build a classifier whose weights are all zero, as scikit-learn begins."""
        del source
        spec = plan.model.sklearn
        assert spec is not None  # noqa: S101 - this engine is that of such plans
        # declearn's names of penalties are those of an older scikit-learn, which now calls none of them None
        penalty: Any = None if spec.penalty == "none" else spec.penalty
        model = SklearnSGDModel.from_parameters(
            "classifier",
            loss=spec.loss,
            penalty=penalty,
            alpha=spec.alpha,
            l1_ratio=spec.l1_ratio,
            epsilon=spec.epsilon,
            fit_intercept=spec.fit_intercept,
        )
        model.initialize({"features_shape": (math.prod(image_shape),), "classes": list(range(classes))})
        return model

    def scorer(self, model: Model[Any]) -> _Scorer:
        """Score with what clients train with."""
        return _Scorer(LinearModel.of(cast("SklearnSGDModel", model)))

    def dump(self, model: Model[Any]) -> bytes:
        """Write weights as arrays for `numpy.load`, and nothing that would have to be unpickled."""
        wrapped = model.get_wrapped_model()
        file = io.BytesIO()
        np.savez(
            file,
            coef=wrapped.coef_,
            intercept=wrapped.intercept_,
            classes=wrapped.classes_,
            loss=np.array(wrapped.loss),
        )
        return file.getvalue()

    def read(self, path: Path) -> Kept:
        """Read weights, and the loss that they minimise."""
        try:
            with np.load(path, allow_pickle=False) as content:
                coef, intercept, classes = (np.asarray(content[key]) for key in ("coef", "intercept", "classes"))
                loss = str(content["loss"])
        except OSError as exc:
            raise unreadable(path, exc.strerror or "it is damaged") from exc
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error):
            raise unreadable(path, "it is damaged") from None
        columns = 1 if len(classes) == BINARY else len(classes)
        shapes = (coef.ndim == 2, coef.shape[:1] == (columns,), intercept.shape == (columns,), coef.size > 0)  # noqa: PLR2004 - a matrix
        numbers = (np.issubdtype(array.dtype, np.floating) for array in (coef, intercept))
        if not all(shapes) or not all(numbers) or loss not in LOSSES:
            raise unreadable(path, "it holds no linear model")
        wrapped = SGDClassifier(loss=loss)
        wrapped.coef_, wrapped.intercept_, wrapped.classes_ = coef, intercept, classes
        return Kept(_Scorer(LinearModel(wrapped, coef.dtype.name)), (int(coef.shape[1]),))


class _Scorer:
    def __init__(self, model: LinearModel) -> None:
        self._model = model

    def predict(self, images: NDArray[Any]) -> NDArray[Any]:
        scores: NDArray[Any] = self._model.compute_batch_predictions((images, np.zeros(len(images)), None))[1]
        return scores

    def losses(self, labels: NDArray[Any], scores: NDArray[Any]) -> NDArray[Any]:
        return self._model.loss_function(labels, scores)

    def chances(self, scores: NDArray[Any]) -> NDArray[Any] | None:
        return self._model.chances(scores)
