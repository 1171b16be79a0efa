"""What the benchmarks share: the models, one served system, and how wrk measures it."""

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROW = {
    "age": 63.0,
    "anaemia": True,
    "creatinine": 1.9,
    "diabetes": False,
    "ejection_fraction": 25.0,
    "platelets": 265000.0,
    "sodium": 129.0,
    "sex": True,
}
CONNECTIONS = (1, 16, 64)
UVICORN = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"]
START_SECONDS = 180


class Failed(Exception):
    """A system does not start, or does not answer as it should."""


def train(home: Path) -> dict[str, Path]:
    """Write each model for onrecord.

    Those of scikit-learn are written as NAME.joblib too and, fitted without names, as
    NAME-array.joblib.
    """
    import joblib
    import numpy as np
    import pandas as pd
    import skops.io
    import xgboost
    from sklearn.base import clone
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    data = pd.DataFrame(
        {name: random.normal(value, 1 + value / 5, 600) for name, value in ROW.items()}
    )
    for name, value in ROW.items():
        if isinstance(value, bool):
            data[name] = random.integers(0, 2, 600).astype(bool)
    labels = (data["age"] + 10 * data["creatinine"] > 82).astype(int)
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": RandomForestClassifier(100, random_state=0),
        "xgboost": xgboost.XGBClassifier(n_estimators=60, max_depth=6, random_state=0),
    }
    columns = [
        {"name": name, "type": "boolean" if isinstance(value, bool) else "numeric"}
        for name, value in ROW.items()
    ]
    directories = {}
    for name, model in models.items():
        model.fit(data, labels)
        directories[name] = home / name
        directories[name].mkdir()
        schema = json.dumps({"input_schema": {"columns": columns}})
        (directories[name] / "input_schema.json").write_text(schema)
        if name == "xgboost":
            model.save_model(directories[name] / "model.ubj")
            continue
        skops.io.dump(model, directories[name] / "model.skops")
        joblib.dump(model, home / f"{name}.joblib")
        joblib.dump(clone(model).fit(data.to_numpy(float), labels), home / f"{name}-array.joblib")
    return directories


class System:
    """One served system; `{port}` in its command is the free port it is given."""

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        *,
        path: str = "/predict",
        body: Any = ROW,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.path = path
        self.body = json.dumps(body)
        self.headers = {"content-type": "application/json"}
        self.home = Path(environment["BENCH_HOME"])
        self.log = self.home / f"{self.port}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [part.replace("{port}", str(self.port)) for part in command],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=folder,
            )
        self.figures: dict[int, list[tuple[float, float, float]]] = {c: [] for c in CONNECTIONS}

    def wait(self) -> None:
        """Wait until something listens."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise Failed(f"{self.name} did not start\n{self.last_lines()}")

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def post(self, path: str, body: str) -> Any:
        request = urllib.request.Request(self.url + path, body.encode(), self.headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def sign_in(self) -> None:
        account = {"username": "bench", "password": "a long enough password"}
        token = self.post("/users", json.dumps(account))["access_token"]
        self.headers["authorization"] = f"Bearer {token}"

    def first_answer(self) -> Any:
        """Ask for the row's prediction until there is one: some listen before they have a model."""
        deadline = time.monotonic() + START_SECONDS
        reason: object = "no answer"
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return self.post(self.path, self.body)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.read(300).decode(errors='replace')}"
            except (OSError, ValueError) as error:
                reason = error
            time.sleep(0.2)
        raise Failed(f"{self.name} gave no prediction: {reason}\n{self.last_lines()}")

    def measure(self, connections: int, seconds: int) -> None:
        script = self.home / "wrk.lua"
        lines = ['wrk.method = "POST"', f"wrk.body = '{self.body}'"]
        lines += [f'wrk.headers["{k}"] = "{v}"' for k, v in self.headers.items()]
        script.write_text("\n".join(lines))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        command += ["--timeout", "10s", "-s", str(script), self.url + self.path]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
        if "Non-2xx" in out or "Socket errors" in out or not rate:
            raise Failed(f"{self.name} at {connections} connections: {out}\n{self.last_lines()}")
        self.figures[connections].append((rate, percentile(out, "50%"), percentile(out, "99%")))

    def stop(self) -> None:
        """End every process of the tree: politely, after 15 seconds for good."""
        tree = processes(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for pid in processes(self.process.pid) | {p: s for p, s in tree.items() if born(p) == s}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def median(self, connections: int) -> tuple[float, float, float]:
        """Return requests a second, p50 and p99 in milliseconds."""
        return tuple(
            statistics.median(column) for column in zip(*self.figures[connections], strict=True)
        )

    def memory_mib(self) -> float:
        """Add up what the process tree holds, shared pages shared out (PSS)."""
        kilobytes = 0
        for pid in processes(self.process.pid):
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kilobytes += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])
        return kilobytes / 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stat(pid: int) -> list[str]:
    """/proc/PID/stat from its third field on: the state, the parent, ..., or nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def born(pid: int) -> str | None:
    """When a process started; None if there is none. Tells a process from a later one of its id."""
    fields = stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def processes(root: int) -> dict[int, str]:
    """Find a process and all below it, each with its start time."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: start for pid in found if (start := born(pid))}


def percentile(out: str, which: str) -> float:
    number, unit = re.search(rf"{which}\s+([\d.]+)(us|ms|s)", out).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def fsync_median_us(home: Path) -> float:
    times = []
    with open(home / "fsync", "wb") as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"BENCH_HOME": str(home), "PYTHONPATH": str(HERE)}


def start_onrecord(name: str, directory: Path, variables: dict[str, str]) -> System:
    """Trust the model and serve it, with a data directory of its own."""
    onrecord = [sys.executable, "-m", "onrecord"]
    data = Path(variables["BENCH_HOME"]) / f"data-{free_port()}"
    own = variables | {"ONRECORD_DATA_DIR": str(data)}
    trust = [*onrecord, "trust", str(directory), "--yes"]
    done = subprocess.run(trust, env=own, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"onrecord trust: {done.stderr[-2000:]}")
    return System(name, [*onrecord, "serve", str(directory), "--port", "{port}"], own)


def conditions(options: argparse.Namespace, home: Path) -> str:
    """Tell the machine and the method in one line, for the table's head."""
    import fastapi
    import uvicorn

    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__}; {options.rounds} rounds of "
        f"{options.seconds} s, medians; one worker; wrk on the same machine; "
        f"fdatasync p50 {fsync_median_us(home):.0f} us\n"
    )
