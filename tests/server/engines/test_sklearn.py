"""Linear models of scikit-learn on the server: built, kept and run without TensorFlow."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from services.errors import DataError
from services.experiment import Plan
from services.server.engines.sklearn import SklearnEngine
from services.server.model import build_model
from tests.support import REPOSITORY


def plan(**spec: Any) -> Plan:
    """Make a plan of a linear model."""
    return Plan.model_validate({"model": {"sklearn": spec}})


@pytest.mark.parametrize("shape", [(28, 28), (4, 5, 3), (7,)])
@pytest.mark.parametrize("classes", [2, 10])
def test_a_classifier_takes_images_of_any_shape(shape: tuple[int, ...], classes: int) -> None:
    """All intensities of an image are its features; weights are zero at first, in one column for two classes."""
    wrapped = build_model(plan(), shape, classes).get_wrapped_model()
    assert isinstance(wrapped, SGDClassifier)
    assert wrapped.coef_.shape == (1 if classes == 2 else classes, np.prod(shape))
    assert not wrapped.coef_.any()
    assert list(wrapped.classes_) == list(range(classes))


def test_parameters_are_those_of_the_plan() -> None:
    """Each key of the section is the parameter of that name; `none` is no penalty."""
    spec = {"loss": "huber", "penalty": "elasticnet", "alpha": 0.5, "l1_ratio": 0.3, "epsilon": 0.2}
    wrapped = build_model(plan(**spec, fit_intercept=False)).get_wrapped_model()
    assert wrapped.get_params().items() >= {**spec, "fit_intercept": False}.items()
    assert build_model(plan(penalty="none")).get_wrapped_model().penalty is None


@pytest.mark.parametrize("classes", [2, 5])
def test_what_is_kept_predicts_with_numpy_alone(tmp_path: Path, classes: int) -> None:
    """model.npz holds arrays, none of them pickled, that give the scores that the server measured."""
    model, engine, rng = build_model(plan(), (3, 4), classes), SklearnEngine(), np.random.default_rng(0)
    wrapped = model.get_wrapped_model()
    wrapped.coef_, wrapped.intercept_ = rng.normal(size=wrapped.coef_.shape), rng.normal(size=len(wrapped.coef_))
    (tmp_path / engine.file).write_bytes(engine.dump(model))
    kept = np.load(tmp_path / "model.npz", allow_pickle=False)
    images = rng.random((20, 3, 4), np.float32)
    scores = images.reshape(20, -1) @ kept["coef"].T + kept["intercept"]
    told = engine.scorer(model).predict(images)
    np.testing.assert_allclose(told[:, -scores.shape[1] :], scores)
    assert list(kept["classes"]) == list(range(classes))
    np.testing.assert_array_equal(told.argmax(axis=1), wrapped.predict(images.reshape(20, -1)))


def test_no_tensorflow_is_loaded() -> None:
    """Importing and building all that a server needs for a linear model loads no TensorFlow."""
    program = (
        "import json, sys\n"
        "import services.server.main, services.server.federation, services.server.evaluation, services.report.main\n"
        "from services.experiment import Plan\n"
        "from services.server.model import build_model, build_optim\n"
        "plan = Plan.model_validate({'model': {'sklearn': {}}})\n"
        "build_model(plan), build_optim(plan)\n"
        "print(json.dumps([name for name in sys.modules if name in ('tensorflow', 'keras', 'torch')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("loss", ["log_loss", "hinge"])
def test_what_is_kept_reads_back(tmp_path: Path, classes: int, loss: str) -> None:
    """A model that was read gives the scores of the one that was kept, and scikit-learn's probabilities, or none."""
    model, engine, rng = build_model(plan(loss=loss), (3, 4), classes), SklearnEngine(), np.random.default_rng(0)
    wrapped = model.get_wrapped_model()
    wrapped.coef_, wrapped.intercept_ = rng.normal(size=wrapped.coef_.shape), rng.normal(size=len(wrapped.coef_))
    path = tmp_path / engine.file
    path.write_bytes(engine.dump(model))
    kept = engine.read(path)
    assert kept.shape == (12,)
    images = rng.random((20, 3, 4), np.float32)
    scores = kept.scorer.predict(images)
    np.testing.assert_allclose(scores, engine.scorer(model).predict(images))
    chances = kept.scorer.chances(scores)
    if loss == "hinge":
        assert chances is None
    else:
        assert chances is not None
        np.testing.assert_allclose(chances, wrapped.predict_proba(images.reshape(20, -1)), rtol=1e-6)


def test_scores_far_below_zero_leave_every_class_alike() -> None:
    """Where each class is told to be impossible, none is likelier than another, and nothing is divided by zero."""
    model = build_model(plan(loss="log_loss"), (1, 1), 3)
    chances = SklearnEngine().scorer(model).chances(np.full((1, 3), -1e4))
    assert chances is not None
    np.testing.assert_allclose(chances, [[1 / 3, 1 / 3, 1 / 3]])


def written(**arrays: Any) -> bytes:
    """Write arrays as a model is kept, over those of a sound one."""
    sound = {"coef": np.zeros((3, 4)), "intercept": np.zeros(3), "classes": np.arange(3), "loss": np.array("log_loss")}
    file = io.BytesIO()
    np.savez(file, **{key: value for key, value in (sound | arrays).items() if value is not None}, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive", "it is damaged"),
        (b"", "it is damaged"),
        (written()[:-30], "it is damaged"),
        (written(loss=None), "it is damaged"),
        (written(coef=np.array([object()])), "it is damaged"),
        (written(coef=np.zeros((2, 4))), "it holds no linear model"),
        (written(coef=np.zeros(3)), "it holds no linear model"),
        (written(intercept=np.zeros(2)), "it holds no linear model"),
        (written(coef=np.full((3, 4), "x")), "it holds no linear model"),
        (written(loss=np.array("zero_one")), "it holds no linear model"),
    ],
)
def test_what_is_no_linear_model_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that holds something else is told in one line, and nothing in it is unpickled."""
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        SklearnEngine().read(path)
    assert str(caught.value) == (
        f"{path} can't be used as a model ({reason}); wanted the model that a run left; name another file"
    )
