"""`onrecord seal` and `onrecord verify`: the record's tamper evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.erase import told
from onrecord.cli.progress import rows_progress
from onrecord.errors import RemoteError, SealError, SettingsError
from onrecord.outgoing import fault_of_url, get
from onrecord.record.checkpoint import PublicKey, SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile, Line, lines_of
from onrecord.record.heads_url import HeadsUrl
from onrecord.record.seal import Sealer, newest_head, unsealed
from onrecord.record.tables import utc_text
from onrecord.record.verify import Verified, signed_heads
from onrecord.record.verify import verify as verify_record
from onrecord.settings import Settings, load_settings

__all__ = ["heads_url", "seal_app", "verify"]

_MAX_HEADS_BYTES = 1024**3
_SECONDS = 60.0

seal_app = typer.Typer(help="Seal the record now; or show the key, or how far it is sealed.")


@seal_app.callback(invoke_without_command=True)
def seal(context: typer.Context, database: DatabaseOption = None) -> None:
    """Seal every call on record now and sign the tree's head."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(database=database)
    heads = HeadsFile(settings.heads_path)
    url = heads_url(settings)
    with open_database(database) as opened:
        head = Sealer(opened, SigningKey.from_file(settings.seal_key_file), heads).seal()
        if head is None:
            typer.echo("nothing is on record yet, so nothing was signed")
            return
        typer.echo(f"{heads.path} has a head of {head.size} rows, root {head.root.hex()}")
        if url is not None:
            _deliver(opened, url, settings)


def heads_url(settings: Settings) -> str | None:
    """Return the URL that heads are posted to, None where there is none.

    Raises SettingsError where it is not one to post to.
    """
    if settings.heads_url is None:
        return None
    url = settings.heads_url.get_secret_value()
    fault = fault_of_url(url)
    if fault is not None:
        raise SettingsError(f"setting heads_url: {fault}")
    return url


def _deliver(database: Database, url: str, settings: Settings) -> None:
    heads = HeadsUrl(database, url, heads_file=settings.heads_path, marker=settings.delivered_file)
    try:
        heads.deliver()
    except RemoteError as error:
        raise SealError(f"the head did not arrive at heads_url, it stays: {error}") from None


@seal_app.command("key")
def key() -> None:
    """Print the public key that checks the record's heads and proofs."""
    typer.echo(str(SigningKey.from_file(load_settings().seal_key_file).public))


@seal_app.command("status")
def status(database: DatabaseOption = None) -> None:
    """Say when the newest head was signed and how many rows are not sealed yet."""
    with open_database(database) as opened, opened.read() as connection:
        head = newest_head(connection)
        rest = unsealed(connection, None if head is None else head.last_seq)
    if head is None:
        typer.echo("no head was ever signed")
    else:
        typer.echo(f"the newest head was signed at {utc_text(head.signed_at)}: {head.size} rows")
    typer.echo(f"not yet sealed: {rest} rows")


def verify(
    heads: Annotated[
        str | None,
        typer.Option(
            help="The file of signed heads, or a URL that answers with one; by default setting "
            "heads_file."
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(help="A file with what `onrecord seal key` printed; by default its own key."),
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Check the record against its signed heads: nothing changed, removed, reordered or cut.

    Lists what was erased, when, by whom and why. Exits with 1 and names the first row that is not
    as it was sealed.
    """
    settings = load_settings(database=database)
    file = heads or str(settings.heads_path)
    lines = _lines(file)
    trusted = _trusted_key(public_key, settings.seal_key_file)
    signed = signed_heads(lines, trusted)
    torn = sum(line.note is None for line in lines)
    if torn:
        typer.echo(f"{file}: {torn} lines are not whole and count for nothing", err=True)
    opened = Database(settings.database_url)
    try:
        opened.check()
        with rows_progress() as progress:
            bar = progress.add_task("rows", total=signed[-1].size)
            found = verify_record(opened, signed, trusted, lambda rows: progress.advance(bar, rows))
    finally:
        opened.close()
    _tell(found)


def _lines(place: str) -> list[Line]:
    if not place.startswith(("http://", "https://")):
        return HeadsFile(Path(place)).lines()
    fault = fault_of_url(place)
    if fault is not None:
        raise SealError(f"--heads: {fault}")
    try:
        return lines_of(get(place, seconds=_SECONDS, max_bytes=_MAX_HEADS_BYTES))
    except RemoteError as error:
        raise SealError(f"--heads: {error}") from None


def _trusted_key(file: Path | None, own: Path) -> PublicKey:
    path = file or own
    try:
        if file is None and path.exists():
            return SigningKey.from_file(path).public
        return PublicKey.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise SealError(
            f"{path} cannot be read; say --public-key FILE, what `onrecord seal key` printed"
        ) from None
    except SealError as error:
        raise SealError(f"{path}: {error}") from None


def _tell(found: Verified) -> None:
    head = found.newest
    if found.fault is None:
        typer.echo(
            f"verified {found.rows} rows of {head.origin} against {found.heads} signed heads, the "
            f"newest of {utc_text(head.signed_at)}\n"
            f"not yet under a head: {found.unsealed} rows"
        )
        if found.changes:
            typer.echo(f"model changes among them: {found.changes}")
        for act in found.erasures:
            typer.echo(f"erased: {told(act)}")
        for act in found.unsealed_erasures:
            typer.echo(f"erased, not yet under a head: {told(act)}")
        return
    fault = found.fault
    row = "a row" if fault.seq is None else f"row {fault.seq}"
    name = "" if fault.id is None else f", call {fault.id}"
    typer.echo(
        f"onrecord: the record is not what was signed.\n"
        f"  First bad: {row}{name} (leaf {fault.leaf} of {head.size}): {fault.what}.",
        err=True,
    )
    raise typer.Exit(1)
