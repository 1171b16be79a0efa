"""The demo: one recorded prediction from registration to the row in the database."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import typer

from onrecord.demo.train import train
from onrecord.errors import StartupError

__all__ = ["run_demo"]

_START_SECONDS = 90


def run_demo(directory: Path, *, port: int, keep_serving: bool) -> None:
    """Train, serve, register, predict well and badly, and show the record.

    Keeps serving until interrupted where `keep_serving` is true. Raises StartupError where the
    server does not come up.
    """
    _require_free(port)
    typer.echo("1. Train a random forest on 344 real penguins.")
    model_dir = train(directory / "penguins")
    typer.echo(f"   wrote {model_dir}: {', '.join(sorted(p.name for p in model_dir.iterdir()))}")
    environment = os.environ | {
        "ONRECORD_DATA_DIR": str(directory),
        "ONRECORD_LOG_LEVEL": "warning",
    }
    trust = ["trust", str(model_dir), "--yes"]
    typer.echo(f"2. Agree to the types in that file: onrecord {' '.join(trust)}")
    _run(trust, environment)
    command = ["serve", str(model_dir), "--port", str(port)]
    typer.echo(f"3. Serve it on embedded SQLite: onrecord {' '.join(command)}")
    server = subprocess.Popen([sys.executable, "-m", "onrecord", *command], env=environment)  # noqa: S603 - our own command
    base = f"http://127.0.0.1:{port}"
    try:
        _wait(base, server)
        token = _walk(base)
        _show_record(environment)
        typer.echo(f"\nonrecord keeps serving at {base} (API page: {base}/docs)")
        typer.echo(f"   console: {base}/console")
        typer.echo(f"   try it: curl {base}/predictions -H 'Authorization: Bearer {token}'")
        if keep_serving:
            typer.echo("   Ctrl-C stops it.")
            server.wait()
    except KeyboardInterrupt:
        typer.echo("stopping")
    finally:
        server.terminate()
        server.wait()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartupError(
                f"port {port} cannot be used ({error.strerror}); name another: onrecord demo --port"
            ) from error


def _wait(base: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StartupError("the demo's server did not start; its message is above")
        try:
            urllib.request.urlopen(f"{base}/readyz", timeout=2).close()  # noqa: S310 - our own address
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise StartupError(f"the demo's server did not answer within {_START_SECONDS} s")


def _walk(base: str) -> str:
    name = f"demo-{secrets.token_hex(3)}"
    typer.echo("4. Register a user; registration hands out a token.")
    account = {"username": name, "password": secrets.token_urlsafe(12), "email": "demo@example.com"}
    shown = {**account, "password": "..."}
    token: str = _call(base, "/users", account, shown=shown)["access_token"]
    good = {
        "island": "Torgersen",
        "bill_length_mm": 39.1,
        "bill_depth_mm": 18.7,
        "flipper_length_mm": 181,
        "body_mass_g": 3750,
        "male": None,
    }
    typer.echo("5. A good call (nobody knows this penguin's sex).")
    _call(base, "/predict", good, token=token)
    typer.echo("6. A bad call: every bad field is named at once.")
    bad = {**good, "island": "Atlantis", "body_mass_g": "heavy", "male": "false", "wings": 2}
    _call(base, "/predict", bad, token=token)
    return token


def _call(
    base: str,
    path: str,
    body: dict[str, Any],
    *,
    token: str | None = None,
    shown: dict[str, Any] | None = None,
) -> dict[str, Any]:
    typer.echo(f"   POST {path} {json.dumps(shown or body)}")
    request = urllib.request.Request(base + path, json.dumps(body).encode())  # noqa: S310 - our own address
    request.add_header("content-type", "application/json")
    if token is not None:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own address
            status, raw = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    answer: dict[str, Any] = json.loads(raw)
    visible = {**answer, "access_token": "..."} if "access_token" in answer else answer
    text = json.dumps(visible, indent=2).replace("\n", "\n   ")
    typer.echo(f"   {status} {text}")
    return answer


def _show_record(environment: dict[str, str]) -> None:
    typer.echo("7. Both calls are on record: onrecord log")
    _run(["log", "--limit", "2"], environment | {"COLUMNS": "160"})


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "onrecord", *command], env=environment, check=True)  # noqa: S603 - our own command
