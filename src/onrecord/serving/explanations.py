"""Why a model answered a row as it did: what each feature added to the answer.

An explanation is additive (Lundberg and Lee, "A Unified Approach to Interpreting Model
Predictions", 2017): a base and one contribution a feature, which add up to the answer on the scale
on which the model adds. Whether they do is checked for every row before anything of it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy as np

from onrecord.errors import NotExplainable
from onrecord.serving.outputs import Outputs, class_key

__all__ = [
    "EXPLAINABLE",
    "MAX_EXPLAINED_ROWS",
    "Additive",
    "Explainability",
    "ExplainableRuntime",
    "ExplainedOutputs",
    "Explanations",
    "Link",
    "explainability",
    "has_explanation",
    "split_base",
]

MAX_EXPLAINED_ROWS = 1000
"""The most rows that one call may have explained: a tree's explanation takes far more than its
answer."""

_TOLERANCE = 1e-4
"""How far a sum may be from its answer: absolute for a probability, else relative to what is added.
Boosters add 32-bit floats, and a compiled graph answers within 1e-5 of its original."""

_TWO_CLASSES = 2

Array: TypeAlias = np.ndarray[Any, Any]
Link: TypeAlias = Literal["identity", "log", "logit", "softmax"]
"""What was done to the answer to get the scale on which contributions add up.

Of an answer y and a sum s: y = s, y = exp(s), y = 1 / (1 + exp(-s)), or, with a sum for each class,
y = exp(s) divided by the classes' total of it.
"""


class Additive(NamedTuple):
    """What a library says of some rows: `base` [rows, outputs] and `parts` [rows, outputs, features].

    An output is a class, or the one number of a regression or of two classes.
    """

    link: Link
    base: Array
    parts: Array


class Explainability(NamedTuple):
    """Whether a model can be explained, and why not.

    `explainable` is None where only loading the model would tell.
    """

    explainable: bool | None
    reason: str | None = None


EXPLAINABLE = Explainability(True)


@runtime_checkable
class ExplainableRuntime(Protocol):
    """A runtime of which some models can be explained."""

    @property
    def explainability(self) -> Explainability:
        """Whether this one can be; it is told without loading anything."""
        ...

    def explain(self, rows: Sequence[tuple[Any, ...]]) -> Explanations:
        """Return why `rows`, of which there is at least one, are answered as they are.

        Raises NotExplainable.
        """
        ...


def explainability(runtime: object) -> Explainability:
    """Return whether a runtime can explain its answers."""
    if isinstance(runtime, ExplainableRuntime):
        return runtime.explainability
    return Explainability(
        False,
        "An ONNX graph does not tell which of its numbers are a model's trees or coefficients; "
        "serve the model in its library's own format.",
    )


def split_base(table: Any) -> tuple[Array, Array]:
    """Return base and parts of contributions [rows, (outputs,) features + 1], the base last."""
    found = np.asarray(table, dtype=np.float64)
    if found.ndim == _TWO_CLASSES:
        found = found[:, None, :]
    return found[..., -1], found[..., :-1]


@dataclass(frozen=True, slots=True, eq=False)
class Explanations:
    """The explanations of some rows.

    `base` [rows, outputs] and `contributions` [rows, outputs, features] are float64; `features` are
    the schema's columns in its order; `classes` are the outputs' keys among the probabilities: one
    where the other of two classes has the same with the opposite sign, none for a regression.
    """

    link: Link
    features: tuple[str, ...]
    classes: tuple[str, ...]
    base: Array
    contributions: Array

    @classmethod
    def of(
        cls, added: Additive, features: Sequence[str], labels: Sequence[Any] | None
    ) -> Explanations:
        """Make them of contributions of the columns; `labels` are the classes, in their order."""
        link, base, parts = added
        classes = tuple(map(class_key, labels or ()))
        if len(classes) == _TWO_CLASSES and link != "softmax":
            classes, base, parts = classes[1:], base[:, -1:], parts[:, -1:]
        if parts.shape[1:] != (len(classes) or 1, len(features)):
            raise NotExplainable("The model's library explains other features than it answers.")
        return cls(link, tuple(features), classes, base, parts)

    @property
    def space(self) -> str:
        """What the contributions add up to: "prediction", "probability", or a "margin" of one."""
        if self.link != "identity":
            return "margin"
        return "probability" if self.classes else "prediction"

    def row(self, i: int) -> dict[str, Any]:
        """Return the explanation of row `i` as it goes into the response."""
        told: dict[str, Any] = {"space": self.space, "link": self.link}
        bases, parts = self.base[i].tolist(), self.contributions[i].tolist()
        outputs = [
            {"base": base, "contributions": dict(zip(self.features, each, strict=True))}
            for base, each in zip(bases, parts, strict=True)
        ]
        if len(self.classes) > 1:
            return told | {"classes": dict(zip(self.classes, outputs, strict=True))}
        if self.classes:
            told["class"] = self.classes[0]
        return told | outputs[0]

    def take(self, start: int, end: int) -> Explanations:
        """Return the explanations of some consecutive rows."""
        base, contributions = self.base[start:end], self.contributions[start:end]
        return Explanations(self.link, self.features, self.classes, base, contributions)

    def check(self, outputs: Outputs) -> None:
        """Raise NotExplainable where a row's base and contributions are not its answer."""
        sums = self.base + self.contributions.sum(axis=2)
        (target,) = outputs.targets
        if self.classes:
            if target.probabilities is None or target.classes is None:
                raise _unequal()
            places = [target.classes.index(name) for name in self.classes]
            answers = np.asarray(target.probabilities, dtype=np.float64)[:, places]
            allowed: Any = _TOLERANCE
        else:
            answers = np.asarray(target.values, dtype=np.float64)[:, None]
            added = np.abs(self.base) + np.abs(self.contributions).sum(axis=2)
            # A difference of logarithms is a relative one of what they are of.
            allowed = _TOLERANCE * (np.abs(answers) * (1 + added) if self.link == "log" else added)
        gap = np.abs(_answers_of(sums, self.link) - answers)
        # NaN is not within anything.
        if len(sums) != len(answers) or not (gap <= allowed).all():
            raise _unequal()


def _answers_of(sums: Array, link: Link) -> Array:
    """Return the answers of sums [rows, outputs]."""
    with np.errstate(over="ignore"):
        if link == "logit":
            return np.asarray(1 / (1 + np.exp(-sums)))
        if link == "log":
            return np.asarray(np.exp(sums))
    if link == "softmax":
        weights = np.exp(sums - sums.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))
    return sums


def _unequal() -> NotExplainable:
    return NotExplainable(
        "What the model's library says of its features does not add up to the model's answer, so "
        "it is not told. The call without explain=true is answered."
    )


class ExplainedOutputs(Outputs):
    """Answers, in lists, with the explanation of each."""

    __slots__ = ("explanations",)

    def __init__(self, outputs: Outputs, explanations: Explanations) -> None:
        super().__init__(outputs.targets)
        self.explanations = explanations

    def row(self, i: int) -> dict[str, Any]:
        """Return the answer to row `i` with its explanation."""
        return {**super().row(i), "explanation": self.explanations.row(i)}

    def split(self, sizes: Sequence[int]) -> list[Outputs]:
        """Return the batch cut into consecutive parts of `sizes` rows."""
        parts: list[Outputs] = []
        start = 0
        for size, outputs in zip(sizes, super().split(sizes), strict=True):
            parts.append(ExplainedOutputs(outputs, self.explanations.take(start, start + size)))
            start += size
        return parts


class _Told(msgspec.Struct):
    explanation: msgspec.Raw | None = None
    predictions: list[_Told] = []


_decode = msgspec.json.Decoder(_Told).decode


def has_explanation(answer: bytes) -> bool:
    """Tell whether the bytes of a JSON answer hold explanations."""
    told = _decode(answer)
    return any(it.explanation is not None for it in (told, *told.predictions[:1]))
