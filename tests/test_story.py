"""The story that docs/tutorial.md tells, run as it stands there: one life of a model."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calls import wait_until
from live import Server, live_server
from onrecord.cli.main import _build

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```python\n(# (\w+\.py).*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
BEFORE_SERVING = 4


@dataclass
class Terminal:
    """A folder in which the page's commands are typed, with what they export."""

    folder: Path
    variables: dict[str, str]

    def type(self, command: str, *, status: int = 0) -> str:
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=os.environ | self.variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == status, f"{command}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def json(self, *words: str) -> Any:
        """Ask beside the page, in this process."""
        told = CliRunner().invoke(_build(), [*words, "--json"], env=self.variables)
        assert told.exit_code == 0, told.output
        return json.loads(told.stdout)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, more in (("python", ""), ("onrecord", " -m onrecord")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{more} "$@"\n')
        program.chmod(0o755)
    folder = tmp_path / "loans"
    folder.mkdir()
    for script, name in SCRIPTS:
        (folder / name).write_text(script)
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ONRECORD_DATA_DIR": str(tmp_path / "data"),
    }
    return Terminal(folder, variables)


def test_the_life_of_a_model(terminal: Terminal) -> None:
    for command in COMMANDS[:BEFORE_SERVING]:
        terminal.type(command)
    data = Path(terminal.variables["ONRECORD_DATA_DIR"])
    directory = terminal.folder / "first"
    with live_server(directory, data, model_name="loans") as server:
        live_through(terminal, server, iter(COMMANDS[BEFORE_SERVING:]))


def live_through(terminal: Terminal, server: Server, commands: Any) -> None:
    terminal.variables["SERVER"] = server.base.removeprefix("http://")
    assert next(commands) == "export SERVER=localhost:8000"
    assert next(commands).startswith("export TOKEN=")
    terminal.variables["TOKEN"] = server.register("ada")
    assert terminal.type(next(commands)) == "10000 answered of 10000\n"

    assert "number 2" in terminal.type(next(commands))
    assert "shadows" in terminal.type(next(commands))
    assert terminal.type(next(commands)) == "500 answered of 500\n"
    wait_until(lambda: shadowed(terminal) == 500)
    assert "500 rows of 500 calls" in terminal.type(next(commands))

    assert "10500 rows of 10500 calls" in terminal.type(next(commands))
    terminal.type(next(commands), status=1)
    assert terminal.json("models", "show", "loans")[0]["alias"] == "live"
    *meanwhile, done = sorted(terminal.type(next(commands)).splitlines())
    assert set(meanwhile) == {"500 answered of 500"}
    assert "is live" in done
    assert terminal.json("models", "show", "loans")[1]["alias"] == "live"
    assert terminal.type(next(commands)) == "2500 answered of 2500\n"

    told = 10_500 + 500 * len(meanwhile) + 2500
    assert f"{told} outcomes are new" in terminal.type(next(commands))
    terminal.type(next(commands))
    first, second = terminal.json("quality", "loans", "--by", "version")["groups"]
    assert first["n"] + second["n"] == told
    assert second["n"] >= 2500
    assert second["accuracy"]["low"] > first["accuracy"]["high"]

    assert terminal.type(next(commands)) == "4000 answered of 4000\n"
    terminal.type(next(commands), status=1)
    drift = terminal.json("drift", "show", "loans", "--since", "1d")
    assert {it["name"] for it in drift["features"] if it["status"] == "drift"} == {"income"}

    assert "is live again" in terminal.type(next(commands))
    changes = terminal.json("models", "changes", "loans")
    told = [it["action"] for it in reversed(changes)]
    assert told == ["start", "add", "shadow", "promote", "rollback"]
    terminal.type(next(commands))
    terminal.type(next(commands))
    assert "verified" in terminal.type(f"onrecord seal && {next(commands)}")
    assert next(commands, None) is None


def shadowed(terminal: Terminal) -> int:
    calls: int = terminal.json("models", "compare", "loans")["shadow"]["calls"]
    return calls
