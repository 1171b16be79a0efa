"""Schemas drafted from data: each column's type, and what cannot be drafted."""

import builtins
import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from onrecord.errors import StartupError
from onrecord.serving.infer_schema import infer_schema
from onrecord.serving.input_schema import parse_input_schema


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def csv_file(home: Path, text: str) -> Path:
    file = home / "data.csv"
    file.write_text(text, encoding="utf-8")
    return file


def parquet_file(home: Path, **columns: Any) -> Path:
    file = home / "data.parquet"
    parquet.write_table(pa.table(columns), file)
    return file


def only_column(file: Path) -> dict[str, Any]:
    document = infer_schema(file, None)
    parse_input_schema(json.dumps(document).encode(), "input_schema.json")
    (column,) = document["input_schema"]["columns"]
    assert column.pop("name") == "x"
    return column


CSV = [
    (["1.5", "2.5", "9.5"], {"type": "numeric", "minimum": 1.5, "maximum": 9.5, "example": 2.5}),
    (["3", "1", "2"], {"type": "integer", "minimum": 1, "maximum": 3, "example": 2}),
    (["1", "0", "1"], {"type": "boolean", "example": True}),
    (["true", "false", "false"], {"type": "boolean", "example": False}),
    (["1", "0", "NA"], {"type": "boolean", "example": False, "nullable": True}),
    (
        ["1.0", "2.0", "NaN"],
        {"type": "integer", "minimum": 1, "maximum": 2, "example": 1, "nullable": True},
    ),
    (
        ["1.5", "2.0", "NA"],
        {"type": "numeric", "minimum": 1.5, "maximum": 2.0, "example": 1.5, "nullable": True},
    ),
    (["b", "a", "b", "b"], {"type": "categorical", "categories": ["a", "b"], "example": "b"}),
    (
        ["a", "a", '""', "NA"],
        {"type": "categorical", "categories": ["a"], "example": "a", "nullable": True},
    ),
    (["c", "a", "b"], {"type": "text", "example": "a"}),
    ([f"s{i:02}" for i in range(51)] * 2, {"type": "text", "example": "s00"}),
]


@pytest.mark.parametrize(("cells", "column"), CSV)
def test_a_csv_columns_type_comes_from_its_values(
    home: Path, cells: list[str], column: dict[str, Any]
) -> None:
    assert only_column(csv_file(home, "\n".join(["x", *cells]) + "\n")) == column


PARQUET = [
    (pa.array([True, None]), {"type": "boolean", "example": True, "nullable": True}),
    (
        pa.array(["b", "a", None]).dictionary_encode(),
        {"type": "categorical", "categories": ["a", "b"], "example": "a", "nullable": True},
    ),
    (pa.array(["a", "a"], pa.large_string()), {"categories": ["a"], "example": "a"}),
    (pa.array([0.5, float("nan")]), {"nullable": True, "minimum": 0.5, "maximum": 0.5}),
    (pa.array([2, 3], pa.uint8()), {"type": "integer", "minimum": 2, "maximum": 3}),
]


@pytest.mark.parametrize(("values", "column"), PARQUET)
def test_a_parquet_columns_type_comes_from_the_file(
    home: Path, values: pa.Array, column: dict[str, Any]
) -> None:
    assert only_column(parquet_file(home, x=values)).items() >= column.items()


TARGETS = [
    (["b", "a", "a"], {"task": "classification", "classes": ["a", "b"]}),
    ([1, 0, None], {"task": "classification", "classes": [0, 1]}),
    ([True, False, True], {"task": "classification", "classes": [False, True]}),
    ([0.5, 1.0, 1.0], {"task": "regression"}),
    (list(range(21)), {"task": "regression"}),
    ([f"s{i}" for i in range(21)], {"task": "classification"}),
]


@pytest.mark.parametrize(("values", "answers"), TARGETS)
def test_the_target_is_no_input_but_tells_task_and_classes(
    home: Path, values: list[Any], answers: dict[str, Any]
) -> None:
    file = parquet_file(home, x=[0.5] * len(values), y=values)

    document = infer_schema(file, "y")

    parse_input_schema(json.dumps(document).encode(), "input_schema.json")
    inner = document["input_schema"]
    assert [column["name"] for column in inner.pop("columns")] == ["x"]
    assert inner == {"target": "y", **answers}


BAD_CSV = [
    ("", "cannot be read"),
    ("x,y\n", "no rows"),
    ("x,x\n1,2\n", "more than one column named 'x'"),
    (",x\n0,2\n", "save without the index"),
    ("rows\n5\n", "rename it"),
    ("columns\n5\n", "rename it"),
    ("x,day\n1,2024-01-01\n", "'day' is of type date32"),
    ("x,none\n1,\n", "'none' has no value"),
    ("x\n9007199254740993\n", "'x' has a value beyond"),
    ("x\n1e39\n", "'x' has a value beyond"),
    ("x\ninf\n", "'x' has a value beyond"),
    ("x,y\n1\n", "cannot be read"),
]


@pytest.mark.parametrize(("text", "said"), BAD_CSV)
def test_data_without_a_schema_is_refused_by_name(home: Path, text: str, said: str) -> None:
    with pytest.raises(StartupError, match=said):
        infer_schema(csv_file(home, text), None)


@pytest.mark.parametrize(
    "value", [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), decimal.Decimal("1.5"), [1], b"x", {"a": 1}]
)
def test_a_type_that_no_schema_has_is_refused(home: Path, value: Any) -> None:
    with pytest.raises(StartupError, match="Column 'x' is of type"):
        infer_schema(parquet_file(home, x=[value]), None)


def test_an_unknown_target_is_answered_with_the_columns(home: Path) -> None:
    with pytest.raises(StartupError, match="no column 'z'; it has x, y"):
        infer_schema(csv_file(home, "x,y\n1,2\n"), "z")


def test_a_target_alone_is_no_model(home: Path) -> None:
    with pytest.raises(StartupError, match="no column beside the target"):
        infer_schema(csv_file(home, "x\n1\n"), "x")


@pytest.mark.parametrize("name", ["data.txt", "missing.csv", "missing.parquet", "bad.parquet"])
def test_a_file_that_cannot_be_read_is_refused(home: Path, name: str) -> None:
    (home / "bad.parquet").write_bytes(b"PAR1")
    (home / "data.txt").write_text("x\n1\n")

    with pytest.raises(StartupError, match=name):
        infer_schema(home / name, None)


def test_without_pyarrow_the_extra_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    file = csv_file(home, "x\n1\n")
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(StartupError, match=r"onrecord\[data\]"):
        infer_schema(file, None)
