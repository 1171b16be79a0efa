"""What callers wait while another version comes: a server under load, probed 200 times a second.

A server answers 16 connections of wrk as fast as it can, and a probe on a connection of its own asks at
fixed moments, so that a server which stands still is seen for as long as it does. In each round a version
that no server has met is added (which every worker loads, and converts where nobody has yet) and promoted.
The windows: nothing happens; from `models add` until the version is loaded; from `models promote` until it
answers. Usage: swaps.py [--rounds N] [--model linear|forest|xgboost] [--workers N]
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Failed, System, conditions, environment, start_onrecord, train

PERIOD = 0.005
QUIET_SECONDS = 5
SETTLE_SECONDS = 6
CONNECTIONS = 16
WINDOWS = ("nothing", "add", "promote")


class Probe(threading.Thread):
    """Asks at fixed moments and keeps how long after its moment each answer came, in milliseconds."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self.window: str | None = None
        self.waits: dict[str, list[float]] = {window: [] for window in WINDOWS}
        self.version = ""
        self._system = system
        self._stop = False

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._system.port)
        due = time.perf_counter()
        while not self._stop:
            due += PERIOD
            time.sleep(max(0.0, due - time.perf_counter()))
            window = self.window
            connection.request("POST", "/predict", self._system.body, self._system.headers)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            if answer.status != 200:
                raise Failed(f"the probe got {answer.status}: {body}")
            self.version = body["model"]["sha256"]
            if window is not None:
                self.waits[window].append((time.perf_counter() - due) * 1000)

    def stop(self) -> None:
        self._stop = True
        self.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=QUIET_SECONDS)
    parser.add_argument("--model", default="forest", choices=["linear", "forest", "xgboost"])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-bench-"))
    directory = train(home)[options.model]
    record = home / "record.db"
    own = environment(home) | {
        "ONRECORD_DATABASE": f"sqlite:///{record}",
        "ONRECORD_WORKERS": str(options.workers),
    }
    system = start_onrecord("onrecord", directory, own)
    try:
        system.wait()
        system.sign_in()
        system.first_answer()
        probe = Probe(system)
        probe.start()
        with load(system, options.rounds * 120):
            for number in range(1, options.rounds + 1):
                one_round(probe, version(directory, home, number), record, home, options.seconds)
        probe.stop()
        print(conditions(options, home))
        report(probe)
    finally:
        system.stop()
        shutil.rmtree(home)


@contextlib.contextmanager
def load(system: System, seconds: int) -> Iterator[None]:
    """Have wrk call the server for as long as the block lasts; raises Failed where a call failed."""
    script = system.home / "wrk.lua"
    lines = ['wrk.method = "POST"', f"wrk.body = '{system.body}'"]
    lines += [f'wrk.headers["{k}"] = "{v}"' for k, v in system.headers.items()]
    script.write_text("\n".join(lines))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    command += ["--timeout", "10s", system.url + system.path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        out = process.communicate()[0]
    if "Non-2xx" in out or "Socket errors" in out:
        raise Failed(out)


def version(directory: Path, home: Path, number: int) -> Path:
    """Write the model once more as one of other bytes; the answers are the same."""
    other = shutil.copytree(directory, home / str(number) / directory.name)
    schema = other / "input_schema.json"
    schema.write_text(schema.read_text() + "\n" * number)
    return other


def one_round(probe: Probe, other: Path, record: Path, home: Path, seconds: int) -> None:
    probe.window = "nothing"
    time.sleep(seconds)
    probe.window = None
    command(["trust", str(other), "--yes"], record, home)
    probe.window = "add"
    command(["models", "add", str(other)], record, home)
    time.sleep(SETTLE_SECONDS)
    before = probe.version
    probe.window = "promote"
    command(["models", "promote", other.name, "--max-changed", "0%"], record, home)
    deadline = time.monotonic() + 30
    while probe.version == before and time.monotonic() < deadline:
        time.sleep(0.05)
    probe.window = None


def command(words: list[str], record: Path, home: Path) -> None:
    """Run a command as an operator does beside a server, with conversions of its own."""
    own = os.environ | {"ONRECORD_DATABASE": f"sqlite:///{record}"}
    own["ONRECORD_DATA_DIR"] = str(home / "data-commands")
    done = subprocess.run(
        [sys.executable, "-m", "onrecord", *words], env=own, capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(f"onrecord {' '.join(words)}: {done.stderr[-2000:]}{done.stdout[-2000:]}")


def report(probe: Probe) -> None:
    for window, waits in probe.waits.items():
        ordered = sorted(waits)
        p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        over = sum(wait > 50 for wait in ordered)
        print(
            f"{window:8} {len(ordered)} probes: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
            f"longest {ordered[-1]:.0f} ms, {over} above 50 ms"
        )


if __name__ == "__main__":
    main()
