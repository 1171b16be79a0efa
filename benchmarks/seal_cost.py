"""What the seal costs: requests a second with it and without it, in one run.

Both servers serve the same model; the one seals its record every second, so that what it is asked in
a round is also sealed in it. Rounds alternate, and the ratio is the median of the rounds' ratios.
Usage: seal_cost.py [--rounds N] [--seconds S] [--workers N] [--database-with URL --database-without URL]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harness import System, conditions, environment, start_onrecord, train

CONNECTIONS = 64
SEAL_SECONDS = 1


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
            ("with the seal", SEAL_SECONDS, options.database_with),
            ("without it", 0, options.database_without),
        ):
            own = shared | {"ONRECORD_SEAL_SECONDS": str(seconds)}
            own |= {"ONRECORD_DATABASE": url} if url else {}
            system = start_onrecord(name, directory, own)
            systems.append(system)
            system.wait()
            system.sign_in()
            system.measure(CONNECTIONS, 2)
            system.figures[CONNECTIONS].clear()
        for number in range(options.rounds):
            for system in systems if number % 2 else systems[::-1]:
                time.sleep(2 * SEAL_SECONDS)  # what the round before left is sealed meanwhile
                system.measure(CONNECTIONS, options.seconds)
        print(conditions(options, home))
        report(*systems)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(home)


def report(sealed: System, plain: System) -> None:
    for system in (sealed, plain):
        rate, p50, p99 = system.median(CONNECTIONS)
        print(f"{system.name}: {rate:.0f} req/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    pairs = zip(sealed.figures[CONNECTIONS], plain.figures[CONNECTIONS], strict=True)
    ratios = sorted(one[0] / other[0] for one, other in pairs)
    print(f"ratio: {statistics.median(ratios):.3f}", " ".join(f"{r:.2f}" for r in ratios))


if __name__ == "__main__":
    main()
