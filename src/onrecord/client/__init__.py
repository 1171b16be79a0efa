"""The client of an onrecord server, blocking and awaited; it imports nothing of the server.

`calls.py` says what is asked, as flows of steps; `blocking.py` and `awaiting.py` take the steps.
"""

from onrecord.client.awaiting import AsyncClient, AsyncRecordedCalls
from onrecord.client.blocking import Client, RecordedCalls
from onrecord.client.calls import Body, Row
from onrecord.client.errors import (
    BodyTooLarge,
    ClientError,
    Conflict,
    FieldError,
    Forbidden,
    IdempotencyKeyReused,
    InsufficientScope,
    InvalidInput,
    ModelFailed,
    NotExplainable,
    NotFound,
    Problem,
    SignInRefused,
    TooManyRequests,
    Unanswerable,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    UnsupportedMediaType,
)
from onrecord.client.results import (
    Explanation,
    InclusionProof,
    Model,
    ModelVersion,
    Outcome,
    PredictedTable,
    Prediction,
    Predictions,
    RecordedCall,
    ToldOutcome,
)
from onrecord.client.retries import Retries

__all__ = [
    "AsyncClient",
    "AsyncRecordedCalls",
    "Body",
    "BodyTooLarge",
    "Client",
    "ClientError",
    "Conflict",
    "Explanation",
    "FieldError",
    "Forbidden",
    "IdempotencyKeyReused",
    "InclusionProof",
    "InsufficientScope",
    "InvalidInput",
    "Model",
    "ModelFailed",
    "ModelVersion",
    "NotExplainable",
    "NotFound",
    "Outcome",
    "PredictedTable",
    "Prediction",
    "Predictions",
    "Problem",
    "RecordedCall",
    "RecordedCalls",
    "Retries",
    "Row",
    "SignInRefused",
    "ToldOutcome",
    "TooManyRequests",
    "Unanswerable",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "UnsupportedMediaType",
]
