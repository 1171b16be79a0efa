"""What the calls of the client return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

__all__ = [
    "Explanation",
    "InclusionProof",
    "Model",
    "ModelVersion",
    "Outcome",
    "PredictedTable",
    "Prediction",
    "Predictions",
    "RecordedCall",
    "ToldOutcome",
]

Frame = TypeVar("Frame")


class _Read:
    """What is read from a JSON object of the server, whose further members are passed by.

    A newer server may tell more than this client knows of. `_times` are those that are times.
    """

    _times: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Return what a JSON object says."""
        values = {it.name: told[it.name] for it in fields(cls)}  # type: ignore[arg-type]
        return cls(**values | {name: _time(told[name]) for name in cls._times})


@dataclass(frozen=True, slots=True)
class ModelVersion(_Read):
    """The model that answered: its name, its version and the SHA-256 of its file.

    Of a recorded call that no version took, `version` and `sha256` are None.
    """

    name: str
    version: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What moved the model: `base` and the `contributions` add up to what `space` says.

    Where there are several classes to explain, `classes` has both for each, and they are None here.
    """

    space: str
    base: float | None
    contributions: Mapping[str, float] | None
    classes: Mapping[str, Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one row: a class or a number, of several targets an object of them.

    `id` names it on record. `probabilities` has each class's, of several targets an object for
    each; None for a regression. `explanation` is there where it was asked for.
    """

    id: str
    model: ModelVersion
    prediction: Any
    probabilities: Mapping[str, Any] | None
    explanation: Explanation | None

    @classmethod
    def read(cls, told: Mapping[str, Any], model: ModelVersion) -> Self:
        """Return what a JSON object says of a row."""
        explained = told.get("explanation")
        return cls(
            told["id"],
            model,
            told["prediction"],
            told.get("probabilities"),
            None
            if explained is None
            else Explanation(
                *(explained.get(it) for it in ("space", "base", "contributions", "classes"))
            ),
        )


@dataclass(frozen=True, slots=True)
class Predictions(Sequence[Prediction]):
    """The answers to the rows of one call, in their order; `id` is the call's."""

    id: str
    model: ModelVersion
    rows: tuple[Prediction, ...]

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class PredictedTable(Generic[Frame]):
    """The answers to a table in the kind of frame that the rows came in, in their order.

    `frame` has the columns `id`, `prediction` and `probability_<class>`; with several targets
    `prediction_<target>` and `probability_<target>_<class>`. `id` is the call's.
    """

    id: str
    model: ModelVersion
    frame: Frame


@dataclass(frozen=True, slots=True)
class Model(_Read):
    """A served model: the version that answers, and how."""

    name: str
    version: str
    number: int
    sha256: str
    default: bool
    format: str
    runtime: str
    columns: Sequence[str]
    explainable: bool
    explainable_reason: str | None
    versions: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class RecordedCall(_Read):
    """One call on record, as `GET /predictions/{id}` has it; docs/api.md tells of each field.

    `input` and `output` are JSON where the bytes are, else text, or an object with `content_type`
    and `base64`; None where they were erased or nothing was read.
    """

    id: str
    user_id: str
    username: str
    model: ModelVersion
    received_at: datetime
    responded_at: datetime
    duration_us: int
    status: int
    content_type: str | None
    input: Any
    output: Any
    output_content_type: str | None
    error_code: str | None
    error_fields: Sequence[str]
    x_request_id: str | None
    api_key_id: str | None
    test: bool
    idempotency_key: str | None
    explain: bool
    erased_at: datetime | None
    erasure_id: str | None

    _times: ClassVar = ("received_at", "responded_at", "erased_at")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Return what a JSON object says."""
        # With slots the class is made anew, and a bare super() means the one before it.
        return super(RecordedCall, cls).read({**told, "model": ModelVersion.read(told["model"])})


@dataclass(frozen=True, slots=True)
class InclusionProof(_Read):
    """A proof that a call is on record as it was sealed; docs/seal.md says how to check it."""

    leaf: str
    leaf_index: int
    tree_size: int
    audit_path: Sequence[str]
    checkpoint: str
    salt: str | None
    input: str | None
    output: str | None


@dataclass(frozen=True, slots=True)
class Outcome(_Read):
    """What was said to have happened to a prediction, and when, where that is known."""

    id: str
    prediction_id: str
    outcome: Any
    observed_at: datetime | None
    recorded_at: datetime

    _times: ClassVar = ("observed_at", "recorded_at")


@dataclass(frozen=True, slots=True)
class ToldOutcome(_Read):
    """One row's outcome on record; `new` is false where it was in force already."""

    id: str
    prediction_id: str
    new: bool


def _time(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)
