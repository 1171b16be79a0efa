"""Who may import whom: the rooms of docs/architecture.md, held."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "onrecord"
MODEL_LIBRARIES = {"sklearn", "skops", "onnxruntime", "xgboost", "lightgbm", "catboost", "pandas"}
ABOVE = {"onrecord.insight", "onrecord.lifecycle", "onrecord.http", "onrecord.console"}
FORBIDDEN = {
    "record": {"fastapi", "starlette", "onrecord.accounts", "onrecord.serving", *ABOVE},
    "accounts": {"fastapi", "starlette", "onrecord.serving", *ABOVE},
    "serving": {"fastapi", "starlette", "sqlalchemy", "onrecord.accounts", *ABOVE},
    "insight": {
        "fastapi",
        "starlette",
        "onrecord.accounts",
        "onrecord.http",
        "onrecord.console",
        "onrecord.lifecycle",
        *MODEL_LIBRARIES,
    },
    "lifecycle": {
        "fastapi",
        "starlette",
        "onrecord.accounts",
        "onrecord.http",
        "onrecord.console",
        *MODEL_LIBRARIES,
    },
    "console": {"sqlalchemy", *MODEL_LIBRARIES},
    "http": {
        "sqlalchemy",
        "onrecord.console",
        "onrecord.cli",
        "onrecord.app",
        "onrecord.parts",
        *MODEL_LIBRARIES,
    },
}
EVERY_ROOM = {"onrecord.app", "onrecord.cli", "onrecord.parts", "onrecord.settings"}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_downwards(room: str) -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in (PACKAGE / room).rglob("*.py")
        for name in imports(file)
        for package in FORBIDDEN[room] | EVERY_ROOM
        if within(name, package)
    ]

    assert wrong == []


def test_the_client_imports_its_http_library_and_nothing_of_the_server() -> None:
    allowed = {"anyio", "httpx2", "numpy", "onrecord", "onrecord.client", "polars", "pyarrow"}
    wrong = [
        f"{file.name} imports {name}"
        for file in (PACKAGE / "client").rglob("*.py")
        for name in imports(file)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and name not in allowed
        and not within(name, "onrecord.client")
    ]

    assert wrong == []


def test_of_the_serving_room_only_the_story_knows_the_record() -> None:
    wrong = [
        file.name
        for file in (PACKAGE / "serving").rglob("*.py")
        if file.name != "prediction.py"
        and any(within(name, "onrecord.record") for name in imports(file))
    ]

    assert wrong == []


def test_a_module_fits_in_a_head() -> None:
    long = [
        f"{file.relative_to(PACKAGE)}: {count}"
        for file in PACKAGE.rglob("*.py")
        if (count := len(file.read_text(encoding="utf-8").splitlines())) > 400
    ]

    assert long == []
