"""Bodies of JSON and of what looks like it, in the manner of JSONTestSuite, on both ways of a call.

A call that comes in one packet may be taken past ASGI, one in chunks never is. What must be read
and what must be refused is told by RFC 8259, and of what it leaves open by our schema;
the cases are our own, after https://github.com/nst/JSONTestSuite.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from live import Server
from onrecord.record import reader
from onrecord.record.database import Database
from wire import Wire

ROW = '{"age": 61.5, "pressure": 130, "smoker": true, "visits": 3}'


def row(age: str = "61.5", pressure: str = "130", smoker: str = "true", visits: str = "3") -> str:
    return f'{{"age": {age}, "pressure": {pressure}, "smoker": {smoker}, "visits": {visits}}}'


def padded(value: bytes) -> bytes:
    """A row whose last value is `value`, as bytes."""
    return row(visits="@").encode().replace(b"@", value)


MUST_READ: dict[str, bytes] = {
    "a row": ROW.encode(),
    "white space around": b" \t\r\n" + ROW.encode() + b"\n\n  ",
    "no white space": ROW.replace(" ", "").encode(),
    "a line an item": ROW.replace(", ", ",\r\n\t").encode(),
    "another order": b'{"visits":3,"smoker":true,"pressure":130,"age":61.5}',
    "an escaped name": ROW.replace("age", "\\u0061\\u0067e").encode(),
    "an exponent": row(age="6.15e1").encode(),
    "a capital exponent": row(age="6.15E+1").encode(),
    "a negative exponent": row(age="6150e-2").encode(),
    "an exponent with zeros": row(age="61.5e00").encode(),
    "trailing zeros": row(age="61.50000000000000000000").encode(),
    "minus zero": row(age="-0.0").encode(),
    "minus zero as an integer": row(visits="-0").encode(),
    "a number that rounds to zero": row(age="1e-400").encode(),
    "many digits": row(age="61." + "5" * 200).encode(),
    "a whole number as a fraction": row(visits="3.0").encode(),
    "a boolean as a number": row(smoker="1").encode(),
    "rows": f'{{"rows": [{ROW}, {ROW}]}}'.encode(),
    "columns": b'{"columns": {"age": [1], "pressure": [1], "smoker": [false], "visits": [1]}}',
}

MUST_REFUSE: dict[str, bytes] = {
    # Not JSON, by RFC 8259.
    "nothing": b"",
    "white space": b" \t\n",
    "a byte order mark": b"\xef\xbb\xbf" + ROW.encode(),
    "UTF-16": ROW.encode("utf-16"),
    "UTF-16 without a mark": ROW.encode("utf-16-le"),
    "UTF-32": ROW.encode("utf-32"),
    "a form feed around": b"\x0c" + ROW.encode(),
    "a no-break space around": "\N{NO-BREAK SPACE}".encode() + ROW.encode(),
    "a NUL after": ROW.encode() + b"\x00",
    "a NUL within": padded(b"3\x00"),
    "garbage after": ROW.encode() + b"x",
    "a brace after": ROW.encode() + b"}",
    "a row after": ROW.encode() * 2,
    "a comma after": ROW.encode() + b",",
    "a comment after": ROW.encode() + b"// hello",
    "a comment before": b"/* hello */" + ROW.encode(),
    "a hash after": ROW.encode() + b"#",
    "no end": ROW[:-1].encode(),
    "half a row": ROW[:30].encode(),
    "no start": ROW[1:].encode(),
    "only a brace": b"{",
    "only a bracket": b"[",
    "only a quote": b'"',
    "a bracket for a brace": ROW[:-1].encode() + b"]",
    "a trailing comma": ROW[:-1].encode() + b",}",
    "two commas": ROW.replace(", ", ",, ", 1).encode(),
    "a leading comma": b"{," + ROW[1:].encode(),
    "no comma": ROW.replace(", ", " ", 1).encode(),
    "no colon": ROW.replace(":", "", 1).encode(),
    "two colons": ROW.replace(":", "::", 1).encode(),
    "an equals sign": ROW.replace(":", "=", 1).encode(),
    "a bare name": ROW.replace('"age"', "age").encode(),
    "single quotes": ROW.replace('"', "'").encode(),
    "a number for a name": b"{1: 2}",
    "null for a name": b"{null: 2}",
    "NaN": row(age="NaN").encode(),
    "minus NaN": row(age="-NaN").encode(),
    "nan": row(age="nan").encode(),
    "Infinity": row(age="Infinity").encode(),
    "minus Infinity": row(age="-Infinity").encode(),
    "inf": row(age="inf").encode(),
    "True": row(smoker="True").encode(),
    "TRUE": row(smoker="TRUE").encode(),
    "tru": row(smoker="tru").encode(),
    "undefined": row(age="undefined").encode(),
    "None": row(age="None").encode(),
    "a plus sign": row(age="+61").encode(),
    "two minus signs": row(age="--61").encode(),
    "only a minus sign": row(age="-").encode(),
    "a minus sign apart": row(age="- 61").encode(),
    "a leading zero": row(age="061").encode(),
    "minus a leading zero": row(age="-061").encode(),
    "a point first": row(age=".5").encode(),
    "a point last": row(age="61.").encode(),
    "a point before an exponent": row(age="61.e1").encode(),
    "two points": row(age="6.1.5").encode(),
    "an exponent without digits": row(age="61e").encode(),
    "an exponent with a sign only": row(age="61e+").encode(),
    "two exponents": row(age="6e1e1").encode(),
    "a fraction as exponent": row(age="6e1.5").encode(),
    "hexadecimal": row(age="0x3d").encode(),
    "octal": row(age="0o75").encode(),
    "an underscore": row(age="6_1").encode(),
    "a comma in a number": row(age="61,5").encode(),
    "full-width digits": row(age="\N{FULLWIDTH DIGIT SIX}").encode(),
    "Arabic digits": row(age="\N{ARABIC-INDIC DIGIT SIX}").encode(),
    "a suffix": row(age="61f").encode(),
    "a tab in a string": b'{"a\tge": 1}',
    "a line feed in a string": b'{"a\nge": 1}',
    "a NUL in a string": b'{"a\x00ge": 1}',
    "an escape of nothing": b'{"\\": 1}',
    "an unknown escape": b'{"\\age": 1}',
    "a hexadecimal escape": b'{"\\x61ge": 1}',
    "a short escape": b'{"\\u61": 1}',
    "a broken escape": b'{"\\u006g": 1}',
    "an escape in capitals": b'{"\\U00000061": 1}',
    "an escape outside a string": b'{\\u0022age": 1}',
    "a broken UTF-8 start": padded(b'"\xff"'),
    "a lone continuation": padded(b'"\x81"'),
    "a cut character": padded(b'"\xe2\x82"'),
    "an overlong slash": padded(b'"\xc0\xaf"'),
    "an overlong NUL": padded(b'"\xe0\x80\x80"'),
    "a surrogate in UTF-8": padded(b'"\xed\xa0\x80"'),
    "beyond Unicode": padded(b'"\xf4\x90\x80\x80"'),
    "brackets, 100,000 deep": b"[" * 100_000,
    "braces, 100,000 deep": b'{"a":' * 100_000,
    "closed brackets, 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "a deep value": padded(b"[" * 50_000 + b"]" * 50_000),
    "a page": b"<!doctype html><p>hello",
    "a form": b"age=61.5&pressure=130",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07\x62\x75\x69\x6c\x74ins.",
    "an entity bomb": b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
    # JSON, and yet not one row of the schema, or not one that means one thing only.
    "a name twice": (ROW[:-1] + ', "age": 61.5}').encode(),
    "a name twice, once escaped": (ROW[:-1] + ', "\\u0061ge": 61.5}').encode(),
    "a name twice within a value": padded(b'{"a": 1, "a": 2}'),
    "1e400": row(age="1e400").encode(),
    "minus 1e400": row(age="-1e400").encode(),
    "an endless exponent": row(age="1e" + "9" * 5000).encode(),
    "an endless number": row(age="9" * 100_000).encode(),
    "an endless integer": row(visits="1" + "0" * 100_000).encode(),
    "beyond 2^53": row(visits="9007199254740993").encode(),
    "beyond 2^64": row(visits="18446744073709551616").encode(),
    "beyond a float": row(age="1e39").encode(),
    "half a pair": padded(b'"\\ud800"'),
    "half a pair as a name": (ROW[:-1] + ', "\\udfff": 1}').encode(),
    "a pair the wrong way": padded(b'"\\udc00\\ud800"'),
    "a NUL by escape": (ROW[:-1] + ', "\\u0000": 1}').encode(),
    "the prototype": (ROW[:-1] + ', "__proto__": {"admin": true}}').encode(),
    "a type to make": (ROW[:-1] + ', "__class__": "os.system", "py/object": "os.system"}').encode(),
    "an operator": row(age='{"$gt": 0}').encode(),
    "an empty name": (ROW[:-1] + ', "": 1}').encode(),
    "a null": row(age="null").encode(),
    "a string": row(age='"61.5"').encode(),
    "a list": row(age="[61.5]").encode(),
    "a boolean for a number": row(age="true").encode(),
    "a fraction for an integer": row(visits="3.5").encode(),
    "two for a boolean": row(smoker="2").encode(),
    "an empty object": b"{}",
    "an empty list": b"[]",
    "a list of rows": f"[{ROW}]".encode(),
    "a number": b"1",
    "true": b"true",
    "null": b"null",
    "text": b'"text"',
    "no rows": b'{"rows": []}',
    "rows of nothing": b'{"rows": [null, 1, "a", [], {}]}',
    "rows beside a column": (ROW[:-1] + ', "rows": []}').encode(),
    "rows that are one": f'{{"rows": {ROW}}}'.encode(),
    "more rows than may be": b'{"rows": [' + b"{}," * 10_001 + b"{}]}",
    "columns of unequal length": (
        b'{"columns": {"age": [1, 2], "pressure": [1], "smoker": [false], "visits": [1]}}'
    ),
    "a thousand unknown fields": json.dumps({f"x{i}": i for i in range(1000)}).encode(),
    "a long name": b'{"' + b"a" * 1_000_000 + b'": 1}',
}


@pytest.fixture(scope="module")
def record(server: Server) -> Iterator[Database]:
    database = Database(f"sqlite:///{server.data_dir / 'record.db'}")
    yield database
    database.close()


def ask(wire: Wire, token: str, body: bytes, *, chunked: bool) -> tuple[int, dict[str, str], bytes]:
    head = f"POST /predict HTTP/1.1\r\nHost: onrecord\r\nAuthorization: Bearer {token}\r\n"
    if not chunked:
        return wire.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    pieces = [body[: len(body) // 2], body[len(body) // 2 :]]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return wire.ask(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n")


def entry_of(record: Database, identifier: str) -> reader.Entry:
    with record.read() as connection:
        entry = reader.find(connection, identifier, user_id=None)
    assert entry is not None
    return entry


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "in chunks"])
def test_what_is_json_and_fits_is_answered_and_on_record_as_it_was_sent(
    server: Server, token: str, record: Database, chunked: bool, subtests: pytest.Subtests
) -> None:
    with Wire(server) as wire:
        for case, body in MUST_READ.items():
            with subtests.test(case):
                status, headers, answer = ask(wire, token, body, chunked=chunked)

                assert (status, headers["content-type"]) == (200, "application/json"), answer
                entry = entry_of(record, json.loads(answer)["id"])
                assert (entry.input, entry.output) == (body, answer)


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "in chunks"])
def test_what_is_not_json_or_does_not_fit_is_a_problem_and_on_record_as_it_was_sent(
    server: Server, token: str, record: Database, chunked: bool, subtests: pytest.Subtests
) -> None:
    with Wire(server) as wire:
        for case, body in MUST_REFUSE.items():
            with subtests.test(case):
                status, headers, answer = ask(wire, token, body, chunked=chunked)

                assert (status, headers["content-type"]) == (400, "application/problem+json"), case
                problem = json.loads(answer)
                assert problem["code"] in {"malformed_json", "invalid_input"}
                assert len(answer) < 200_000
                entry = entry_of(record, headers["x-request-id"])
                assert (entry.input, entry.output) == (body, answer)
                assert entry.status == 400


def test_both_ways_say_the_same_of_every_body(
    server: Server, token: str, subtests: pytest.Subtests
) -> None:
    with Wire(server) as wire:
        for case, body in {**MUST_READ, **MUST_REFUSE}.items():
            with subtests.test(case):
                answers = []
                for chunked in (False, True):
                    told = json.loads(ask(wire, token, body, chunked=chunked)[2])
                    ours = [told.pop(key, None) for key in ("id", "request_id")]
                    assert any(ours)
                    for prediction in told.get("predictions", []):
                        prediction.pop("id")
                    answers.append(told)
                assert answers[0] == answers[1]
