"""The tables of the record, as SQLAlchemy Core describes them.

The migrations under `migrations/versions` make these tables; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from onrecord.record.column_types import BIG_INTEGER, UtcDateTime, id_type, utc_text

__all__ = [
    "NAMING",
    "UtcDateTime",
    "api_keys",
    "baselines",
    "deployments",
    "drift_sketches",
    "erasures",
    "id_type",
    "metadata",
    "model_changes",
    "model_files",
    "model_versions",
    "outcomes",
    "requests",
    "responses",
    "sealed_blocks",
    "sessions",
    "shadow_answers",
    "shadows",
    "traffic",
    "traffic_progress",
    "tree_heads",
    "tree_tiles",
    "users",
    "utc_text",
]

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""How constraints and indexes are named, so that a migration can name them too."""

metadata = MetaData(naming_convention=NAMING)

users = Table(
    "users",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("username", Text, nullable=False),
    Column("username_key", Text, nullable=False),
    Column("email", Text),
    Column("password_hash", Text),
    Column("role", Text, nullable=False),
    Column("token_version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    # Who it is at an external issuer; both null where it signs in here.
    Column("issuer", Text),
    Column("subject", Text),
    UniqueConstraint("username_key"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("user_id", id_type(), ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("key_sha256", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("models", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("rate", Text),
    Column("quota", Integer),
    UniqueConstraint("prefix"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("user_id", id_type(), ForeignKey("users.id"), nullable=False),
    Column("token_version", Integer, nullable=False),
    Column("family_sha256", Text, nullable=False),
    Column("refresh_sha256", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("refreshed_at", UtcDateTime, nullable=False),
    Column("access_expires_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("family_sha256"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("schema_sha256", Text, nullable=False),
    Column("input_schema", LargeBinary, nullable=False),
    Column("format", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    # 1, 2, ... for each name, in the order in which they were added.
    Column("number", Integer, nullable=False, server_default=text("0")),
    # When all of its files were in `model_files`; null where they never were.
    Column("stored_at", UtcDateTime),
    Column("retired_at", UtcDateTime),
    UniqueConstraint("name", "sha256", "schema_sha256", "version"),
)

# The files of a model version, in parts: a large model is stored in many short transactions.
model_files = Table(
    "model_files",
    metadata,
    Column("model_version_id", Integer, ForeignKey("model_versions.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

# Which version of each model answers; `revision` is the seq of the change that made it so.
deployments = Table(
    "deployments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("live_id", Integer, ForeignKey("model_versions.id")),
    Column("previous_id", Integer, ForeignKey("model_versions.id")),
    Column("candidate_id", Integer, ForeignKey("model_versions.id")),
    Column("shadow_share", Float, nullable=False),
    Column("canary_share", Float, nullable=False),
    Column("revision", BIG_INTEGER, nullable=False),
)

# What changed about which version answers, when and by whom.
model_changes = Table(
    "model_changes",
    metadata,
    # From the same numbers as `requests.seq`, so that one order holds for both.
    Column("seq", BIG_INTEGER, primary_key=True, autoincrement=False),
    Column("id", id_type(), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("by_user_id", id_type(), ForeignKey("users.id")),
    Column("operator", Text),
    Column("action", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version_id", Integer, ForeignKey("model_versions.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("schema_sha256", Text, nullable=False),
    Column("details", Text, nullable=False),
    UniqueConstraint("id"),
)

requests = Table(
    "requests",
    metadata,
    # The order in which rows were put on record: it never changes and no number is used twice.
    Column("seq", BIG_INTEGER, Identity(always=True), primary_key=True),
    Column("id", id_type(), nullable=False),
    Column("user_id", id_type(), ForeignKey("users.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version_id", Integer, ForeignKey("model_versions.id")),
    Column("x_request_id", Text),
    Column("content_type", Text),
    Column("input", LargeBinary),
    Column("received_at", UtcDateTime, nullable=False),
    Column("api_key_id", id_type(), ForeignKey("api_keys.id")),
    # 16 random bytes that hide input and output in their commitments; see docs/seal.md.
    Column("salt", LargeBinary),
    Column("idempotency_key", Text),
    # True where the answer was to say what moved the model, else null.
    Column("explain", Boolean),
    # Where the payload was erased: what the leaf needs of it, and by which erasure.
    Column("input_commitment", LargeBinary),
    Column("erasure_seq", BIG_INTEGER, ForeignKey("erasures.seq")),
    UniqueConstraint("id"),
    sqlite_autoincrement=True,
)

responses = Table(
    "responses",
    metadata,
    Column("request_id", id_type(), ForeignKey("requests.id"), primary_key=True),
    Column("status", Integer, nullable=False),
    Column("output", LargeBinary),
    Column("error_code", Text),
    Column("error_fields", Text),
    Column("duration_us", Integer, nullable=False),
    Column("responded_at", UtcDateTime, nullable=False),
    Column("content_type", Text),
    Column("output_commitment", LargeBinary),
)

# What was erased from the record, when and by whom; a row is a leaf of the tree, as a call is.
erasures = Table(
    "erasures",
    metadata,
    # From the same numbers as `requests.seq`, so that one order holds for both.
    Column("seq", BIG_INTEGER, primary_key=True, autoincrement=False),
    # A large erasure is done in many transactions, each with a row of its own and all of one id.
    Column("id", id_type(), nullable=False),
    Column("erased_at", UtcDateTime, nullable=False),
    Column("by_user_id", id_type(), ForeignKey("users.id")),
    Column("operator", Text),
    Column("reason", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("selection", Text, nullable=False),
    Column("calls", Integer, nullable=False),
    # Which leaves' calls they were: 8 bytes each, ascending.
    Column("leaves", LargeBinary, nullable=False),
    Column("first_leaf", BIG_INTEGER, nullable=False),
    Column("last_leaf", BIG_INTEGER, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

# What really happened; of several for a prediction the last one that came is in force.
outcomes = Table(
    "outcomes",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("prediction_id", id_type(), nullable=False),
    Column("request_id", id_type(), ForeignKey("requests.id"), nullable=False),
    Column("value", Text, nullable=False),
    Column("observed_at", UtcDateTime),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("by_user_id", id_type(), ForeignKey("users.id")),
    Column("operator", Text),
)

# How far each shadow has come; one begins with the change that gave it its share of the calls.
shadows = Table(
    "shadows",
    metadata,
    Column("change_seq", BIG_INTEGER, ForeignKey("model_changes.seq"), primary_key=True),
    Column("model_version_id", Integer, ForeignKey("model_versions.id"), nullable=False),
    # Every call up to this seq has been answered, skipped, or is none of the share.
    Column("done_up_to", BIG_INTEGER, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
)

# What a version that answers unseen said to a call: an output, or why there is none.
shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("request_id", id_type(), ForeignKey("requests.id"), primary_key=True),
    Column("model_version_id", Integer, ForeignKey("model_versions.id"), primary_key=True),
    Column("output", LargeBinary),
    Column("error", Text),
    # Of one row among those of its batch.
    Column("duration_us", Float, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
)

# What the values of a version's calls are compared with; the newest of a version is in force.
baselines = Table(
    "baselines",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("model_version_id", Integer, ForeignKey("model_versions.id"), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("by_user_id", id_type(), ForeignKey("users.id")),
    Column("operator", Text),
    Column("source", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("done_up_to", BIG_INTEGER, nullable=False),
    Column("found", Text, nullable=False),
)

# How the values of an hour's calls are spread over the baseline's bins.
drift_sketches = Table(
    "drift_sketches",
    metadata,
    Column("baseline_id", id_type(), ForeignKey("baselines.id"), primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("document", Text, nullable=False),
)

# What became of the calls of so many minutes, counted; it can be made again from the calls.
traffic = Table(
    "traffic",
    metadata,
    Column("minutes", Integer, primary_key=True, autoincrement=False),
    Column("since", UtcDateTime, primary_key=True),
    Column("document", Text, nullable=False),
)

# One row: the calls up to this seq are counted in `traffic`.
traffic_progress = Table(
    "traffic_progress",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("done_up_to", BIG_INTEGER, nullable=False),
)

Index(None, outcomes.c.prediction_id, outcomes.c.id)
Index(None, baselines.c.model_version_id, baselines.c.id)
Index(None, outcomes.c.request_id)
Index(None, erasures.c.id, erasures.c.seq)
Index(None, model_changes.c.model, model_changes.c.seq)
Index(None, model_versions.c.name, model_versions.c.number, unique=True)
Index(None, erasures.c.last_leaf)
Index(None, users.c.issuer, users.c.subject, unique=True)
Index(None, api_keys.c.user_id, api_keys.c.id)
Index(None, sessions.c.user_id, sessions.c.created_at)
Index(
    None,
    sessions.c.user_id,
    sessions.c.access_expires_at,
    sqlite_where=text("ended_at IS NOT NULL"),
    postgresql_where=text("ended_at IS NOT NULL"),
)
# A tile as C2SP tlog-tiles has it: 32 bytes for each of up to 256 nodes that stand side by side.
tree_tiles = Table(
    "tree_tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BIG_INTEGER, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

# Which rows the leaves of the tile (0, number) are: 8 bytes of seq and 16 of id for each.
sealed_blocks = Table(
    "sealed_blocks",
    metadata,
    Column("number", BIG_INTEGER, primary_key=True, autoincrement=False),
    Column("last_seq", BIG_INTEGER, nullable=False),
    Column("seqs", LargeBinary, nullable=False),
    Column("ids", LargeBinary, nullable=False),
    UniqueConstraint("last_seq"),
)

tree_heads = Table(
    "tree_heads",
    metadata,
    Column("size", BIG_INTEGER, primary_key=True, autoincrement=False),
    Column("last_seq", BIG_INTEGER, nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
    Column("note", Text, nullable=False),
)

Index(None, requests.c.user_id, requests.c.id)
Index(None, requests.c.model_version_id, requests.c.id)
Index(
    None,
    requests.c.x_request_id,
    sqlite_where=text("x_request_id IS NOT NULL"),
    postgresql_where=text("x_request_id IS NOT NULL"),
)
Index(
    None,
    requests.c.api_key_id,
    requests.c.id,
    sqlite_where=text("api_key_id IS NOT NULL"),
    postgresql_where=text("api_key_id IS NOT NULL"),
)
# One call of a user holds a key: whichever of several is committed first.
Index(
    None,
    requests.c.user_id,
    requests.c.idempotency_key,
    unique=True,
    sqlite_where=text("idempotency_key IS NOT NULL"),
    postgresql_where=text("idempotency_key IS NOT NULL"),
)
Index(
    None,
    responses.c.status,
    responses.c.request_id,
    sqlite_where=text("status >= 400"),
    postgresql_where=text("status >= 400"),
)
