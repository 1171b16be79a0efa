"""What callers wait while another version comes.

Eight callers ask at fixed moments, 400 times a second together, and each wait counts from its moment, so
that a server which stands still is seen for as long as it does. In each round a version that no server has
met is added (every worker loads it, once somebody has converted it) and promoted. The windows: nothing
happens; from `models add` until the version is loaded; from `models promote` until it answers.
Usage: swaps.py [--rounds N] [--seconds S] [--model linear|forest|xgboost] [--workers N]
"""

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import Failed, System, conditions, environment, start_onrecord, train

PERIOD = 0.02
CALLERS = 8
QUIET_SECONDS = 5
SETTLE_SECONDS = 6
WINDOWS = ("nothing", "add", "promote")


class Caller(threading.Thread):
    """Asks at fixed moments and keeps how long after its moment each answer came, in milliseconds."""

    window: str | None = None

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self.waits: dict[str, list[float]] = {window: [] for window in WINDOWS}
        self.version = ""
        self.failed = 0
        self._system = system
        self._leaving = False

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._system.port)
        due = time.perf_counter()
        while not self._leaving:
            due += PERIOD
            time.sleep(max(0.0, due - time.perf_counter()))
            window = Caller.window
            connection.request("POST", "/predict", self._system.body, self._system.headers)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            self.failed += answer.status != 200
            self.version = body["model"]["sha256"]
            if window is not None:
                self.waits[window].append((time.perf_counter() - due) * 1000)

    def stop(self) -> None:
        self._leaving = True
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
        callers = [Caller(system) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for number in range(1, options.rounds + 1):
            one_round(callers, version(directory, home, number), record, home, options.seconds)
        for caller in callers:
            caller.stop()
        print(conditions(options, home))
        report(callers)
    finally:
        system.stop()
        shutil.rmtree(home)


def version(directory: Path, home: Path, number: int) -> Path:
    """Write the model once more as one of other bytes; the answers are the same."""
    other = shutil.copytree(directory, home / str(number) / directory.name)
    schema = other / "input_schema.json"
    schema.write_text(schema.read_text() + "\n" * number)
    return other


def one_round(callers: list[Caller], other: Path, record: Path, home: Path, seconds: int) -> None:
    Caller.window = "nothing"
    time.sleep(seconds)
    Caller.window = None
    command(["trust", str(other), "--yes"], record, home)
    Caller.window = "add"
    command(["models", "add", str(other)], record, home)
    time.sleep(SETTLE_SECONDS)
    before = callers[0].version
    Caller.window = "promote"
    command(["models", "promote", other.name, "--max-changed", "0%"], record, home)
    deadline = time.monotonic() + 30
    while callers[0].version == before and time.monotonic() < deadline:
        time.sleep(0.05)
    Caller.window = None


def command(words: list[str], record: Path, home: Path) -> None:
    """Run a command as an operator does beside a server, with conversions of its own."""
    own = os.environ | {"ONRECORD_DATABASE": f"sqlite:///{record}"}
    own["ONRECORD_DATA_DIR"] = str(home / "data-commands")
    done = subprocess.run(
        [sys.executable, "-m", "onrecord", *words], env=own, capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(f"onrecord {' '.join(words)}: {done.stderr[-2000:]}{done.stdout[-2000:]}")


def report(callers: list[Caller]) -> None:
    for window in WINDOWS:
        ordered = sorted(wait for caller in callers for wait in caller.waits[window])
        p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        print(
            f"{window:8} {len(ordered)} calls: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
            f"longest {ordered[-1]:.0f} ms"
        )
    print(f"calls that failed: {sum(caller.failed for caller in callers)}")


if __name__ == "__main__":
    main()
