"""Does the record slow down as it grows? Insert rate and reading, empty and with many calls.

Usage: growth.py [--calls 10000000] [--rounds 3] [--seconds 5] [--database URL]
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from onrecord.record import model_versions, reader, users
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_request_id
from onrecord.record.writer import Writer
from onrecord.record.writer_order import WriterOrder
from onrecord.record.writer_process import WriterProcess

INPUT = b'{"age": 63.0, "anaemia": true, "creatinine": 1.9, "diabetes": false, "sex": true}'
OUTPUT = b'{"id":"%s","prediction":1,"probabilities":{"0":0.49,"1":0.51}}'
WAITING = 64
FILLED_AT_ONCE = 512


class Record:
    """A database with some users and a model, and the calls they make."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.upgrade()
        with self.database.write() as connection:
            names = [f"user{i}" for i in range(20)]
            self.users = [
                users.add(connection, username=n, email=None, password_hash="-", role="user").id
                for n in names
            ]
            self.version = model_versions.register_model_version(
                connection,
                name="linear",
                version="1",
                sha256="0" * 64,
                schema_sha256="0" * 64,
                input_schema=b"{}",
                format="skops",
            )
        self.made = 0

    def call(self) -> RecordedCall:
        """Return the next call; one in fifty was refused."""
        self.made += 1
        refused = self.made % 50 == 0
        identifier = new_request_id()
        return RecordedCall(
            id=identifier,
            user_id=self.users[self.made % len(self.users)],
            model="linear",
            model_version_id=self.version,
            x_request_id=None,
            content_type="application/json",
            input=INPUT,
            received_at=datetime.now(UTC),
            status=400 if refused else 200,
            output=OUTPUT % identifier.encode(),
            error_code="invalid_input" if refused else None,
            error_fields=("/age",) if refused else (),
            duration_us=100,
            responded_at=datetime.now(UTC),
        )

    async def rate(self, seconds: float) -> float:
        """Return the calls a second that the writer puts on record while 64 wait at a time."""
        url = self.database.engine.url.render_as_string(hide_password=False)
        with WriterProcess(WriterOrder(url)) as process:
            writer = Writer()
            await writer.start(process.address)
            end = time.perf_counter() + seconds
            written = 0

            async def caller() -> None:
                nonlocal written
                while time.perf_counter() < end:
                    await writer.write(self.call())
                    written += 1

            started = time.perf_counter()
            await asyncio.gather(*[caller() for _ in range(WAITING)])
            took = time.perf_counter() - started
            await writer.close()
            return written / took

    def fill(self, calls: int) -> None:
        """Put calls on record as fast as can be."""
        with self.database.raw_connection() as connection:
            commit = committer(connection.dbapi_connection, self.database.dialect)
            for _ in range(0, calls, FILLED_AT_ONCE):
                commit([self.call() for _ in range(FILLED_AT_ONCE)])
        os.sync()  # what the fill left unwritten must not disturb what is measured next

    def reading_ms(self) -> dict[str, float]:
        """Return the median milliseconds of the questions that people ask most."""
        with self.database.read() as connection:
            newest = reader.page(connection, reader.Filters(), limit=50, before=None)
        one = newest[25].id
        own = reader.Filters(user_id=self.users[3])
        refused = reader.Filters(status=400)
        asked = {
            "newest page": lambda c: reader.page(c, reader.Filters(), limit=50, before=None),
            "one id": lambda c: reader.find(c, one, None),
            "one user's page": lambda c: reader.page(c, own, limit=50, before=None),
            "refusals": lambda c: reader.page(c, refused, limit=50, before=None),
        }
        return {what: self._median_ms(question) for what, question in asked.items()}

    def _median_ms(self, question) -> float:
        times = []
        for _ in range(21):
            with self.database.read() as connection:
                started = time.perf_counter()
                question(connection)
                times.append((time.perf_counter() - started) * 1000)
        return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--directory", type=Path, help="where to keep the SQLite file meanwhile")
    parser.add_argument("--database", help="a PostgreSQL URL instead of SQLite")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="onrecord-growth-", dir=options.directory))
    try:
        record = Record(options.database or f"sqlite:///{home / 'record.db'}")
        print(
            "| calls on record | calls recorded/s |",
            "newest page ms | one id | one user | refusals |",
        )
        print("|---|---|---|---|---|---|")
        first = report(record, options)
        started = time.perf_counter()
        record.fill(options.calls)
        print(f"(filled in {time.perf_counter() - started:.0f} s)")
        full = report(record, options)
        print(f"ratio of the rates: {full / first:.2f}")
        record.database.close()
    finally:
        shutil.rmtree(home)


def report(record: Record, options: argparse.Namespace) -> float:
    rates = [asyncio.run(record.rate(options.seconds)) for _ in range(options.rounds)]
    rate = statistics.median(rates)
    reading = record.reading_ms()
    cells = " | ".join(f"{ms:.2f}" for ms in reading.values())
    print(f"| {record.made} | {rate:.0f} | {cells} |", flush=True)
    return rate


if __name__ == "__main__":
    main()
