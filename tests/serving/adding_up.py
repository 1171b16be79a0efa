"""Compares explanations with the answers of the model, by formulas of the tests' own."""

from typing import Any

import numpy as np
import pytest

from onrecord.serving.explanations import Explanations, explain
from onrecord.serving.runtimes import Runtime


def rows_of_array(table: Any) -> list[tuple[Any, ...]]:
    return [
        tuple(None if isinstance(it, float) and np.isnan(it) else it for it in row)
        for row in table.tolist()
    ]


def logistic(margin: Any) -> Any:
    return 1 / (1 + np.exp(-margin))


def softmax(margins: Any) -> Any:
    raised = np.exp(margins - margins.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


LINKS = {
    "log-odds": logistic,
    "log-prediction": np.exp,
    "margin": softmax,
    "prediction": np.asarray,
    "probability": np.asarray,
}


def add_up(runtime: Runtime, rows: list[tuple[Any, ...]]) -> Explanations:
    """Check that what adds up is the answers; return the explanations."""
    found = explain(runtime, rows)
    (answers,) = runtime.predict(rows).targets
    told = LINKS[found.space](found.base + found.contributions.sum(axis=2))
    if answers.probabilities is None:
        assert told[:, 0] == pytest.approx(np.array(answers.values), rel=1e-4, abs=1e-4)
    elif found.classes is None:
        assert told[:, 0] == pytest.approx(np.array(answers.probabilities)[:, 1], abs=1e-4)
    else:
        assert told == pytest.approx(np.array(answers.probabilities), abs=1e-4)
        assert tuple(found.classes) == answers.classes
    return found
