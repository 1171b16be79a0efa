"""`python -m torture [HARNESS ...]`: run harnesses and print a table of what they found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torture import database, disk, signals
from torture.faults import errors
from torture.order import order
from torture.overload import overload, steady
from torture.replay import failed_sync, replay
from torture.report import Finding, disk_sync_microseconds, table
from torture.slow_clients import slow_clients
from torture.spool import spool
from torture.stage import Stage
from torture.swaps import swaps

Harness = Callable[[Stage, int], Iterator[Finding]]

HARNESSES: dict[str, tuple[Harness, int]] = {
    "kill": (signals.kill, 1000),
    "terminate": (signals.terminate, 100),
    "crash": (database.crash, 100),
    "cut-off": (database.cut_off, 200),
    "trouble": (database.trouble, 60),
    "spool": (spool, 100),
    "full": (disk.full, 20),
    "errors": (errors, 40),
    "order": (order, 10_000),
    "replay": (replay, 10_000),
    "failed-sync": (failed_sync, 1000),
    "swaps": (swaps, 20),
    "overload": (overload, 30),
    "slow-clients": (slow_clients, 10),
    "steady": (steady, 1800),
}
"""Each harness and how many rounds its long form has."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("harness", nargs="*", help=f"one of {', '.join(HARNESSES)}; default: all")
    parser.add_argument("--rounds", type=int, help="how many rounds, instead of each one's own")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--home", type=Path, help="on which disk, by a directory of it")
    arguments = parser.parse_args()
    unknown = set(arguments.harness) - set(HARNESSES)
    if unknown:
        parser.error(f"there is no harness {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Return 0 where onrecord held everywhere and every broken build was caught."""
    arguments = _arguments()
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="torture-", dir=arguments.home) as home:
        sync = disk_sync_microseconds(Path(home))
        with Stage(Path(home), arguments.seed) as stage:
            for name in arguments.harness or HARNESSES:
                harness, rounds = HARNESSES[name]
                start = time.monotonic()
                for found in harness(stage, arguments.rounds or rounds):
                    findings.append(found)
                    seconds = time.monotonic() - start
                    print(table([found]).splitlines()[-1], f"{seconds:.0f} s", flush=True)
                    for fault in found.verdict.faults if not found.as_expected else ():
                        print("  ", fault)
    print(f"\n{table(findings)}\n\nfdatasync of 4 KiB on this disk, median: {sync:.0f} us")
    return 0 if all(found.as_expected for found in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
