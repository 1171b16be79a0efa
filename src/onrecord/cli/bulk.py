"""`onrecord predict`: the answers to a whole file, each chunk on record like any call."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onrecord.cli.bulk_data import Chunk, DataFile
from onrecord.cli.bulk_output import Kept, Output
from onrecord.cli.bulk_scorers import Local, Remote, Scorer
from onrecord.cli.progress import rows_progress
from onrecord.errors import CallError, Fault, InvalidInput, SettingsError
from onrecord.lifecycle.storage import is_in_storage
from onrecord.logs import configure_logs
from onrecord.settings import load_settings

__all__ = ["predict", "score_file"]

_SHOWN_FAULTS = 20
_INTERRUPTED = 130


def predict(
    target: Annotated[str, typer.Argument(help="A model directory, or a server's address.")],
    data: Annotated[Path, typer.Argument(help="The rows: CSV or Parquet.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The answers' file, .parquet or .csv.")
    ],
    user: Annotated[
        str | None, typer.Option(help="The user on whose behalf a model directory is asked.")
    ] = None,
    record: Annotated[
        bool,
        typer.Option("--record/--no-record", help="Put the calls to a model directory on record."),
    ] = True,
    database: Annotated[
        str | None, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
    ] = None,
    chunk_rows: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many rows are one call.")
    ] = 10_000,
    compile: Annotated[  # noqa: A002 - it is the option's name
        bool | None,
        typer.Option("--compile/--no-compile", help="Convert the model to ONNX where both agree."),
    ] = None,
) -> None:
    """Predict for every row of a file, on record; interrupted, the same command goes on.

    A server gets the token in ONRECORD_TOKEN. Answers come to light when all are there.
    """
    if output.suffix.lower() not in {".csv", ".parquet"}:
        raise SettingsError(
            f"{output} is neither .csv nor .parquet; name the output as one of them"
        )
    if output.exists():
        raise SettingsError(f"{output} exists; remove it or name another output")
    source = DataFile(data, chunk_rows)
    remote = "://" in target and not is_in_storage(target)
    if not remote and record == (user is None):
        raise SettingsError(
            "say --user NAME, on whose behalf the calls are put on record, or --no-record"
        )
    if remote and (user is not None or not record or database is not None):
        raise SettingsError("--user, --no-record and --database are for a model directory only")

    @asynccontextmanager
    async def scorer() -> AsyncIterator[Scorer]:
        if remote:
            token = os.environ.get("ONRECORD_TOKEN", "")
            if not token:
                raise SettingsError("set ONRECORD_TOKEN to a token of the server's")
            async with Remote.opened(target, token) as found:
                yield found
            return
        given = {"model_dir": target, "database": database, "compile": compile}
        settings = load_settings(**given)
        configure_logs(form="console", level="error")
        async with Local.opened(settings, user, chunk_rows) as local:
            yield local

    async def run() -> int:
        async with scorer() as found:
            return await score_file(source, output, found)

    try:
        rows = asyncio.run(run())
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on with the chunks that are left", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(f"wrote {output}: answers to {rows} rows", err=True)


async def score_file(source: DataFile, output: Path, scorer: Scorer) -> int:
    """Write the answers to every row of `source` to `output`, and return how many they are.

    Finished chunks of an earlier run are not asked for again. Raises InvalidInput at the first
    chunk with bad rows, named by their numbers in the file; the chunks before it are kept.
    """
    parts = scorer.identity() | {
        "data": await asyncio.to_thread(source.sha256),
        "rows of a chunk": source.chunk_rows,
    }
    kept = Kept(output, parts)
    joined = Output(output, kept.path)
    chunks = source.chunks()
    waiting: deque[tuple[Chunk, asyncio.Task[bytes]]] = deque()
    rows = 0

    # One chunk is read, and one joined, while those between are answered.
    reading = asyncio.create_task(asyncio.to_thread(next, chunks, None))
    joining = asyncio.create_task(asyncio.to_thread(joined.start))

    async def settle() -> int:
        nonlocal joining
        chunk, task = waiting[0]
        try:
            answer = await asyncio.shield(task)
        except InvalidInput as error:
            raise _in_the_file(error, chunk, source) from None
        waiting.popleft()
        await joining
        joining = asyncio.create_task(asyncio.to_thread(joined.add, answer))
        progress.advance(bar, chunk.rows)
        return chunk.rows

    with rows_progress() as progress:
        bar = progress.add_task("rows", total=source.rows)
        try:
            while (chunk := await asyncio.shield(reading)) is not None:
                reading = asyncio.create_task(asyncio.to_thread(next, chunks, None))
                waiting.append((chunk, asyncio.create_task(_answer(chunk, source, scorer, kept))))
                if len(waiting) >= scorer.at_once:
                    rows += await settle()
            while waiting:
                rows += await settle()
        except CallError:
            kept.renew_keys()
            raise
        finally:
            # What is under way will be on record: its answers are kept rather than asked for again.
            under_way = [task for _, task in waiting]
            await asyncio.gather(reading, joining, *under_way, return_exceptions=True)
        await joining  # it may have failed
        await asyncio.to_thread(joined.finish)
    kept.remove()
    return rows


async def _answer(chunk: Chunk, source: DataFile, scorer: Scorer, kept: Kept) -> bytes:
    found = await asyncio.to_thread(kept.find, chunk.number, chunk.rows)
    if found is None:
        found = await scorer.score(chunk.body, source.content_type, kept.key(chunk.number))
        await asyncio.to_thread(kept.keep, chunk.number, found)
    return found


def _in_the_file(error: InvalidInput, chunk: Chunk, source: DataFile) -> InvalidInput:
    """Return the error of a chunk with its rows named by their numbers in the file, from 1."""
    faults = []
    for fault in error.faults[:_SHOWN_FAULTS]:
        place = fault.pointer.split("/")
        if place[1:2] == ["rows"] and len(place) > 2:  # noqa: PLR2004 - /rows/3/...
            column = "/".join(place[3:])
            where = f"row {chunk.first + int(place[2]) + 1}" + (f", {column}" if column else "")
        else:
            where = fault.pointer.removeprefix("/") or "the file"
        faults.append(replace(fault, pointer=where))
    more = len(error.faults) - len(faults)
    if more:
        faults.append(Fault("and", "more", f"{more} more in the same chunk."))
    last = chunk.first + chunk.rows
    detail = f"{source.path}, rows {chunk.first + 1} to {last}: {error.detail}"
    return InvalidInput(detail, faults=tuple(faults))
