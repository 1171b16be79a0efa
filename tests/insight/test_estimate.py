"""Estimated performance beside what then came true."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.isotonic import IsotonicRegression

from onrecord.insight.estimate import calibration, estimated


def scored(seed: int, n: int, *, bent: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and outcomes; the chance of a hit is the score to the power of `bent`."""
    random = np.random.default_rng(seed)
    scores = random.beta(1.5, 2, n).round(3)
    return scores, random.random(n) < scores**bent


@pytest.mark.parametrize("seed", range(20))
def test_of_calibrated_scores_the_truth_is_within_the_interval(seed: int) -> None:
    scores, hits = scored(seed, 4000)

    found = estimated(scores, scores > 0.5, None)

    # Four standard errors: by chance one in some ten thousand is beyond.
    truth = {
        "accuracy": metrics.accuracy_score(hits, scores > 0.5),
        "roc_auc": metrics.roc_auc_score(hits, scores),
    }
    for name, value in truth.items():
        half = found[name]["high"] - found[name]["value"]
        assert abs(value - found[name]["value"]) < 2.05 * half, name
    assert found["estimate"] is True
    assert found["calibrated"] is False


def test_scores_that_say_too_much_are_put_right_by_known_outcomes() -> None:
    known = calibration(*scored(1, 5000, bent=2))
    scores, hits = scored(2, 5000, bent=2)

    as_they_are = estimated(scores, scores > 0.5, None)["accuracy"]["value"]
    found = estimated(scores, scores > 0.5, known)

    truth = metrics.accuracy_score(hits, scores > 0.5)
    assert abs(as_they_are - truth) > 0.04
    assert found["accuracy"]["value"] == pytest.approx(truth, abs=0.02)
    assert found["roc_auc"]["value"] == pytest.approx(metrics.roc_auc_score(hits, scores), abs=0.02)
    assert found["calibrated"] is True


@pytest.mark.parametrize("seed", range(5))
def test_calibration_is_isotonic_regression(seed: int) -> None:
    scores, hits = scored(seed, 1000, bent=1.5)

    known = calibration(scores, hits)

    assert known is not None
    oracle = IsotonicRegression().fit(scores, hits)
    assert np.interp(scores, *known) == pytest.approx(oracle.predict(scores))


def test_few_or_equal_outcomes_calibrate_nothing() -> None:
    assert calibration(*scored(1, 299)) is None
    assert calibration(np.linspace(0, 1, 400), np.ones(400, dtype=bool)) is None
