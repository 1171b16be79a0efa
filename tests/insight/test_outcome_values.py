"""Outcomes that no model could have predicted are refused, whatever they are."""

from typing import Any

import pytest

from onrecord.errors import InvalidInput
from onrecord.insight.outcome_values import checked_outcome
from onrecord.insight.recorded_calls import RecordedAnswer


@pytest.mark.parametrize(
    ("outcome", "predicted"),
    [
        (10**400, 1.5),
        (float("nan"), 1.5),
        ("1.5", 1.5),
        (True, 1.5),
        (1 << 63, 3),
        ("three", 3),
        ("\ud800", "high"),
        ("x" * 1001, "high"),
        ("maybe", True),
    ],
    ids=range(9),
)
def test_an_outcome_that_cannot_be_stored_or_predicted_is_refused(
    outcome: Any, predicted: Any
) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_outcome(outcome, RecordedAnswer(predicted))

    assert refused.value.faults[0].pointer == "/outcome"


@pytest.mark.parametrize(
    ("outcome", "predicted", "told"),
    [(2, 1.5, 2.0), ("7", 3, 7), (7, "high", "7"), ("true", False, True), (0, True, False)],
)
def test_an_outcome_is_kept_as_the_model_says_such_a_thing(
    outcome: Any, predicted: Any, told: Any
) -> None:
    found = checked_outcome(outcome, RecordedAnswer(predicted))

    assert (found, type(found)) == (told, type(told))
