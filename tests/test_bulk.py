"""`onrecord predict`: a whole file, in chunks that are on record, resumed where it was cut off."""

import asyncio
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from live import PASSWORD, Server, give_conversion, live_server, run_command
from onrecord import Client
from onrecord.cli.bulk_data import DataFile
from onrecord.cli.bulk_output import Kept
from onrecord.cli.bulk_scorers import Remote
from onrecord.record import reader
from onrecord.record.database import Database
from onrecord.serving.forms import ARROW

ROWS = 2_350
CHUNK = 500
COLUMNS = {
    "age": [20.0 + i % 70 + i / ROWS for i in range(ROWS)],
    "pressure": [80.0 + i % 100 for i in range(ROWS)],
    "smoker": [i % 3 == 0 for i in range(ROWS)],
    "visits": [i % 9 for i in range(ROWS)],
}
NAMES = ["id", "prediction", "probability_0", "probability_1"]


class Place:
    """A model directory, a record with a user, and commands beside them."""

    def __init__(self, model_dir: Path, home: Path, database: str | None = None) -> None:
        self.home = home
        self.model = shutil.copytree(model_dir, home / "risk")
        give_conversion(model_dir, home / "data")
        self.data = home / "rows.parquet"
        parquet.write_table(pa.table(COLUMNS), self.data, row_group_size=700)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("ONRECORD_")}
        self.environment["ONRECORD_DATA_DIR"] = str(home / "data")
        self.environment["ONRECORD_NEW_PASSWORD"] = PASSWORD
        self.database = database or f"sqlite:///{home / 'data' / 'record.db'}"
        self.environment["ONRECORD_DATABASE"] = self.database
        made = self.run("users", "create", "ada")
        assert made.returncode == 0, made.stderr

    def run(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return run_command(words, self.environment | more)

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.words(*words), env=self.environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @staticmethod
    def words(*words: object) -> list[str]:
        return [sys.executable, "-m", "onrecord", *map(str, words)]

    def predict(self, out: Path, *words: object) -> list[object]:
        return ["predict", self.model, self.data, "-o", out, "--chunk-rows", CHUNK, *words]

    def on_record(self) -> list[reader.Entry]:
        database = Database(self.database)
        try:
            with database.read() as connection:
                return list(reader.stream(connection, reader.Filters()))
        finally:
            database.close()


@pytest.fixture
def place(model_dir: Path, tmp_path: Path) -> Place:
    return Place(model_dir, tmp_path)


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("served")
    with live_server(model_dir, home / "data") as running:
        yield running


def by_the_model_itself(place: Place) -> list[int]:
    import skops.io

    model = skops.io.load(place.model / "model.skops")
    return model.predict(np.column_stack(list(COLUMNS.values()))).tolist()


def test_every_row_is_answered_in_order_and_every_chunk_is_on_record(
    model_dir: Path, tmp_path: Path, database_url: str
) -> None:
    place = Place(model_dir, tmp_path, database_url)
    out = tmp_path / "out.parquet"

    ran = place.run(*place.predict(out, "--user", "ada"))

    assert ran.returncode == 0, ran.stderr
    table = parquet.read_table(out)
    assert table.column_names == NAMES
    assert table["prediction"].to_pylist() == by_the_model_itself(place)
    ids = table["id"].to_pylist()
    # Several chunks are under way at once, so that the record may have them in another order.
    entries = sorted(place.on_record(), key=lambda entry: ids.index(entry.id))
    assert [e.status for e in entries] == [200] * 5
    assert {(e.username, e.content_type) for e in entries} == {
        ("ada", "application/vnd.apache.arrow.stream")
    }
    asked = [pa.ipc.open_stream(entry.input).read_all() for entry in entries]
    assert pa.concat_tables(asked).equals(pa.table(COLUMNS))
    answered = [parquet.read_table(pa.BufferReader(entry.output)) for entry in entries]
    assert pa.concat_tables(answered).equals(table)
    assert not list(tmp_path.glob("*.partial"))
    shown = place.run("log", "--limit", 1, COLUMNS="300").stdout
    assert "bytes of application/vnd.apache.arrow.stream" in shown
    assert "bytes of application/vnd.apache.parquet" in shown


def test_csv_in_and_csv_out_give_the_same_answers(place: Place) -> None:
    place.run(*place.predict(place.home / "out.parquet", "--no-record"))
    expected = parquet.read_table(place.home / "out.parquet").drop_columns("id").to_pylist()
    place.data = place.home / "rows.csv"
    with place.data.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(reversed(COLUMNS))
        writer.writerows(zip(*reversed(COLUMNS.values()), strict=True))

    ran = place.run(*place.predict(place.home / "out.csv", "--user", "ada"))

    assert ran.returncode == 0, ran.stderr
    with (place.home / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [
        {"prediction": int(row["prediction"])}
        | {name: float(row[name]) for name in NAMES if name.startswith("probability")}
        for row in found
    ] == expected
    assert {entry.content_type for entry in place.on_record()} == {"text/csv"}


def test_without_record_nothing_is_recorded_and_that_must_be_said(place: Place) -> None:
    silent = place.run(*place.predict(place.home / "out.parquet"))
    said = place.run(*place.predict(place.home / "out.parquet", "--no-record", "--no-compile"))
    stranger = place.run(*place.predict(place.home / "new.parquet", "--user", "nobody"))

    assert silent.returncode == 1
    assert "--no-record" in silent.stderr
    assert said.returncode == 0, said.stderr
    table = parquet.read_table(place.home / "out.parquet")
    assert table["prediction"].to_pylist() == by_the_model_itself(place)
    assert stranger.returncode == 1
    assert "no user 'nobody'" in stranger.stderr
    assert place.on_record() == []


def chunks_kept(out: Path) -> int:
    return len(list(out.with_name(out.name + ".partial").glob("????????.parquet")))


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_after_an_interruption_only_the_chunks_that_are_left_are_asked_for(
    place: Place, sign: signal.Signals
) -> None:
    out = place.home / "out.parquet"
    many = pa.concat_tables([pa.table(COLUMNS)] * 60)
    chunks = many.num_rows // CHUNK
    parquet.write_table(many, place.data)
    process = place.start(*place.predict(out, "--user", "ada"))
    deadline = time.monotonic() + 60
    while chunks_kept(out) < 10:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
    process.send_signal(sign)
    process.communicate(timeout=60)
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    assert not out.exists()
    kept, recorded = chunks_kept(out), len(place.on_record())
    assert 10 <= kept < chunks
    # What was under way when it was killed may be on record and yet not kept.
    assert kept <= recorded <= kept + (4 if sign == signal.SIGKILL else 0)

    ran = place.run(*place.predict(out, "--user", "ada"))

    assert ran.returncode == 0, ran.stderr
    table = parquet.read_table(out)
    assert table["prediction"].to_pylist() == by_the_model_itself(place) * 60
    assert len(set(table["id"].to_pylist())) == many.num_rows
    entries = place.on_record()
    assert len(entries) == recorded + chunks - kept
    assert sum(e.status == 200 for e in entries) == len(entries)


def stop_after_a_chunk(place: Place, out: Path) -> None:
    """Leave OUT.partial behind, by data whose third chunk has a bad row."""
    ran = place.run(*place.predict(out, "--user", "ada"))
    assert ran.returncode == 1
    assert chunks_kept(out) >= 2


def write_bad(place: Place) -> None:
    bad: dict[str, list[Any]] = {name: list(values) for name, values in COLUMNS.items()}
    bad["age"][1_234] = None
    bad["visits"][1_240] = None
    parquet.write_table(pa.table(bad), place.data)


def test_bad_rows_stop_it_and_are_named_by_their_number_in_the_file(place: Place) -> None:
    write_bad(place)
    out = place.home / "out.parquet"

    ran = place.run(*place.predict(out, "--user", "ada"))

    assert ran.returncode == 1
    assert "rows 1001 to 1500: 2 fields do not fit." in ran.stderr
    assert "row 1235, age: It is null" in ran.stderr
    assert "row 1241, visits: It is null" in ran.stderr
    assert not out.exists()
    assert chunks_kept(out) >= 2
    assert [e.error_code for e in place.on_record() if e.status != 200] == ["invalid_input"]


def test_chunks_of_other_data_or_another_model_are_not_gone_on_with(place: Place) -> None:
    write_bad(place)
    out = place.home / "out.parquet"
    stop_after_a_chunk(place, out)
    with place.data.open("ab") as file:
        file.write(b"\0")
    broken = place.run(*place.predict(out, "--user", "ada"))
    parquet.write_table(pa.table(COLUMNS), place.data)

    other_data = place.run(*place.predict(out, "--user", "ada"))
    write_bad(place)
    schema = place.model / "input_schema.json"
    schema.write_text(schema.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    other_schema = place.run(*place.predict(out, "--user", "ada"))

    assert broken.returncode == 1
    assert "cannot be read" in broken.stderr
    assert other_data.returncode == other_schema.returncode == 1
    assert "differs in: data" in other_data.stderr
    assert "differs in: schema" in other_schema.stderr
    assert chunks_kept(out) >= 2


def test_a_kept_chunk_that_lost_its_content_is_asked_for_again(place: Place) -> None:
    write_bad(place)
    out = place.home / "out.parquet"
    stop_after_a_chunk(place, out)
    first = out.with_name("out.parquet.partial") / "00000000.parquet"
    before = len(place.on_record())
    first.write_bytes(b"\0" * 100)

    stop_after_a_chunk(place, out)

    assert parquet.read_metadata(first).num_rows == CHUNK
    assert len(place.on_record()) > before


def test_an_existing_output_and_a_foreign_directory_are_left_alone(place: Place) -> None:
    out = place.home / "out.parquet"
    out.write_bytes(b"mine")
    there = place.run(*place.predict(out, "--user", "ada"))
    other = place.home / "other.csv"
    (place.home / "other.csv.partial").mkdir()
    (place.home / "other.csv.partial" / "mine").touch()
    foreign = place.run(*place.predict(other, "--user", "ada"))

    assert there.returncode == foreign.returncode == 1
    assert out.read_bytes() == b"mine"
    assert "was not made by this command" in foreign.stderr
    assert not other.exists()


def test_a_server_answers_and_records_chunks_for_the_tokens_user(
    server: Server, place: Place
) -> None:
    token = server.register("grace")
    expected = by_the_model_itself(place)

    for name, address in (
        ("one", server.base),
        ("two", f"{server.base}/models/risk/predict"),
    ):
        out = place.home / f"{name}.parquet"
        words = ["predict", address, place.data, "-o", out, "--chunk-rows", CHUNK]
        ran = place.run(*words, ONRECORD_TOKEN=token)
        assert ran.returncode == 0, ran.stderr
        assert parquet.read_table(out)["prediction"].to_pylist() == expected

    database = Database(f"sqlite:///{server.data_dir / 'record.db'}")
    with database.read() as connection:
        entries = list(reader.stream(connection, reader.Filters()))
    database.close()
    assert [(e.username, e.status) for e in entries] == [("grace", 200)] * 10


def test_a_chunk_whose_answer_was_not_kept_is_not_put_on_record_again(
    server: Server, place: Place
) -> None:
    token = server.register("joan")
    (chunk,) = DataFile(place.data, ROWS).chunks()
    out = place.home / "out.parquet"

    async def ask(key: str) -> bytes:
        async with Remote.opened(server.base, token) as remote:
            return await remote.score(chunk.body, ARROW, key)

    first = asyncio.run(ask(Kept(out, {"data": "d"}).key(0)))
    again = Kept(out, {"data": "d"})

    assert asyncio.run(ask(again.key(0))) == first
    assert again.key(1) != again.key(0)
    before = again.key(0)
    again.renew_keys()
    assert Kept(out, {"data": "d"}).key(0) == again.key(0) != before
    with Client(server.base, token=token) as client:
        assert len(list(client.predictions())) == 1


def test_a_refused_chunk_is_asked_for_with_another_key(server: Server, place: Place) -> None:
    token = server.register("mary")
    write_bad(place)
    out = place.home / "out.parquet"
    words = ["predict", server.base, place.data, "-o", out, "--chunk-rows", CHUNK]

    refused = [place.run(*words, ONRECORD_TOKEN=token) for _ in range(2)]

    assert all("row 1235, age: It is null" in ran.stderr for ran in refused)
    with Client(server.base, token=token) as client:
        keys = [call.idempotency_key for call in client.predictions(status=400)]
    assert len(keys) == len(set(keys)) == 2


def test_what_a_server_refuses_is_told(server: Server, place: Place) -> None:
    token = server.register("alan")
    out = place.home / "out.parquet"
    words = ["predict", server.base, place.data, "-o", out]
    silent = place.run(*words)
    wrong = place.run(*words, ONRECORD_TOKEN="nonsense")
    nowhere = place.run("predict", "http://127.0.0.1:1", *words[2:], ONRECORD_TOKEN=token)
    unknown = place.run(
        "predict", f"{server.base}/models/none/predict", *words[2:], ONRECORD_TOKEN=token
    )
    write_bad(place)
    bad = place.run(*words, "--chunk-rows", CHUNK, ONRECORD_TOKEN=token)

    assert "set ONRECORD_TOKEN" in silent.stderr
    assert "401" in wrong.stderr
    assert "cannot be reached" in nowhere.stderr
    assert "serves no model 'none'" in unknown.stderr
    assert "row 1235, age: It is null" in bad.stderr
    assert not out.exists()
