"""How fast the console's pages of the record answer when the record is large.

Usage: PYTHONPATH=tests console.py [--calls 1000000] [--rounds 40] [--database URL]

The server runs in this process and is asked without a network, one page after another. The record
is made by `growth.py`'s means, spread over thirty days; its traffic is counted before, and that is
timed, too.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from growth import Record
from starlette.testclient import TestClient

from calls import known
from live import linear_model_dir
from onrecord.app import create_app
from onrecord.insight.traffic import Traffic
from onrecord.record import users
from onrecord.record.call import RecordedCall
from onrecord.record.ids import first_id_at
from onrecord.settings import load_settings

SPAN = timedelta(days=30)
PAGES = {
    "newest": "record",
    "one user's": "record?user=user3",
    "refused": "record?status=400",
    "one version's": "record?model=linear&version=1",
    "a day that had no call": "record?until=2020-01-01",
    "none fits (status 201)": "record?status=201",
    "none fits (score)": "record?score_from=0.9",
    "by a column's value": "record?where=age>=64",
    "far back": "record?before={middle}",
    "one call": "record/{one}",
    "overview": "overview?span=24h",
    "overview, 30 days": "overview?span=30d",
}


class Month(Record):
    """A record whose calls came evenly over the last thirty days."""

    def __init__(self, url: str, calls: int) -> None:
        super().__init__(url)
        self._begin = datetime.now(UTC) - SPAN
        self._pause = SPAN / calls

    def call(self) -> RecordedCall:
        call = super().call()
        moment = self._begin + self.made * self._pause
        return msgspec.structs.replace(
            call, id=first_id_at(moment), received_at=moment, responded_at=moment
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--directory", type=Path, help="where to keep the SQLite file meanwhile")
    parser.add_argument("--database", help="a PostgreSQL URL instead of SQLite")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-console-", dir=options.directory))
    try:
        measure(home, options)
    finally:
        shutil.rmtree(home)


def measure(home: Path, options: argparse.Namespace) -> None:
    url = options.database or f"sqlite:///{home / 'record.db'}"
    record = Month(url, options.calls)
    started = time.perf_counter()
    record.fill(options.calls)
    print(f"{record.made} calls, filled in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    Traffic(record.database).update()
    print(f"traffic counted in {time.perf_counter() - started:.0f} s")
    settings = load_settings(
        model_dir=linear_model_dir(home / "risk"),
        data_dir=home / "data",
        database=url,
        log_level="error",
    )
    with TestClient(create_app(settings)) as client:
        token = known(settings, "root")["authorization"].removeprefix("Bearer ")
        with record.database.write() as connection:
            root = users.by_username(connection, "root")
            users.set_role(connection, root.id, "admin")
        client.cookies.set("onrecord_session", token)
        newest = client.get("/console/record.json?limit=1000").json()
        places = {"one": newest["calls"][25]["id"], "middle": newest["next"]}
        print("| page | median ms | p95 ms | slowest ms | processor ms |")
        print("|---|---|---|---|---|")
        for name, path in PAGES.items():
            ask(client, path.format(**places))
            busy = time.process_time()
            times = [ask(client, path.format(**places)) for _ in range(options.rounds)]
            busy = 1000 * (time.process_time() - busy) / options.rounds
            p95 = statistics.quantiles(times, n=20)[-1]
            cells = (statistics.median(times), p95, max(times), busy)
            print(f"| {name} | {' | '.join(f'{ms:.1f}' for ms in cells)} |")
    record.database.close()


def ask(client: TestClient, path: str) -> float:
    """Return how many milliseconds a page takes."""
    started = time.perf_counter()
    answer = client.get(f"/console/{path}")
    took = 1000 * (time.perf_counter() - started)
    assert answer.status_code == 200, answer.text
    return took


if __name__ == "__main__":
    main()
