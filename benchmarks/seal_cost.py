"""What the seal costs: requests a second with it and without it, in one run.

Both servers serve the same model; the one seals its record every two seconds, so that nearly all that
it is asked in a round is also sealed in it. Rounds alternate, and the ratio is the median of the
rounds' ratios. CPU time is that of all of a server's processes, sealing included; other work on the
machine disturbs it less.
Usage: seal_cost.py [--rounds N] [--seconds S] [--workers N] [--database-with URL --database-without URL]
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from harness import System, conditions, environment, processes, start_onrecord, stat, train

CONNECTIONS = 64
SEAL_SECONDS = 2
WITH, WITHOUT = "with the seal", "without it"


class Round(NamedTuple):
    rate: float
    p99: float
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database-with", help="a PostgreSQL URL for the sealed record")
    parser.add_argument("--database-without", help="another for the one that is not")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-bench-"))
    directory = train(home)["linear"]
    shared = environment(home) | {"ONRECORD_WORKERS": str(options.workers)}
    systems: list[System] = []
    try:
        for name, seconds, url in (
            (WITH, SEAL_SECONDS, options.database_with),
            (WITHOUT, 0, options.database_without),
        ):
            own = shared | {"ONRECORD_SEAL_SECONDS": str(seconds)}
            own |= {"ONRECORD_DATABASE": url} if url else {}
            system = start_onrecord(name, directory, own)
            systems.append(system)
            system.wait()
            system.sign_in()
            system.measure(CONNECTIONS, 2)
            system.figures[CONNECTIONS].clear()
        rounds: list[dict[str, Round]] = []
        while len(rounds) < options.rounds:
            order = systems if len(rounds) % 2 else systems[::-1]
            rounds.append({system.name: measured(system, options.seconds) for system in order})
        print(conditions(options, home))
        report(rounds)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(home)


def measured(system: System, seconds: int) -> Round:
    """Return a round's figures, once what was asked before is sealed and with what it asks sealed."""
    time.sleep(SEAL_SECONDS + 1)
    before = cpu_seconds(system)
    started = time.perf_counter()
    system.measure(CONNECTIONS, seconds)
    took = time.perf_counter() - started
    time.sleep(SEAL_SECONDS + 1)
    rate, _, p99 = system.figures[CONNECTIONS][-1]
    return Round(rate, p99, (cpu_seconds(system) - before) / (rate * took) * 1e6)


def cpu_seconds(system: System) -> float:
    """Add up the CPU time of a server's processes so far."""
    ticks = 0
    for pid in processes(system.process.pid):
        fields = stat(pid)
        ticks += int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def report(rounds: list[dict[str, Round]]) -> None:
    for name in (WITH, WITHOUT):
        columns = zip(*(found[name] for found in rounds), strict=True)
        rate, p99, cpu = map(statistics.median, columns)
        print(f"{name}: {rate:.0f} req/s, p99 {p99:.1f} ms, {cpu:.0f} us of CPU time a request")
    for what, field in (("req/s", "rate"), ("CPU time a request", "cpu_us")):
        ratios = sorted(getattr(f[WITH], field) / getattr(f[WITHOUT], field) for f in rounds)
        spread = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{what}, with to without: {statistics.median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main()
