from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from onrecord.errors import StartupError
from onrecord.record.export import Format, export
from onrecord.record.reader import Entry

ENTRY = Entry(
    id="0193a0c0-0000-7000-8000-000000000000",
    user_id="0193a0c0-0000-7000-8000-000000000001",
    username="Ada",
    model="iris",
    model_version_id=None,
    model_version=None,
    model_sha256=None,
    x_request_id=None,
    content_type="application/json",
    input='{"name": "é, \\"q\\"\n"}'.encode(),
    received_at=datetime(2026, 11, 25, 9, 0, 0, 123456, UTC),
    status=200,
    output=b'{"prediction": 1}',
    error_code=None,
    error_fields=(),
    duration_us=42,
    responded_at=datetime(2026, 11, 25, 9, 0, 1, tzinfo=UTC),
)
HOSTILE = replace(
    ENTRY, input=b"\xff\x00", output=b"a\x00b", status=422, error_fields=("/age", "/b")
)
UNREAD = replace(ENTRY, input=None)
ENTRIES = [ENTRY, HOSTILE, UNREAD]


def _exported(format: Format) -> io.BytesIO:  # noqa: A002
    out = io.BytesIO()
    assert export(iter(ENTRIES), out, format) == len(ENTRIES)
    out.seek(0)
    return out


def test_json_lines_keep_text_as_text_and_other_bytes_as_base64() -> None:
    plain, hostile, unread = (json.loads(line) for line in _exported("jsonl"))
    assert (plain["input"], plain["input_base64"]) == (ENTRY.input.decode(), False)  # type: ignore[union-attr]
    assert plain["received_at"] == "2026-11-25T09:00:00.123456Z"
    assert plain["model_version"] is None
    assert (hostile["input"], hostile["input_base64"]) == ("/wA=", True)
    assert (hostile["output"], hostile["output_base64"]) == ("a\x00b", False)
    assert hostile["error_fields"] == ["/age", "/b"]
    assert (unread["input"], unread["input_base64"]) == (None, False)


def test_csv_has_a_header_and_one_row_for_each_call() -> None:
    text = io.TextIOWrapper(_exported("csv"), encoding="utf-8", newline="")
    plain, hostile, unread = csv.DictReader(text)
    assert (plain["input"], plain["input_base64"]) == (ENTRY.input.decode(), "false")  # type: ignore[union-attr]
    assert plain["duration_us"] == "42"
    assert (hostile["input"], hostile["input_base64"]) == ("/wA=", "true")
    assert json.loads(hostile["error_fields"]) == ["/age", "/b"]
    assert unread["input"] == ""


def test_parquet_keeps_every_value_as_it_is() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(_exported("parquet")).to_pylist()
    for row, entry in zip(rows, ENTRIES, strict=True):
        expected = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
        assert row == {**expected, "error_fields": list(entry.error_fields)}


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_nothing_on_record_is_an_empty_file_not_an_error(format: Format) -> None:  # noqa: A002
    out = io.BytesIO()
    assert export([], out, format) == 0
    assert not out.closed


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StartupError, match=r"onrecord\[data\]"):
        export([], io.BytesIO(), "parquet")
