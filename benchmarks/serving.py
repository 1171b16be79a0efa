"""Requests a second of onrecord's whole recorded path beside its baselines, in one run.

Every system serves the same row with one worker process; wrk runs on the same machine. Rounds are
interleaved; the figures are medians over the rounds. Usage: serving.py [--rounds N] [--seconds S]
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

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


def train(home: Path) -> dict[str, Path]:
    import joblib
    import numpy as np
    import pandas as pd
    import skops.io
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
        skops.io.dump(model, directories[name] / "model.skops")
        schema = json.dumps({"input_schema": {"columns": columns}})
        (directories[name] / "input_schema.json").write_text(schema)
    joblib.dump(models["linear"], home / "by_hand.joblib")
    return directories


class System:
    def __init__(
        self, name: str, command: list[str], port: int, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.port = port
        self.headers = {"content-type": "application/json"}
        self.log = open(Path(environment["BENCH_HOME"]) / f"{port}.log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.figures: dict[int, list[tuple[float, float, float]]] = {c: [] for c in CONNECTIONS}

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not start; see {self.log.name}")

    def sign_in(self) -> None:
        body = json.dumps({"username": "bench", "password": "a long enough password"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/users", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            self.headers["authorization"] = f"Bearer {json.load(answer)['access_token']}"

    def measure(self, connections: int, seconds: int, script: Path) -> None:
        lines = ['wrk.method = "POST"', f"wrk.body = '{json.dumps(ROW)}'"]
        lines += [f'wrk.headers["{k}"] = "{v}"' for k, v in self.headers.items()]
        script.write_text("\n".join(lines))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "--timeout",
            "10s",
            "-s",
            str(script),
        ]
        out = subprocess.run(
            [*command, f"http://127.0.0.1:{self.port}/predict"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        if "Non-2xx" in out or "Socket errors" in out:
            raise SystemExit(f"{self.name}: {out}")
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
        self.figures[connections].append((rate, percentile(out, "50%"), percentile(out, "99%")))

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()

    def median(self, connections: int) -> tuple[float, float, float]:
        return tuple(
            statistics.median(column) for column in zip(*self.figures[connections], strict=True)
        )


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


def main() -> None:  # noqa: C901 - a script that reads from top to bottom
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--database", help="also measure onrecord on this PostgreSQL URL")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-bench-"))
    directories = train(home)
    environment = os.environ | {"BENCH_HOME": str(home), "PYTHONPATH": str(HERE)}
    uvicorn = [
        sys.executable,
        "-m",
        "uvicorn",
        "--no-access-log",
        "--log-level",
        "warning",
        "--port",
    ]
    systems = [
        System("(a) bare ASGI constant", [*uvicorn, "9101", "apps.bare:app"], 9101, environment),
        System(
            "(b) empty FastAPI endpoint",
            [*uvicorn, "9102", "apps.empty_fastapi:app"],
            9102,
            environment,
        ),
        System(
            "(d) by hand: joblib, DataFrame, a commit a call",
            [*uvicorn, "9103", "apps.by_hand:app"],
            9103,
            environment,
        ),
    ]
    ours = []
    cases = [(name, directory, None) for name, directory in directories.items()]
    if options.database:
        cases.append(("linear, PostgreSQL", directories["linear"], options.database))
    for number, (name, directory, database) in enumerate(cases):
        port = 9110 + number
        own = environment | {"ONRECORD_DATA_DIR": str(home / f"data-{number}")}
        if database:
            own["ONRECORD_DATABASE"] = database
        onrecord = [sys.executable, "-m", "onrecord"]
        subprocess.run([*onrecord, "trust", str(directory), "--yes"], env=own, check=True)
        command = [*onrecord, "serve", str(directory), "--port", str(port)]
        ours.append(System(f"(c) onrecord, {name}", command, port, own))
    everything = [*systems, *ours]
    try:
        for system in everything:
            system.wait()
        for system in ours:
            system.sign_in()
        for system in everything:
            system.measure(16, 1, home / "wrk.lua")
            system.figures[16].clear()
        for _ in range(options.rounds):
            for connections in CONNECTIONS:
                for system in everything:
                    system.measure(connections, options.seconds, home / "wrk.lua")
        report(everything, options, fsync_median_us(home))
    finally:
        for system in everything:
            system.stop()
        shutil.rmtree(home)


def report(systems: list[System], options: argparse.Namespace, fsync_us: float) -> None:
    import fastapi
    import uvicorn

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__}; {options.rounds} rounds of "
        f"{options.seconds} s, medians; one worker; wrk on the same machine; "
        f"fdatasync p50 {fsync_us:.0f} us\n"
    )
    print(
        "| system | req/s at 1 | at 16 | at 64 | p50 ms at 1 | p99 ms at 64 | at 64, ratio to (b) |"
    )
    print("|---|---|---|---|---|---|---|")
    base = systems[1].median(64)[0]
    for system in systems:
        rates = [system.median(c)[0] for c in CONNECTIONS]
        print(
            f"| {system.name} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[2]:.0f} "
            f"| {system.median(1)[1]:.2f} | {system.median(64)[2]:.1f} | {rates[2] / base:.2f} |"
        )


if __name__ == "__main__":
    main()
