from __future__ import annotations

import io

import pyarrow as pa
import pytest
from pyarrow import parquet

from onrecord.serving.forms import ARROW, CSV, PARQUET
from onrecord.serving.subjects import Subject

TABLE = pa.table({"age": [3, 4], "patient": ["p-1", "p-2"], "number": [7, 8]})


def arrow() -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, TABLE.schema) as stream:
        stream.write_table(TABLE)
    return out.getvalue()


def parquet_file() -> bytes:
    out = io.BytesIO()
    parquet.write_table(TABLE, out)
    return out.getvalue()


BODIES = {
    "one row": (b'{"age": 3, "patient": "p-1", "number": 7}', "application/json"),
    "no content type": (b'{"age": 3, "patient": "p-1", "number": 7}', None),
    "rows": (
        b'{"rows": [{"patient": "p-2", "number": 8}, {"patient": "p-1", "number": 7}]}',
        "application/json",
    ),
    "columns": (b'{"columns": {"patient": ["p-2", "p-1"], "number": [8, 7]}}', "application/json"),
    "csv": (b'\xef\xbb\xbfage,"patient",number\n3,p-2,8\n4,"p-1",7\n', CSV),
    "arrow": (arrow(), ARROW),
    "parquet": (parquet_file(), PARQUET),
    "not JSON": (b'{"age": 3, "patient": "p-1", "number": 7', "application/json"),
    "not the form": (b'["p-1", 7]', "application/json"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_subject_is_found_in_every_form_of_body(name: str) -> None:
    body, content_type = BODIES[name]

    assert Subject("patient", "p-1").is_in(body, content_type)
    assert Subject("number", "7").is_in(body, content_type)
    assert not Subject("patient", "p-3").is_in(body, content_type)
    if not name.startswith("not"):
        assert not Subject("patient", "7").is_in(body, content_type)
        assert not Subject("patient", "p-").is_in(body, content_type)
