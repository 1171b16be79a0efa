"""How calls a second grow with the workers: onrecord on SQLite with 1, 2, 4, ... of them, in one run.

All servers run at once and rounds alternate, so that each sees the same machine; wrk takes a thread
for each two workers. Usage: scaling.py [--rounds N] [--seconds S] [--workers 1,2,4]
[--model linear|forest]
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from harness import System, conditions, environment, start_onrecord, train

CONNECTIONS_A_WORKER = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--model", default="linear", choices=["linear", "forest"])
    options = parser.parse_args()
    counts = [int(word) for word in options.workers.split(",")]
    home = Path(tempfile.mkdtemp(prefix="onrecord-bench-"))
    directory = train(home)[options.model]
    systems: dict[int, System] = {}
    try:
        for count in counts:
            own = environment(home) | {"ONRECORD_WORKERS": str(count)}
            systems[count] = start_onrecord(f"{count} workers", directory, own)
            systems[count].wait()
            systems[count].sign_in()
            systems[count].first_answer()
        rates = measured(systems, options.rounds, options.seconds)
        print(conditions(options, home).replace("; one worker", ""))
        report(rates)
    finally:
        for system in systems.values():
            system.stop()
        shutil.rmtree(home)


def measured(
    systems: dict[int, System], rounds: int, seconds: int
) -> dict[int, list[tuple[float, float, float]]]:
    """Return requests a second, p50 and p99 in milliseconds of each round; the first is not kept."""
    found: dict[int, list[tuple[float, float, float]]] = {count: [] for count in systems}
    for turn in range(rounds + 1):
        for count, system in systems.items():
            connections = count * CONNECTIONS_A_WORKER
            system.figures.setdefault(connections, [])
            system.measure(connections, seconds if turn else 2, threads=max(1, count // 2))
            if turn:
                found[count].append(system.figures[connections][-1])
    return found


def report(found: dict[int, list[tuple[float, float, float]]]) -> None:
    first = next(iter(found))
    for count, figures in found.items():
        rate, p50, p99 = map(statistics.median, zip(*figures, strict=True))
        pairs = zip(figures, found[first], strict=True)
        ratios = sorted(one[0] / other[0] for one, other in pairs)
        print(
            f"{count:2} workers, {count * CONNECTIONS_A_WORKER:3} connections: {rate:.0f} req/s, "
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; {statistics.median(ratios):.2f} times "
            f"{first} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
