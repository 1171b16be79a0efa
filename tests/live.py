"""A real server in a process of its own, and small real models for it to serve."""

import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx2
import structlog

from onrecord.cli.main import main
from onrecord.parts import load_served_model
from onrecord.settings import load_settings

PASSWORD = "a long enough password"
GOOD_ROW = {"age": 61.5, "pressure": 130, "smoker": True, "visits": 3}


def linear_model_dir(directory: Path, *, seed: int = 7) -> Path:
    """Write a scikit-learn pipeline over numbers, a boolean and an integer, saved by skops.

    Each seed gives it other rows to be trained on.
    """
    import numpy as np
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(seed)
    rows = np.column_stack(
        [
            random.uniform(20, 90, 200),
            random.uniform(80, 200, 200),
            random.integers(0, 2, 200),
            random.integers(0, 10, 200),
        ]
    )
    classes = (rows[:, 0] + 20 * rows[:, 2] > 65).astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, classes)
    directory.mkdir(parents=True)
    skops.io.dump(model, directory / "model.skops")
    types = {"age": "numeric", "pressure": "numeric", "smoker": "boolean", "visits": "integer"}
    columns = [{"name": name, "type": kind} for name, kind in types.items()]
    (directory / "input_schema.json").write_text(
        json.dumps({"input_schema": {"columns": columns}}), encoding="utf-8"
    )
    return directory


def converted(model_dir: Path) -> Path:
    """Convert a model as a server does and keep the conversion beside it, for `give_conversion`."""
    settings = load_settings(model_dir=model_dir, data_dir=model_dir.parent)
    load_served_model(settings)
    return model_dir


def give_conversion(model_dir: Path, data_dir: Path) -> None:
    """Give a new data directory the conversion that lies beside the model, if there is one.

    Without it a server takes seconds to start.
    """
    kept = model_dir.parent / "conversions"
    if kept.exists():
        shutil.copytree(kept, data_dir / "conversions", dirs_exist_ok=True)


@dataclass
class Server:
    """A running server and a client of it."""

    base: str
    process: subprocess.Popen[bytes]
    data_dir: Path
    environment: dict[str, str]

    def register(self, username: str) -> str:
        answer = httpx2.post(
            f"{self.base}/users", json={"username": username, "password": PASSWORD}, timeout=30
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["access_token"]

    def command(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return run_command(words, self.environment | more)

    def kill(self) -> None:
        """SIGKILL the server and every worker of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run_command(
    words: Sequence[object], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `onrecord WORDS...` here: a process of its own takes seconds to import everything."""
    arguments = ["onrecord", *map(str, words)]
    streams = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2)]
    code: object = 0
    with (
        as_it_was_logged(),
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", arguments),
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        ThreadPoolExecutor(1) as thread,
    ):
        try:
            # A browser of the test may have an event loop in this one.
            thread.submit(main).result()
        except SystemExit as left:
            code = left.code
            if isinstance(code, str):
                print(code, file=streams[1])
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code if type(code) is int else 1, out, err)


@contextmanager
def as_it_was_logged() -> Iterator[None]:
    """Put back afterwards how this process logs and warns, which a command sets for itself."""
    root, config, show = logging.getLogger(), structlog.get_config(), warnings.showwarning
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers, warnings.showwarning = handlers, show
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        structlog.configure(**config)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def launch(
    model_dir: Path,
    data_dir: Path,
    *,
    database_url: str | None = None,
    workers: int = 1,
    program: Sequence[str] = ("-m", "onrecord"),
    under: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    **settings: str,
) -> Server:
    """Start `onrecord serve` with some settings and return it once it is ready.

    `program` is what the interpreter runs, `under` what the whole command runs under, and
    `variables` are more environment variables.
    """
    give_conversion(model_dir, data_dir)
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ONRECORD_")}
    environment |= {"ONRECORD_DATA_DIR": str(data_dir), **(variables or {})}
    environment |= {f"ONRECORD_{name.upper()}": value for name, value in settings.items()}
    if database_url is not None:
        environment["ONRECORD_DATABASE"] = database_url
    log = (data_dir.parent / f"{data_dir.name}.log").open("ab")
    process = subprocess.Popen(
        [*under, sys.executable, *program, "serve", str(model_dir), "--port", str(port)]
        + (["--workers", str(workers)] if workers > 1 else []),
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    server = Server(f"http://127.0.0.1:{port}", process, data_dir, environment)
    _wait_until_ready(server)
    return server


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx2.get(f"{server.base}/readyz", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    log = (server.data_dir.parent / f"{server.data_dir.name}.log").read_text(errors="replace")
    raise AssertionError(f"the server did not become ready:\n{log[-3000:]}")


@contextmanager
def live_server(
    model_dir: Path,
    data_dir: Path,
    *,
    database_url: str | None = None,
    workers: int = 1,
    **settings: str,
) -> Iterator[Server]:
    server = launch(model_dir, data_dir, database_url=database_url, workers=workers, **settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
