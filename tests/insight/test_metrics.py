"""The figures of live quality, beside scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn import metrics

from onrecord.insight.metrics import (
    classification_metrics,
    mean,
    regression_metrics,
    roc_auc,
    wilson,
)


@pytest.mark.parametrize("seed", range(20))
def test_two_classes_are_judged_as_scikit_learn_judges_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 400))
    chance = random.uniform(size=n).round(int(random.integers(1, 4)))  # so that there are ties
    actual = np.where(random.uniform(size=n) < chance, "yes", "no")
    actual[:2] = ["yes", "no"]
    predicted = np.where(chance > 0.5, "yes", "no")
    scores = np.column_stack((1 - chance, chance))

    found = classification_metrics(list(predicted), list(actual), scores, ["no", "yes"])

    truth = actual == "yes"
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(actual, predicted))
    assert found["roc_auc"]["value"] == pytest.approx(metrics.roc_auc_score(truth, chance))
    assert found["brier"]["value"] == pytest.approx(metrics.brier_score_loss(truth, chance))
    assert found["log_loss"]["value"] == pytest.approx(
        metrics.log_loss(actual, scores, labels=["no", "yes"])
    )
    wanted = metrics.confusion_matrix(actual, predicted, labels=["no", "yes"])
    assert found["confusion"] == {"classes": ["no", "yes"], "counts": wanted.tolist()}
    assert sum(it["n"] for it in found["calibration"]) == n


@pytest.mark.parametrize("seed", range(10))
def test_several_classes_are_judged_as_scikit_learn_judges_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.dirichlet([1, 2, 1.5], size=300)
    classes = ["a", "b", "c"]
    actual = [classes[random.choice(3, p=row)] for row in scores]
    predicted = [classes[i] for i in scores.argmax(axis=1)]

    found = classification_metrics(predicted, actual, scores, classes)

    assert found["roc_auc"]["value"] == pytest.approx(
        metrics.roc_auc_score(actual, scores, multi_class="ovr", labels=classes)
    )
    assert found["log_loss"]["value"] == pytest.approx(
        metrics.log_loss(actual, scores, labels=classes)
    )
    hits = np.array(actual)[:, None] == np.array(classes)
    assert found["brier"]["value"] == pytest.approx(((scores - hits) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("seed", range(10))
def test_numbers_are_judged_as_scikit_learn_judges_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    actual = random.normal(size=200)
    predicted = actual + random.normal(0, 0.4, 200)

    found = regression_metrics(predicted, actual)

    assert found["mae"]["value"] == pytest.approx(metrics.mean_absolute_error(actual, predicted))
    assert found["rmse"]["value"] == pytest.approx(
        metrics.root_mean_squared_error(actual, predicted)
    )
    assert found["r2"]["value"] == pytest.approx(metrics.r2_score(actual, predicted))
    assert found["residuals"]["p50"] == pytest.approx(np.median(actual - predicted))
    assert found["rmse"]["low"] < found["rmse"]["value"] < found["rmse"]["high"]


def test_what_cannot_be_told_is_not_made_up() -> None:
    one_class = classification_metrics(["a"] * 5, ["a"] * 5, np.full((5, 2), 0.5), ["a", "b"])
    assert one_class["roc_auc"] == {"value": None, "low": None, "high": None}
    assert "log_loss" not in classification_metrics(["a"], ["b"], None, [])
    assert regression_metrics(np.array([1.0]), np.array([2.0]))["r2"]["value"] is None
    assert mean(np.array([3.0])) == {"value": 3.0, "low": None, "high": None}


def test_a_class_that_the_model_never_knew_counts_as_wrong() -> None:
    found = classification_metrics(["a", "b"], ["a", "z"], np.eye(2), ["a", "b"])

    assert found["accuracy"]["value"] == 0.5
    assert found["confusion"]["classes"] == ["a", "b", "z"]
    assert math.isfinite(found["log_loss"]["value"])


def test_intervals_hold_what_is_true_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(4)
    share, held, areas = 0.8, 0, 0
    for _ in range(400):
        found = wilson(int(random.binomial(120, share)), 120)
        held += found["low"] <= share <= found["high"]
        positive = random.uniform(size=150) < 0.4
        scores = random.normal(size=150) + positive
        area = roc_auc(scores, positive)
        areas += area["low"] <= 0.7602 <= area["high"]  # of two normals one apart

    assert held / 400 > 0.92
    assert areas / 400 > 0.92
