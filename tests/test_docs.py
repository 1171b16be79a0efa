"""The docs say what the code does. Run this file to renew docs/settings.md and the transcripts."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live import live_server
from onrecord.cli.main import _build
from onrecord.demo.train import train
from onrecord.http.problems import STATUS
from onrecord.serving.input_schema import parse_input_schema
from onrecord.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WITH_TRANSCRIPT = [ROOT / "README.md", DOCS / "api.md", DOCS / "protocols.md"]
CONSOLE = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
END = "\x1e"


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "From the command line of `serve`, else the environment (`ONRECORD_` and the name in",
        "capitals), else `onrecord.toml` in the working directory (or the file that",
        "`ONRECORD_CONFIG` names), else the default. `onrecord config` prints the effective ones,",
        "secrets masked.",
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        if field.default == ():
            default = ""
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_page()


def test_every_error_code_is_documented_with_its_status() -> None:
    table = (DOCS / "api.md").read_text(encoding="utf-8")

    for error, status in STATUS.items():
        assert re.search(rf"\| {status} \|.*`{error.code}`", table), error.code


def test_the_schema_in_the_docs_loads() -> None:
    page = (DOCS / "model-directory.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)

    assert parse_input_schema(example.encode(), "input_schema.json").names == (
        "age",
        "smoker",
        "ward",
    )


def test_every_command_in_the_docs_exists() -> None:
    pages = "".join(p.read_text(encoding="utf-8") for p in [*DOCS.glob("*.md"), ROOT / "README.md"])
    form = r"(?:`|^    )onrecord ((?:users|api-keys|keys|db) [a-z-]+|[a-z]+)"
    named = set(re.findall(form, pages, re.MULTILINE))
    assert {"serve", "trust", "users create", "keys rotate", "db upgrade"} <= named

    for command in named:
        shown = CliRunner().invoke(_build(), [*command.split(), "--help"])
        assert shown.exit_code == 0, command


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_test_that_the_security_page_names_exists() -> None:
    page = (DOCS / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    sources = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", sources))

    assert named - there == set()
    assert {f"API{i}" for i in range(1, 11)} <= set(
        re.findall(r"^\| (API\d+) ", page, re.MULTILINE)
    )
    for file in re.findall(r"`((?:tests|http|accounts|serving|cli)/[\w/]+\.py)`", page):
        assert any((folder / file).exists() for folder in (ROOT, ROOT / "src" / "onrecord")), file


@contextmanager
def demo_server(home: Path) -> Iterator[str]:
    """Serve the demo's model where the transcripts expect it; yield its address."""
    data = home / "onrecord-data" / "demo"
    model_dir = train(data / "penguins")
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "onrecord").symlink_to(Path(sys.executable).with_name("onrecord"))
    environment = os.environ | {"ONRECORD_DATA_DIR": str(data)}
    command = [sys.executable, "-m", "onrecord", "trust", str(model_dir), "--yes"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with live_server(model_dir, data) as server:
        yield server.base.removeprefix("http://")


def transcribe(block: str, home: Path, address: str) -> str:
    """Run a transcript's commands in one shell and return it with the answers they give now."""
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    script = "".join(f"{command}\nprintf '{END}'\n" for command in commands)
    ran = subprocess.run(
        ["bash", "-c", script.replace("localhost:8000", address)],
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answers = ran.stdout.replace(address, "localhost:8000").split(END)
    return "".join(
        f"$ {command}\n{answer}{'' if answer.endswith(chr(10)) or not answer else chr(10)}"
        for command, answer in zip(commands, answers[:-1], strict=True)
    )


def settled(text: str) -> str:
    """Return a transcript with what differs in every run replaced."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "<hash>", text)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "<time>", text)
    text = re.sub(r'(duration_us"?: ?)\d+', r"\1<us>", text)
    return re.sub(r"\d\.\d+", lambda number: f"{float(number[0]):.3f}", text)


@pytest.mark.parametrize("page", WITH_TRANSCRIPT, ids=lambda page: page.name)
def test_the_transcripts_are_what_the_server_answers(page: Path, tmp_path: Path) -> None:
    blocks = CONSOLE.findall(page.read_text(encoding="utf-8"))
    assert blocks

    with demo_server(tmp_path) as address:
        for block in blocks:
            assert settled(transcribe(block, tmp_path, address)) == settled(block)


def renew_transcripts() -> None:
    for page in WITH_TRANSCRIPT:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
            demo_server(Path(home)) as address,
        ):
            text = page.read_text(encoding="utf-8")
            page.write_text(
                CONSOLE.sub(lambda b, at=address: transcribe(b[0], Path(home), at), text),
                encoding="utf-8",
            )


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    renew_transcripts()
