"""Every setting of onrecord: one class, each field with its type, default and meaning.

Values come, first found first, from the command line, the environment (`ONRECORD_...`), the file
`onrecord.toml` in the working directory (or the one that `ONRECORD_CONFIG` names) and the defaults
below. Only `onrecord.app`, `onrecord.parts` and `onrecord.cli` read them; every other part is
handed plain values.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic.functional_validators import BeforeValidator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from onrecord.errors import SettingsError
from onrecord.loopback import is_loopback
from onrecord.record.masked_url import masked_url
from onrecord.record.spool_place import SpoolPlace

__all__ = ["Settings", "load_settings"]


def _split(value: object) -> object:
    """Let an environment variable hold a list as "a,b,c"."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _days_by_model(value: object) -> object:
    """Let days be said as 365, or as "365,risk=90": the first is for every model not named."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"": value}
    if not isinstance(value, str):
        return value
    days: dict[str, str] = {}
    for part in value.split(","):
        model, _, number = part.strip().rpartition("=")
        if model in days:
            raise ValueError(f"{model or 'the number for all other models'} is said twice")
        days[model] = number
    return days


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Algorithms = Annotated[
    tuple[Literal["RS256", "PS256", "ES256", "EdDSA"], ...], NoDecode, BeforeValidator(_split)
]


def _places(value: object) -> object:
    """Let an environment variable hold paths and `s3://` addresses as "a:b:c"."""
    if isinstance(value, str):
        return tuple(filter(None, re.split(rf"{os.pathsep}(?!//)", value)))
    return (value,) if isinstance(value, Path) else value


Places = Annotated[tuple[str | Path, ...], NoDecode, BeforeValidator(_places)]


Days = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=36_500)]], NoDecode, BeforeValidator(_days_by_model)
]


class Settings(BaseSettings):
    """The settings of one server."""

    model_config = SettingsConfigDict(
        env_prefix="ONRECORD_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    model_dir: Places = Field(
        default=(),
        description="The model directories to serve, each a model file and its schema, or folders "
        "`NAME/VERSION/` of them, here or in S3-compatible storage (`s3://BUCKET/FOLDER`); several "
        "are separated by `:`.",
    )
    model_name: str | None = Field(
        default=None, description="The model's name; by default the schema's, else the folder's."
    )
    compile: bool = Field(
        default=True,
        description="Convert the model to an ONNX graph when it is loaded, where both agree.",
    )
    max_versions: int = Field(
        default=10,
        ge=3,
        le=1000,
        description="How many versions of a model are in use at most; the oldest that is neither "
        "live nor candidate nor previous is retired when there are more.",
    )
    drift_rows: int = Field(
        default=200, ge=30, description="Of fewer rows than that nothing is said about drift."
    )
    drift_warning: float = Field(
        default=0.1, gt=0, description="From which PSI a feature is warned of."
    )
    drift_limit: float = Field(default=0.25, gt=0, description="From which PSI a feature drifts.")
    drift_minutes: float = Field(
        default=0, ge=0, description="How often drift is looked for; 0: only when it is asked for."
    )
    drift_webhook: SecretStr | None = Field(
        default=None, description="An https URL that is told when drift begins or ends."
    )
    drift_webhook_secret: SecretStr | None = Field(
        default=None, description="What those messages are signed with."
    )
    data_dir: Path = Field(
        default=Path("onrecord-data"),
        description="Where the server keeps its own files: record, keys, tree heads, trusted "
        "models.",
    )
    database: SecretStr | None = Field(
        default=None,
        description="The record's database, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DB; "
        "by default the file record.db in the data directory.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="How many worker processes serve.")
    registration: Literal["auto", "open", "closed"] = Field(
        default="auto",
        description="Whether strangers may register; auto: open on a loopback address only.",
    )
    token_minutes: int = Field(
        default=60, ge=1, le=60 * 24 * 365, description="How long a token is valid, in minutes."
    )
    session_days: int = Field(
        default=30,
        ge=1,
        le=365,
        description="How long after a sign-in its tokens can be refreshed, in days; then the "
        "password is needed again.",
    )
    session_idle_days: int = Field(
        default=7,
        ge=1,
        le=365,
        description="How long a sign-in stays refreshable without being refreshed, in days.",
    )
    token_secrets: SecretStr | None = Field(
        default=None,
        description="Token signing keys as KID:SECRET[,KID:SECRET], the first one signs; by "
        "default a generated key in the data directory.",
    )
    token_issuer: str = Field(default="onrecord", description="The `iss` of the tokens.")
    token_audience: str = Field(default="onrecord", description="The `aud` of the tokens.")
    oidc_issuer: str | None = Field(
        default=None,
        description="An OpenID Connect issuer whose access tokens are accepted too, exactly as in "
        "their `iss`; its keys are found by its discovery document.",
    )
    oidc_audience: str | None = Field(
        default=None,
        description="What the `aud` of the issuer's tokens must have: this API, not a client's id.",
    )
    oidc_algorithms: Algorithms = Field(
        default=("RS256", "EdDSA"),
        description="How the issuer's tokens may be signed: RS256, PS256, ES256, EdDSA.",
    )
    oidc_role_claim: str = Field(
        default="roles",
        description="The claim with a user's roles at the issuer; realm_access.roles is one "
        "within another.",
    )
    oidc_roles: Words = Field(
        default=(),
        description="Roles at the issuer and here, as onrecord-admins=admin,auditors=auditor; the "
        "first that a token has counts, and one with none is a user's. Once one is mapped to user, "
        "who has none may not call.",
    )
    oidc_username_claim: str = Field(
        default="preferred_username",
        description="The claim that names a user of the issuer at first sight; else the `sub`.",
    )
    api_key_days: int = Field(
        default=365,
        ge=1,
        le=3650,
        description="How long an API key may be valid, in days; one made without an end is valid "
        "so long.",
    )
    trusted_models: Words = Field(
        default=(), description="SHA-256 of pickle and joblib files that may be loaded."
    )
    trusted_types: Words = Field(
        default=(), description="Types that a skops file may hold beyond skops' own list."
    )
    max_body_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="The largest body of a call, in bytes."
    )
    max_rows: int = Field(
        default=10_000, ge=1, le=1_000_000, description="The most rows that one call may have."
    )
    head_seconds: float = Field(
        default=10.0, gt=0, description="How long a request's head may take to arrive, in seconds."
    )
    body_seconds: float = Field(
        default=30.0,
        gt=0,
        description="How long a body may take to arrive, and an answer to be read, in seconds.",
    )
    predict_seconds: float = Field(
        default=30.0, gt=0, description="How long a call may wait for the model, in seconds."
    )
    max_wait_ms: float | None = Field(
        default=None,
        gt=0,
        description="How long calls may wait for one another in a worker, in milliseconds, before "
        "more of them are refused with 503; by default two and a half times what a call takes that "
        "finds few others, 10 at least.",
    )
    call_rate: str | None = Field(
        default=None,
        description='How many predictions a user may ask for, as "100/second", counted over all '
        "workers of a server.",
    )
    call_quota: int | None = Field(
        default=None,
        ge=1,
        description="How many predictions a user may ask for on a day (UTC), counted over all "
        "servers on the database.",
    )
    trusted_proxies: Words = Field(
        default=(),
        description="Addresses of proxies whose X-Forwarded-For tells a client's address; sign-in "
        "limits count by it.",
    )
    docs: bool = Field(
        default=True, description="Whether /docs and /openapi.json are served (they show columns)."
    )
    seal_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How often the record is sealed and its tree head signed, in seconds; 0: only "
        "by `onrecord seal`.",
    )
    heads_file: Path | None = Field(
        default=None,
        description="The file that signed tree heads are appended to; by default heads.jsonl in "
        "the data directory. Best put out of reach of who can write the database.",
    )
    heads_url: SecretStr | None = Field(
        default=None,
        description="An https URL that each signed tree head is posted to as well, as text/plain.",
    )
    spool: bool = Field(
        default=True,
        description="Whether calls are recorded in a local file while PostgreSQL is away, and "
        "moved there when it is back; else they are refused meanwhile.",
    )
    spool_max_bytes: int = Field(
        default=1024**3, ge=1024**2, description="The most that the spool may take, in bytes."
    )
    spool_minutes: int = Field(
        default=60,
        ge=0,
        description="How long callers that a worker knew may go on while PostgreSQL is away, in "
        "minutes: what would end a token or key is not known meanwhile.",
    )
    retain_payload_days: Days | None = Field(
        default=None,
        description="After how many days `onrecord retention run` erases input and output of a "
        'call, by model: "365,risk=90" is 90 days for risk and 365 for any other.',
    )
    retain_row_days: Days | None = Field(
        default=None,
        description="After how many days `onrecord retention run` removes a call's rows, by model "
        "as `retain_payload_days`.",
    )
    drain_seconds: int = Field(
        default=30, ge=1, description="How long a stopping server waits for calls to finish."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="How log lines are written to standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is given
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is given
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the command line before the environment, and that before the file."""
        file = Path(os.environ.get("ONRECORD_CONFIG", "onrecord.toml"))
        toml = TomlConfigSettingsSource(settings_cls, toml_file=file)
        return init_settings, env_settings, toml

    @property
    def database_url(self) -> str:
        """The record's database as a URL, password included."""
        if self.database is not None:
            return self.database.get_secret_value()
        return f"sqlite:///{self.data_dir / 'record.db'}"

    @property
    def token_file(self) -> Path:
        """The file of the token signing keys."""
        return self.data_dir / "token-keys.json"

    @property
    def trust_file(self) -> Path:
        """The file of the models and types that the operator trusts."""
        return self.data_dir / "trusted.json"

    @property
    def conversions_dir(self) -> Path:
        """The folder of converted models, kept from start to start."""
        return self.data_dir / "conversions"

    @property
    def set_up_file(self) -> Path:
        """The file of the digest of the code that the first admin is made by."""
        return self.data_dir / "set-up-code"

    @property
    def seal_key_file(self) -> Path:
        """The file of the key that signs tree heads."""
        return self.data_dir / "seal.key"

    @property
    def payload_key_file(self) -> Path:
        """The file of the key that encrypts inputs with sensitive columns."""
        return self.data_dir / "payload.key"

    @property
    def heads_path(self) -> Path:
        """The file that signed tree heads are appended to."""
        return self.heads_file or self.data_dir / "heads.jsonl"

    @property
    def spool_place(self) -> SpoolPlace | None:
        """The spool, None where there is none: SQLite's file is as near as a spool would be."""
        if not self.spool or make_url(self.database_url).get_backend_name() == "sqlite":
            return None
        return SpoolPlace(str(self.data_dir / "spool.db"), self.spool_max_bytes)

    @property
    def delivered_file(self) -> Path:
        """The file that says which tree heads have arrived at `heads_url`."""
        return self.data_dir / "heads-delivered.json"

    @property
    def registration_open(self) -> bool:
        """Whether a stranger may register."""
        if self.registration == "auto":
            return is_loopback(self.host)
        return self.registration == "open"

    def shown(self) -> dict[str, object]:
        """Return every setting with secrets masked, for people and logs."""
        values = self.model_dump(mode="json")
        values["database"] = masked_url(make_url(self.database_url))
        return values


def load_settings(**given: object) -> Settings:
    """Read the settings; `given` holds what the command line said, None meaning "not said".

    Raises SettingsError with one line for each wrong setting.
    """
    try:
        settings = Settings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
        make_url(settings.database_url)
    except ValidationError as error:
        lines = [
            f"setting {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None
    except ArgumentError:
        raise SettingsError(
            "setting database: not a URL; write sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from None
    except ValueError as error:
        raise SettingsError(f"the settings file cannot be read: {error}") from None
    return settings
