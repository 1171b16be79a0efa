"""How long it takes to count an hour of a busy server into the sketches of drift.

The record is filled as in `replay.py`; what is timed is the first look at all of its calls, then a
look at a hundredth as many more, and then one at nothing new.
`python benchmarks/drift.py [CALLS] [ROUNDS]`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from replay import fill, model_in

from onrecord.insight.baselines import Drifts
from onrecord.insight.drift import DriftRules
from onrecord.parts import build_versions, load_served_model
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.serving.artifact import read_model_directory


def main() -> None:
    """Print the seconds of each kind of look, medians of the rounds."""
    calls, rounds = (int(word) for word in (*sys.argv[1:], "200000", "3")[:2])
    looks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as home:
        settings = model_in(Path(home))
        model = load_served_model(settings)
        database = Database(settings.database_url)
        database.upgrade()
        files = read_model_directory(settings.model_dir[0])
        version, _ = build_versions(settings, database).start(files, model, By("benchmark"))
        drifts = Drifts(database, lambda raw: raw)
        fill(database, model, version.id, 10_000)
        for number in range(rounds):
            drifts.freeze(version, None, None, By("benchmark"))
            for what, more in (("all", calls), ("a hundredth more", calls // 100), ("none", 0)):
                if more:
                    fill(database, model, version.id, more, user=f"{what} {number}")
                began = time.perf_counter()
                rows = drifts.update(version, drifts.baseline(version))
                looks.setdefault(what, []).append(time.perf_counter() - began)
                assert rows == more
            began = time.perf_counter()
            found = drifts.report(version, None, None, DriftRules())
            looks.setdefault("the report", []).append(time.perf_counter() - began)
            print(f"  {found['status']} of {found['rows']} rows", flush=True)
    for what, seconds in looks.items():
        print(f"{what}: {statistics.median(seconds):.3f} s")


if __name__ == "__main__":
    main()
