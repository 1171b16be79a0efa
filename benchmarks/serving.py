"""Requests a second of onrecord's whole recorded path beside its baselines, in one run.

Every system serves the same row with one worker process, one of them with two; wrk runs on the
same machine and takes CPU too. Rounds are interleaved; the figures are medians over the rounds.
Usage: serving.py [--rounds N] [--seconds S] [--database URL]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from harness import CONNECTIONS, UVICORN, System, conditions, environment, start_onrecord, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--database", help="also measure onrecord on this PostgreSQL URL")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-bench-"))
    directories = train(home)
    variables = environment(home) | {"BENCH_MODEL": str(home / "linear.joblib")}
    cases = [(name, directory, {}) for name, directory in directories.items()]
    cases.append(("linear, two workers", directories["linear"], {"ONRECORD_WORKERS": "2"}))
    if options.database:
        own = {"ONRECORD_DATABASE": options.database}
        cases.append(("linear, PostgreSQL", directories["linear"], own))
    systems: list[System] = []
    try:
        for name, app in (
            ("(a) bare ASGI constant", "bare"),
            ("(b) empty FastAPI endpoint", "empty_fastapi"),
            ("(d) by hand: joblib, DataFrame, a commit a call", "by_hand"),
        ):
            command = [*UVICORN, "--port", "{port}", f"apps.{app}:app"]
            systems.append(System(name, command, variables))
        for name, directory, own in cases:
            system = start_onrecord(f"(c) onrecord, {name}", directory, variables | own)
            systems.append(system)
            system.wait()
            system.sign_in()
        for system in systems:
            system.wait()
            system.measure(16, 1)
            system.figures[16].clear()
        for _ in range(options.rounds):
            for connections in CONNECTIONS:
                for system in systems:
                    system.measure(connections, options.seconds)
        print(conditions(options, home))
        report(systems)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(home)


def report(systems: list[System]) -> None:
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
