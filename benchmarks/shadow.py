"""What a shadow costs the callers: plain calls with a shadow of all of them and without one, in one run.

Both servers serve the same model; the one has a candidate of the same kind that shadows 100 % of the
calls. Rounds alternate, and each begins once the shadow has answered, or skipped, all that came before.
The ratio is the median of the rounds' ratios.
Usage: shadow.py [--rounds N] [--seconds S] [--model linear|forest]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Failed, System, conditions, environment, free_port, start_onrecord, train
from pysqlite3 import dbapi2

CONNECTIONS = (1, 16, 64)
WITH, WITHOUT = "with a shadow", "without one"
DRAIN_SECONDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--model", default="linear", choices=["linear", "forest"])
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-bench-"))
    directory = train(home)[options.model]
    systems: dict[str, System] = {}
    records: dict[str, Path] = {}
    try:
        for name in (WITH, WITHOUT):
            records[name] = home / f"{free_port()}.db"
            own = environment(home) | {"ONRECORD_DATABASE": f"sqlite:///{records[name]}"}
            systems[name] = start_onrecord(name, directory, own)
            systems[name].wait()
            systems[name].sign_in()
            systems[name].first_answer()
        begin_shadow(directory, home, records[WITH])
        for system in systems.values():
            for connections in CONNECTIONS:
                system.measure(connections, 2)
                system.figures[connections].clear()
        for turn in range(options.rounds):
            order = (WITH, WITHOUT) if turn % 2 else (WITHOUT, WITH)
            for connections in CONNECTIONS:
                for name in order:
                    wait_for_shadow(records[WITH])
                    systems[name].measure(connections, options.seconds)
        wait_for_shadow(records[WITH])
        print(conditions(options, home))
        report(systems, records[WITH])
    finally:
        for system in systems.values():
            system.stop()
        shutil.rmtree(home)


def begin_shadow(directory: Path, home: Path, record: Path) -> None:
    """Add the same model as another version, and have it shadow all calls."""
    other = shutil.copytree(directory, home / "other" / directory.name)
    schema = other / "input_schema.json"
    schema.write_text(schema.read_text() + "\n")  # another version by its hash
    own = os.environ | {"ONRECORD_DATABASE": f"sqlite:///{record}"}
    own["ONRECORD_DATA_DIR"] = str(home / "data-commands")
    command = [sys.executable, "-m", "onrecord"]
    for words in (
        ["trust", str(other), "--yes"],
        ["models", "add", str(other)],
        ["models", "shadow", directory.name, "--share", "100%"],
    ):
        done = subprocess.run([*command, *words], env=own, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"onrecord {' '.join(words)}: {done.stderr[-2000:]}")


def wait_for_shadow(record: Path) -> None:
    """Return once no call waits for the shadow."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while ask(record, "SELECT max(seq) FROM requests") > (
        ask(record, "SELECT coalesce(max(done_up_to), 0) FROM shadows")
    ):
        if time.monotonic() > deadline:
            raise Failed("the shadow does not come to an end")
        time.sleep(0.5)


def ask(record: Path, query: str) -> int:
    connection = dbapi2.connect(f"file:{record}?mode=ro", uri=True)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def report(systems: dict[str, System], record: Path) -> None:
    for connections in CONNECTIONS:
        rounds = {name: system.figures[connections] for name, system in systems.items()}
        for name, figures in rounds.items():
            rate, p50, p99 = map(statistics.median, zip(*figures, strict=True))
            print(f"{connections:3} {name}: {rate:.0f} req/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        for place, what in enumerate(("req/s", "p50", "p99")):
            pairs = zip(rounds[WITH], rounds[WITHOUT], strict=True)
            ratios = sorted(one[place] / other[place] for one, other in pairs)
            spread = " ".join(f"{ratio:.2f}" for ratio in ratios)
            median = statistics.median(ratios)
            print(f"    {what}, with to without: {median:.3f} ({spread})")
    answered = ask(record, "SELECT count(*) FROM shadow_answers")
    print(f"the shadow answered {answered} calls and skipped", end=" ")
    print(ask(record, "SELECT coalesce(sum(skipped), 0) FROM shadows"))


if __name__ == "__main__":
    main()
