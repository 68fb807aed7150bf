"""Linear models of scikit-learn; without TensorFlow."""

from __future__ import annotations

import io
import math
from typing import Any, cast

import numpy as np
from declearn.model.api import Model
from declearn.model.sklearn import SklearnSGDModel
from numpy.typing import NDArray

from services.experiment import Plan
from services.linear import LinearModel
from services.source import Source


class SklearnEngine:
    """`SGDClassifier`s, through declearn's `SklearnSGDModel`."""

    file = "model.npz"

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
        np.savez(file, coef=wrapped.coef_, intercept=wrapped.intercept_, classes=wrapped.classes_)
        return file.getvalue()


class _Scorer:
    def __init__(self, model: LinearModel) -> None:
        self._model = model

    def predict(self, images: NDArray[Any]) -> NDArray[Any]:
        scores: NDArray[Any] = self._model.compute_batch_predictions((images, np.zeros(len(images)), None))[1]
        return scores

    def losses(self, labels: NDArray[Any], scores: NDArray[Any]) -> NDArray[Any]:
        return self._model.loss_function(labels, scores)
