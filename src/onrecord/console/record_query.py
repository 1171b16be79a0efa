"""What the record's page is asked: the fields of its address, and the question that they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from onrecord.accounts.caller import Caller
from onrecord.errors import Fault
from onrecord.insight.conditions import Condition
from onrecord.insight.record_page import Question
from onrecord.record.ids import is_id
from onrecord.record.reader import Filters

__all__ = ["Asked", "asked"]

_FIELDS = ("model", "version", "status", "user", "since", "until", "score_from", "score_to")
_LIMIT = 50
_MOST = 1000
_STATUSES = range(100, 600)


@dataclass(slots=True)
class Asked:
    """The fields as they were sent, what they mean, and what is wrong with them, by field.

    `search` is what the search box holds, where that is the caller's own X-Request-ID.
    """

    fields: dict[str, str]
    where: list[str]
    search: str
    test: bool
    before: str | None
    limit: int
    faults: dict[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    status: int | None = None
    score_from: float | None = None
    score_to: float | None = None
    conditions: tuple[Condition, ...] = ()

    def question(self, caller: Caller, user_id: str | None) -> Question:
        """Return the question of a caller; `user_id` is the user that its field names."""
        filters = Filters(
            user_id=user_id if caller.reads_all else caller.user_id,
            model=self.fields.get("model"),
            version=self.fields.get("version"),
            status=self.status,
            since=self.since,
            until=self.until,
            x_request_id=self.search or None,
            test=self.test,
        )
        return Question(filters, self.score_from, self.score_to, self.conditions)

    def link(self, path: str, **changes: str | None) -> str:
        """Return the address with some fields changed, or taken away by None, from the newest."""
        return self._address(path, self.where, changes)

    def without(self, path: str, condition: str) -> str:
        """Return the address without one condition on a column."""
        return self._address(path, [text for text in self.where if text != condition], {})

    def _address(self, path: str, where: list[str], changes: dict[str, str | None]) -> str:
        fields: dict[str, str | None] = {
            **self.fields,
            "q": self.search,
            "test": "true" if self.test else None,
            "limit": None if self.limit == _LIMIT else str(self.limit),
        }
        fields |= changes
        pairs = [(name, value) for name, value in fields.items() if value]
        query = urlencode([*pairs, *(("where", text) for text in where)])
        return f"{path}?{query}" if query else path

    def as_faults(self) -> tuple[Fault, ...]:
        """Return what is wrong as the API's errors have it."""
        return tuple(Fault(f"/{name}", "wrong", text) for name, text in self.faults.items())

    @property
    def is_narrow(self) -> bool:
        """Whether anything but the newest calls is asked for."""
        return bool(self.fields or self.where or self.search or self.test)


def asked(query: QueryParams) -> Asked:
    """Read the fields of an address; an empty one is as one that is not there."""
    fields = {name: query[name].strip() for name in _FIELDS if query.get(name, "").strip()}
    found = Asked(
        fields=fields,
        where=[text.strip() for text in query.getlist("where") if text.strip()],
        search=query.get("q", "").strip(),
        test=query.get("test", "") == "true",
        before=query.get("before") or None,
        limit=_LIMIT,
    )
    if found.before is not None and not is_id(found.before):
        found.faults["before"] = "Follow a link of the page to get here."
    _read_limit(found, query.get("limit", ""))
    _read_status(found)
    for name in ("since", "until"):
        setattr(found, name, _moment(found, name))
    for name in ("score_from", "score_to"):
        setattr(found, name, _number(found, name))
    found.conditions = tuple(_conditions(found))
    return found


def _read_limit(found: Asked, text: str) -> None:
    if not text:
        return
    if text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= _MOST:
        found.limit = int(text)
    else:
        found.faults["limit"] = f"Ask for 1 to {_MOST} calls."


def _read_status(found: Asked) -> None:
    text = found.fields.get("status")
    if text is None:
        return
    if text.isascii() and text.isdigit() and int(text[:5]) in _STATUSES:
        found.status = int(text)
    else:
        found.faults["status"] = "A status is a number such as 200 or 422."


def _moment(found: Asked, name: str) -> datetime | None:
    text = found.fields.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        found.faults[name] = "Write a time as 2026-11-25T09:00, in UTC."
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(found: Asked, name: str) -> float | None:
    text = found.fields.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value == value:  # noqa: PLR0124 - NaN is no bound
        return value
    found.faults[name] = "Write a number."
    return None


def _conditions(found: Asked) -> Iterable[Condition]:
    for text in found.where:
        try:
            yield Condition.parse(text)
        except ValueError as error:
            found.faults["where"] = f"{text!r}: {error}."
