"""A million rows of Parquet: `onrecord predict`, recorded, beside ONNX Runtime alone.

The baseline has the rows in memory already, as the float32 array that ONNX Runtime wants, runs the
same graph on it and writes the answers as Parquet. onrecord reads the file, hashes it, validates
every value, predicts, commits every chunk's rows and answers to SQLite, keeps the chunk and joins
them. Both figures are without imports and loading the model; the ratio is baseline / onrecord.
Usage: bulk.py [--rows N] [--rounds N] [--type float64|float32]
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = [f"x{i}" for i in range(8)]


def train(home):
    import numpy as np
    import skops.io
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, len(NAMES)))
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)
    models = {
        "linear": LogisticRegression(),
        "forest": RandomForestClassifier(100, max_depth=8, random_state=0),
    }
    columns = [{"name": name, "type": "numeric"} for name in NAMES]
    for name, model in models.items():
        directory = home / name
        directory.mkdir()
        skops.io.dump(model.fit(rows, labels), directory / "model.skops")
        schema = json.dumps({"input_schema": {"columns": columns}})
        (directory / "input_schema.json").write_text(schema)


def write_rows(file, count, kind="float64"):
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(1)
    columns = {name: random.normal(size=count).astype(kind) for name in NAMES}
    parquet.write_table(pa.table(columns), file)


def settings_of(home, name):
    from onrecord.settings import load_settings

    return load_settings(model_dir=home / name, data_dir=home / "data", log_level="error")


def onrecord(home, name):
    from onrecord.cli.bulk import score_file
    from onrecord.cli.bulk_data import DataFile
    from onrecord.cli.bulk_scorers import Local

    async def run():
        async with Local.opened(settings_of(home, name), "bench", 10_000) as local:
            for _ in range(2):  # the first run imports and loads what it needs on its way
                (home / "out.parquet").unlink(missing_ok=True)
                start = time.perf_counter()
                source = DataFile(home / "rows.parquet", 10_000)
                await score_file(source, home / "out.parquet", local)
                seconds = time.perf_counter() - start
            return seconds

    return asyncio.run(run())


def alone(home, name):
    import numpy as np
    import onnxruntime
    import pyarrow as pa
    from pyarrow import parquet

    from onrecord.parts import load_served_model

    graph = load_served_model(settings_of(home, name)).runtime.compiled.graph
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    table = parquet.read_table(home / "rows.parquet")
    rows = np.column_stack([table[n].to_numpy() for n in NAMES]).astype(np.float32)
    feed = {session.get_inputs()[0].name: rows}
    start = time.perf_counter()
    labels, chances = session.run(None, feed)
    answers = {"prediction": labels}
    answers |= {f"probability_{i}": np.ascontiguousarray(chances[:, i]) for i in range(2)}
    parquet.write_table(pa.table(answers), home / "out.parquet")
    return time.perf_counter() - start


def measured(what, home, name):
    """Return the seconds that one side takes in a process of its own, and its peak MiB."""
    (home / "out.parquet").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--side", what, "--home", str(home), "--model", name]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--type", choices=["float64", "float32"], default="float64")
    parser.add_argument("--side")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--model")
    args = parser.parse_args()
    if args.side:
        seconds = {"onrecord": onrecord, "alone": alone}[args.side](args.home, args.model)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak": peak}))
        return
    home = Path(tempfile.mkdtemp(prefix="onrecord-bulk-"))
    try:
        train(home)
        write_rows(home / "rows.parquet", args.rows, args.type)
        environment = os.environ | {
            "ONRECORD_DATA_DIR": str(home / "data"),
            "ONRECORD_NEW_PASSWORD": "a long enough password",
        }
        for words in (["users", "create", "bench"], ["trust", str(home / "forest"), "--yes"]):
            command = [sys.executable, "-m", "onrecord", *words]
            subprocess.run(command, env=environment, check=True, capture_output=True)
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, {args.rows} rows x {len(NAMES)} {args.type}"
        )
        for name in ("linear", "forest"):
            found = {"onrecord": [], "alone": []}
            for _ in range(args.rounds):
                for side, runs in found.items():
                    runs.append(measured(side, home, name))
            seconds = {
                s: statistics.median(r["seconds"] for r in runs) for s, runs in found.items()
            }
            peak = max(run["peak"] for run in found["onrecord"])
            print(
                f"{name}: onrecord {seconds['onrecord']:.2f} s, ONNX Runtime alone "
                f"{seconds['alone']:.2f} s, ratio {seconds['alone'] / seconds['onrecord']:.2f}, "
                f"peak {peak:.0f} MiB"
            )
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
