"""What a server and the commands are built of: each part, made from the settings."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from onrecord.accounts.api_keys import ApiKeys
from onrecord.accounts.external import ExternalTokens, RoleMap
from onrecord.accounts.issuer_keys import IssuerKeys
from onrecord.accounts.keys import KeyRing
from onrecord.accounts.limits import SignInLimit
from onrecord.accounts.passwords import Passwords
from onrecord.accounts.sessions import Sessions
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.tokens import Tokens
from onrecord.errors import SettingsError
from onrecord.file_lock import locked
from onrecord.insight.baselines import parse_baseline
from onrecord.insight.drift import DriftRules
from onrecord.lifecycle.apart import run_apart
from onrecord.lifecycle.directories import Source, model_sources
from onrecord.lifecycle.examination import Examiner
from onrecord.lifecycle.fleet import Load, load_stored
from onrecord.lifecycle.storage import at_hand
from onrecord.lifecycle.versions import Versions, register
from onrecord.outgoing import fault_of_url
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.erase import Eraser
from onrecord.record.heads_file import HeadsFile
from onrecord.record.model_versions import StoredVersion
from onrecord.record.payload_key import PayloadKey
from onrecord.record.writer_order import WriterOrder
from onrecord.record.writer_process import WriterProcess
from onrecord.serving.artifact import Model, is_converted, model_of, read_model_directory
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.model_files import BASELINE_FILE, MAX_TEXT_BYTES, SCHEMA_FILE, read_file
from onrecord.serving.trust import Trust
from onrecord.settings import Settings

__all__ = [
    "Parts",
    "build_accounts",
    "build_eraser",
    "build_examiner",
    "build_external",
    "build_reveal",
    "build_versions",
    "check_drift_webhook",
    "convert_apart",
    "described",
    "drift_rules",
    "first_model_name",
    "load_directory",
    "load_given_models",
    "load_served_model",
    "load_trust",
    "loader",
    "operator",
    "payload_key_for",
    "register_model",
    "writer_process",
]


_NICE = 10
"""How much less urgent a conversion is than the calls of a server beside it."""


def load_trust(settings: Settings) -> Trust:
    """Return what the operator trusts: the server's own file and the settings together."""
    return Trust(
        settings.trust_file, hashes=settings.trusted_models, skops_types=settings.trusted_types
    )


@dataclass(frozen=True)
class Parts:
    """The accounts of one server and the parts under them."""

    tokens: Tokens
    passwords: Passwords
    accounts: Accounts
    sessions: Sessions
    api_keys: ApiKeys


def build_accounts(settings: Settings, database: Database, *, counts: Path | None = None) -> Parts:
    """Build the accounts on a database; `counts` is as in `create_app`."""
    keys = (
        KeyRing.from_secrets(settings.token_secrets.get_secret_value())
        if settings.token_secrets is not None
        else KeyRing.from_file(settings.token_file)
    )
    tokens = Tokens(
        keys,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=timedelta(minutes=settings.token_minutes),
    )
    passwords = Passwords()
    return Parts(
        tokens,
        passwords,
        Accounts(database, passwords, SignInLimit(directory=counts)),
        Sessions(
            database,
            tokens,
            longest=timedelta(days=settings.session_days),
            idle=timedelta(days=settings.session_idle_days),
        ),
        ApiKeys(database, longest=timedelta(days=settings.api_key_days)),
    )


def build_eraser(settings: Settings, database: Database) -> Eraser:
    """Build what erases on the record, with the seal's key; raises SealError."""
    key = SigningKey.from_file(settings.seal_key_file)
    return Eraser(database, key, HeadsFile(settings.heads_path))


def drift_rules(settings: Settings) -> DriftRules:
    """Return when a feature drifts, as the settings say."""
    return DriftRules(
        least_rows=settings.drift_rows,
        warning=settings.drift_warning,
        drift=settings.drift_limit,
    )


def check_drift_webhook(settings: Settings) -> None:
    """Raise SettingsError where drift could not be told as the settings say."""
    if settings.drift_webhook is None:
        return
    fault = fault_of_url(settings.drift_webhook.get_secret_value())
    if fault is not None:
        raise SettingsError(f"setting drift_webhook: {fault}")
    if settings.drift_webhook_secret is None:
        raise SettingsError("setting drift_webhook_secret: say what the messages are signed with")
    if not settings.drift_minutes:
        raise SettingsError("setting drift_minutes: say how often drift is looked for")


def build_external(settings: Settings) -> ExternalTokens | None:
    """Build what reads the tokens of the external issuer, None where the settings name none.

    Raises SettingsError where they contradict each other.
    """
    issuer, audience = settings.oidc_issuer, settings.oidc_audience
    if issuer is None:
        return None
    fault = fault_of_url(issuer)
    if fault is not None or "?" in issuer:
        raise SettingsError(f"setting oidc_issuer: {fault or 'an issuer has no query'}")
    if issuer == settings.token_issuer:
        raise SettingsError("setting oidc_issuer: it is the same as token_issuer")
    if not audience:
        raise SettingsError("setting oidc_audience: say what the `aud` of the tokens must have")
    if not settings.oidc_algorithms:
        raise SettingsError("setting oidc_algorithms: name one or more")
    return ExternalTokens(
        IssuerKeys(issuer, algorithms=settings.oidc_algorithms),
        issuer=issuer,
        audience=audience,
        roles=RoleMap.parse(settings.oidc_role_claim, settings.oidc_roles),
        username_claim=settings.oidc_username_claim,
    )


def payload_key_for(settings: Settings, model: Model) -> PayloadKey | None:
    """Return what encrypts the inputs of a model with sensitive columns; raises SealError."""
    return PayloadKey.from_file(settings.payload_key_file) if model.schema.sensitive else None


def build_reveal(settings: Settings) -> Callable[[bytes], bytes]:
    """Return what decrypts recorded inputs; where there is no key it leaves them as they are.

    A model with sensitive columns, and with it the key, may come while the server runs.
    """
    key: PayloadKey | None = None

    def reveal(payload: bytes) -> bytes:
        nonlocal key
        if key is None and settings.payload_key_file.exists():
            key = PayloadKey.from_file(settings.payload_key_file)
        return payload if key is None else key.reveal(payload)

    return reveal


def loader(settings: Settings) -> Load:
    """Return what makes a model of its files, as a server with these settings does."""
    trust = load_trust(settings)

    def load(files: Mapping[str, bytes], place: Path, name: str) -> Model:
        return model_of(
            files,
            place,
            trust=trust,
            name=name,
            compile=settings.compile,
            cache=settings.conversions_dir,
        )

    return load


def load_directory(settings: Settings, source: Source) -> tuple[dict[str, bytes], Model]:
    """Return the files of a model directory, and the model that a server would make of them.

    Raises whatever `load_model` raises.
    """
    files = read_model_directory(source.directory)
    name = _name_of(settings, source, files[SCHEMA_FILE])
    model = loader(settings)(files, source.directory, name)
    if BASELINE_FILE in files:
        parse_baseline(files[BASELINE_FILE], model.schema)
    return files, model


def first_model_name(settings: Settings) -> str | None:
    """Return the name of the first model that the settings name, None where they name none.

    Raises ModelDirectoryError.
    """
    with at_hand(settings.model_dir[:1]) as paths:
        for source in model_sources(paths):
            raw = read_file(source.directory / SCHEMA_FILE, max_bytes=MAX_TEXT_BYTES)
            return _name_of(settings, source, raw)
    return None


def _name_of(settings: Settings, source: Source, schema: bytes) -> str:
    """Return what a model is called: as the settings say, else its schema, else its folder."""
    return settings.model_name or parse_input_schema(schema, SCHEMA_FILE).name or source.name


def load_given_models(settings: Settings) -> list[tuple[dict[str, bytes], Model]]:
    """Return `load_directory` of each directory that the settings name.

    Raises SettingsError where they name none, or one name for several models.
    """
    if not settings.model_dir:
        raise SettingsError("setting model_dir: name the model directory to serve")
    with at_hand(settings.model_dir) as paths:
        sources = model_sources(paths)
        if settings.model_name is not None and len({source.name for source in sources}) > 1:
            raise SettingsError("setting model_name: it cannot be the name of several models")
        return [load_directory(settings, source) for source in sources]


def load_served_model(settings: Settings) -> Model:
    """Return the one model that the settings name; raises as `load_given_models` does."""
    models = load_given_models(settings)
    if len(models) > 1:
        raise SettingsError("setting model_dir: name one model directory, not several")
    return models[0][1]


def register_model(database: Database, model: Model) -> int:
    """Return the model version's key in the record, which is new where the version is."""
    with database.write() as connection:
        return register(connection, model)


def build_examiner(settings: Settings) -> Examiner:
    """Build what the gate examines versions with, on a database of its own."""
    return Examiner(Database(settings.database_url), loader(settings), build_reveal(settings))


def convert_apart(settings: Settings, version: StoredVersion, files: Mapping[str, bytes]) -> None:
    """Have a process of its own keep the conversion of a version, where there is none yet.

    Converting takes seconds, and holds the interpreter for up to a tenth of one at a time, in which
    no call would be answered. Raises WorkFailed where the process dies: what killed it would kill
    the server too.
    """
    if settings.compile and not is_converted(files, settings.conversions_dir):
        run_apart(f"converting {version}", partial(_convert, settings, version))


def _convert(settings: Settings, version: StoredVersion) -> None:
    os.nice(_NICE)
    database = Database(settings.database_url)
    with contextlib.suppress(Exception), locked(settings.conversions_dir / "lock"):
        # Whatever it raises, loading the version in the server will raise as well, and be told.
        load_stored(database, version, loader(settings))
    database.close()


def build_versions(settings: Settings, database: Database) -> Versions:
    """Build what changes which version of a model answers."""
    return Versions(database, most=settings.max_versions)


def operator() -> str:
    """Return the name of the account that runs this process, its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def writer_process(settings: Settings) -> WriterProcess:
    """Return the process that puts calls on record for a server with these settings."""
    return WriterProcess(
        WriterOrder(
            database_url=settings.database_url,
            spool=settings.spool_place,
            log_format=settings.log_format,
            log_level=settings.log_level,
        )
    )


def described(settings: Settings) -> list[dict[str, object]]:
    """Return each setting's name, value (secrets masked), meaning, and whether it was given."""
    return [
        {
            "name": name,
            "value": value,
            "meaning": Settings.model_fields[name].description,
            "given": name in settings.model_fields_set,
        }
        for name, value in settings.shown().items()
    ]
