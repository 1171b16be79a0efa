"""Requests a second of onrecord beside other model servers, one row a call, one worker each.

Every table is one interleaved run: the peers, onrecord and the baselines take turns, the figures
are medians over the rounds. A system that does not start, answers wrongly or fails under load is
named with its log's last lines, and the run goes on. `make bench-peers` installs the peers, each
into an environment of its own; those that are missing are named and left out.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import (
    CONNECTIONS,
    HERE,
    ROW,
    UVICORN,
    Failed,
    System,
    conditions,
    environment,
    free_port,
    start_onrecord,
    train,
)

ENVIRONMENTS = HERE / ".peers"
APPS = HERE / "apps" / "peers"
VALUES = [float(value) for value in ROW.values()]
ONRECORD = "onrecord"


@dataclass(frozen=True)
class Peer:
    """One peer's server, the row in its own protocol, and where its answer has P(class 1)."""

    package: str
    product: str
    settings: str
    start: Callable[["Peer", Path, Path], tuple[list[str], dict[str, str]]]
    path: str
    body: Any
    read: Callable[[Any], float]
    apart: bool = False  # not quiet without calls: measured in a run of its own

    def bin(self, name: str) -> str:
        return str(ENVIRONMENTS / self.package / "bin" / name)

    def version(self) -> str:
        if not Path(self.bin("python")).exists():
            raise Failed(f"{self.product} is not installed: make bench-peers installs it")
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        command = [self.bin("python"), "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def mlserver(workers: int) -> Callable[[Peer, Path, Path], tuple[list[str], dict[str, str]]]:
    def start(peer: Peer, model: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "parallel_workers": workers,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
        }
        model_settings = {
            "name": "bench",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "max_batch_size": 64,
            "max_batch_time": 0.001,
            "parameters": {"uri": str(model)},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model_settings))
        return ["env", "MLSERVER_HTTP_PORT={port}", peer.bin("mlserver"), "start", str(folder)], {}

    return start


def bentoml(service: str) -> Callable[[Peer, Path, Path], tuple[list[str], dict[str, str]]]:
    def start(peer: Peer, model: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
        command = [peer.bin("bentoml"), "serve", f"bento:{service}", "--working-dir", str(APPS)]
        variables = {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
        return [*command, "--host", "127.0.0.1", "--port", "{port}"], variables

    return start


def script(name: str) -> Callable[[Peer, Path, Path], tuple[list[str], dict[str, str]]]:
    def start(peer: Peer, model: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
        return [peer.bin("python"), str(APPS / name), "{port}"], {}

    return start


def mlflow(peer: Peer, model: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    command = [peer.bin("python"), str(APPS / "save_mlflow.py"), str(model), str(folder / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise Failed(f"{peer.product}: {done.stderr[-2000:]}")
    serve = [peer.bin("mlflow"), "models", "serve", "--env-manager", "local", "--workers", "1"]
    # `mlflow` starts uvicorn by its name.
    path = f"{Path(peer.bin('')).resolve()}{os.pathsep}{os.environ['PATH']}"
    return [*serve, "--model-uri", str(folder / "model"), "--port", "{port}"], {"PATH": path}


def ray(peer: Peer, model: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    variables = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return script("ray_serve.py")(peer, model, folder)[0], variables


OPEN_INFERENCE = {
    "inputs": [{"name": "row", "shape": [1, len(VALUES)], "datatype": "FP64", "data": VALUES}],
    "outputs": [{"name": "predict_proba"}],
}
INFER = "/v2/models/bench/infer"
PEERS = [
    Peer(
        "mlserver",
        "MLServer",
        "batching, parallel_workers 1",
        mlserver(1),
        INFER,
        OPEN_INFERENCE,
        lambda answer: answer["outputs"][0]["data"][1],
    ),
    Peer(
        "mlserver",
        "MLServer",
        "batching, parallel_workers 0",
        mlserver(0),
        INFER,
        OPEN_INFERENCE,
        lambda answer: answer["outputs"][0]["data"][1],
    ),
    Peer(
        "bentoml",
        "BentoML",
        "batchable",
        bentoml("Batching"),
        "/predict",
        {"rows": [VALUES]},
        lambda answer: answer[0][1],
    ),
    Peer(
        "bentoml",
        "BentoML",
        "not batchable",
        bentoml("Single"),
        "/predict",
        {"rows": [VALUES]},
        lambda answer: answer[0][1],
    ),
    Peer(
        "litserve",
        "LitServe",
        "batching, fast_queue",
        script("lit.py"),
        "/predict",
        {"row": VALUES},
        lambda answer: answer["probabilities"][1],
        apart=True,
    ),
    Peer(
        "mlflow",
        "MLflow",
        "models serve",
        mlflow,
        "/invocations",
        {"inputs": [VALUES]},
        lambda answer: answer["predictions"][0][1],
    ),
    Peer(
        "ray",
        "Ray Serve",
        "batching, HAProxy",
        ray,
        "/",
        {"row": VALUES},
        lambda answer: answer["probabilities"][1],
        apart=True,
    ),
]


class Run:
    """One interleaved run of a model: what was started, and what failed on the way."""

    def __init__(self, model: str, home: Path, directory: Path) -> None:
        import joblib
        import pandas as pd

        self.home = home
        self.directory = directory
        self.frame_model = home / f"{model}.joblib"
        self.array_model = home / f"{model}-array.joblib"
        self.variables = environment(home) | {"BENCH_MODEL": str(self.frame_model)}
        self.expected = joblib.load(self.frame_model).predict_proba(pd.DataFrame([ROW]))[0][1]
        self.systems: list[System] = []
        self.failures: list[str] = []

    def start(self, start: Callable[[], System], read: Callable[[Any], float] | None) -> None:
        """Start a system, wait for it and hold its first answer against the model's own."""
        system = None
        try:
            system = start()
            if system.name == ONRECORD:
                system.wait()
                system.sign_in()
            answer = system.first_answer()
            if read and abs(read(answer) - self.expected) > 1e-4:
                raise Failed(f"{system.name} answers {answer}, the model {self.expected}")
        except (Failed, OSError, LookupError, TypeError) as error:
            self.give_up(system, error)
        else:
            self.systems.append(system)

    def give_up(self, system: System | None, error: Exception) -> None:
        self.failures.append(str(error))
        if system:
            system.stop()

    def start_baselines(self) -> None:
        def of_class_1(answer: Any) -> float:
            return answer["probabilities"]["1"]

        self.start(lambda: start_onrecord(ONRECORD, self.directory, self.variables), of_class_1)
        for name, app, read in (
            ("bare ASGI constant", "bare", None),
            ("empty FastAPI endpoint", "empty_fastapi", None),
            ("FastAPI and joblib by hand", "by_hand_no_log", of_class_1),
            ("FastAPI and joblib by hand, a commit a call", "by_hand", of_class_1),
        ):
            command = [*UVICORN, "--port", "{port}", f"apps.{app}:app"]
            self.start(lambda n=name, c=command: System(n, c, self.variables), read)

    def start_peer(self, peer: Peer) -> None:
        def start() -> System:
            name = f"{peer.product} {peer.version()}, {peer.settings}"
            folder = Path(tempfile.mkdtemp(dir=self.home))
            command, variables = peer.start(peer, self.array_model, folder)
            own = self.variables | {"BENCH_MODEL": str(self.array_model)} | variables
            del own["PYTHONPATH"]
            return System(name, command, own, path=peer.path, body=peer.body, folder=folder)

        self.start(start, peer.read)

    def measure(self, connections: int, seconds: int) -> None:
        """Let every system take its turn; one that fails takes no further part."""
        for system in list(self.systems):
            try:
                system.measure(connections, seconds)
            except Failed as error:
                self.systems.remove(system)
                self.give_up(system, error)

    def rounds(self, rounds: int, seconds: int) -> None:
        for connections in CONNECTIONS:
            self.measure(connections, 1)
        for system in self.systems:
            for figures in system.figures.values():
                figures.clear()
        for _ in range(rounds):
            for connections in CONNECTIONS:
                self.measure(connections, seconds)

    def report(self) -> None:
        print(
            "| system | req/s at 1 | at 16 | at 64 | p50 ms at 1 | p99 ms at 64 | memory MiB |",
            end="",
        )
        print(" onrecord is x times as fast at 1 | at 64 |")
        print("|---|---|---|---|---|---|---|---|---|")
        ours = next((system for system in self.systems if system.name == ONRECORD), None)
        for system in self.systems:
            rates = [system.median(c)[0] for c in CONNECTIONS]
            cells = [system.name, *(f"{rate:.0f}" for rate in rates)]
            cells += [f"{system.median(1)[1]:.2f}", f"{system.median(64)[2]:.1f}"]
            cells += [f"{system.memory_mib():.0f}"]
            cells += [
                f"{ours.median(c)[0] / system.median(c)[0]:.2f}" if ours else "" for c in (1, 64)
            ]
            print(f"| {' | '.join(cells)} |")
        for failure in self.failures:
            reason, _, log = failure.partition("\n")
            print(f"\nNot measured: {reason}\n" + (f"\n```\n{log}\n```" if log else ""))
        print(flush=True)

    def stop(self) -> None:
        for system in self.systems:
            system.stop()


def main() -> None:
    packages = list(dict.fromkeys(peer.package for peer in PEERS))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default=",".join(packages), help="some of %(default)s")
    parser.add_argument("--models", default="linear,forest", help="some of %(default)s")
    parser.add_argument(
        "--apart", action="store_true", help="every peer in a run of its own, for little memory"
    )
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(packages):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    peers = [peer for peer in PEERS if peer.package in wanted]
    groups = [[peer] for peer in peers if options.apart or peer.apart]
    if together := [peer for peer in peers if not (options.apart or peer.apart)]:
        groups.insert(0, together)
    home = Path(tempfile.mkdtemp(prefix="onrecord-"))
    try:
        directories = train(home)
        print(conditions(options, home))
        print(
            "Each table is one interleaved run, all of its systems up at the same time. Memory is the"
        )
        print(
            "process tree's, shared pages shared out. Only onrecord checks a token and records; only"
        )
        print(
            "it and the FastAPI endpoints know the columns, the peers take an array.\n", flush=True
        )
        for model in options.models.split(","):
            for group in groups:
                print(
                    f"### {model}: {', '.join(dict.fromkeys(peer.product for peer in group))}\n",
                    flush=True,
                )
                run = Run(model, home, directories[model])
                try:
                    run.start_baselines()
                    for peer in group:
                        run.start_peer(peer)
                    run.rounds(options.rounds, options.seconds)
                    run.report()
                finally:
                    run.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
