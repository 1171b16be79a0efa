"""What is done to the versions of a model, each with who did it on record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection

from onrecord.errors import Conflict, GateRefused
from onrecord.lifecycle.companions import differing_companions, replace_companions
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.deployments import Deployment, change, deployment_of, set_retired
from onrecord.record.model_changes import Action
from onrecord.record.model_versions import (
    StoredVersion,
    find,
    get,
    register_model_version,
    store_files,
    versions,
)
from onrecord.serving.artifact import Model

__all__ = ["Gate", "Versions", "register"]

Gate = Callable[[StoredVersion, StoredVersion | None], dict[str, Any]]
"""Examines a candidate beside the live version and returns what it found; see `GateReport`."""


@dataclass(frozen=True)
class Versions:
    """The versions of the models on one record; `most` is how many of a model may be in use."""

    database: Database
    most: int = 10

    def start(
        self, files: Mapping[str, bytes], model: Model, by: By
    ) -> tuple[StoredVersion, list[str]]:
        """Put on record what a server was started with.

        A version that the record did not know answers from now on. One that it knows changes
        nothing, or a restart would undo what was promoted or rolled back since; but where no
        version of the model answers, it does. Returned with it are the names of the files beside
        the model and its schema that are not as on record, where those stay in force.
        """
        version, new = self._stored(files, model)
        with self.database.write() as connection:
            was = deployment_of(connection, version.name)
            if was.live_id is None or (new and was.live_id != version.id):
                self._put_live(connection, was, version, "start", by)
            differing = differing_companions(connection, version.id, files)
            return get(connection, version.id), list(differing)

    def add(
        self, files: Mapping[str, bytes], model: Model, by: By
    ) -> tuple[StoredVersion, list[str]]:
        """Put a version on record as the candidate of its model, and keep its files.

        Where the record knows the version, those beside the model and its schema are replaced: the
        change tells which, with the hashes of both, and their names are returned. Raises Conflict
        where it is live.
        """
        version, _ = self._stored(files, model)
        with self.database.write() as connection:
            was = deployment_of(connection, version.name)
            differing = differing_companions(connection, version.id, files)
            if version.id == was.live_id:
                raise Conflict(f"{version} is live already.{_not_as_on_record(differing)}")
            details = None
            if differing:
                details = {"files": replace_companions(connection, version.id, differing)}
            set_retired(connection, version.id, retired=False)
            change(connection, was, _candidate(was, version.id), "add", version.id, by, details)
            self._retire_surplus(connection, version.name, by)
            return get(connection, version.id), list(differing)

    def promote(
        self, name: str, reference: str, by: By, gate: Gate | None
    ) -> tuple[StoredVersion, dict[str, Any] | None]:
        """Make a version the live one where the gate lets it through; return it and what was found.

        It is the candidate while the gate examines it, so that every server loads it meanwhile.
        Raises GateRefused, Conflict, NotFound.
        """
        with self.database.write() as connection:
            version = _usable(find(connection, name, reference))
            was = deployment_of(connection, name)
            if was.live_id == version.id:
                raise Conflict(f"{version} is live already.")
            if was.candidate_id != version.id or version.retired_at is not None:
                set_retired(connection, version.id, retired=False)
                was = change(connection, was, _candidate(was, version.id), "add", version.id, by)
            live = None if was.live_id is None else get(connection, was.live_id)
        found = None if gate is None else gate(version, live)
        if found is not None and not found["passed"]:
            raise GateRefused(version, found)
        with self.database.write() as connection:
            self._put_live(connection, was, version, "promote", by, found)
            return get(connection, version.id), found

    def rollback(self, name: str, by: By) -> StoredVersion:
        """Make the previous version the live one again, and the live one the previous."""
        with self.database.write() as connection:
            was = deployment_of(connection, name)
            if was.previous_id is None:
                raise Conflict(f"No version of {name[:100]!r} answered before the present one.")
            version = _usable(get(connection, was.previous_id))
            set_retired(connection, version.id, retired=False)
            to = replace(was, live_id=version.id, previous_id=was.live_id, canary_share=0.0)
            if was.candidate_id == version.id:
                to = replace(to, candidate_id=None, shadow_share=0.0)
            change(connection, was, to, "rollback", version.id, by)
            return version

    def share(
        self, name: str, reference: str, action: Literal["shadow", "canary"], share: float, by: By
    ) -> StoredVersion:
        """Have a version answer a share of the calls unseen (`shadow`), or of the users (`canary`).

        It becomes the candidate. `share` is above 0 and at most 1.
        """
        with self.database.write() as connection:
            version = _usable(find(connection, name, reference))
            was = deployment_of(connection, name)
            if was.live_id is None or was.live_id == version.id:
                raise Conflict(f"{version} is live, or no version is: there is nothing beside it.")
            set_retired(connection, version.id, retired=False)
            to = was if was.candidate_id == version.id else _candidate(was, version.id)
            shadowed = action == "shadow"
            to = replace(to, shadow_share=share) if shadowed else replace(to, canary_share=share)
            change(connection, was, to, action, version.id, by, {"share": share})
            return version

    def stop(self, name: str, by: By) -> StoredVersion:
        """End the candidate's shadow and canary; it stays the candidate."""
        with self.database.write() as connection:
            was = deployment_of(connection, name)
            if was.candidate_id is None or not (was.shadow_share or was.canary_share):
                raise Conflict(f"Neither shadow nor canary of {name[:100]!r} runs.")
            to = replace(was, shadow_share=0.0, canary_share=0.0)
            change(connection, was, to, "stop", was.candidate_id, by)
            return get(connection, was.candidate_id)

    def retire(self, name: str, reference: str, by: By) -> StoredVersion:
        """Take a version, which must not be live, out of use; its files stay on record."""
        with self.database.write() as connection:
            version = find(connection, name, reference)
            was = deployment_of(connection, name)
            if was.live_id == version.id:
                raise Conflict(f"{version} is live; promote another one, or roll back, first.")
            if version.retired_at is not None:
                raise Conflict(f"{version} is retired already.")
            _retire(connection, was, version, by)
            return get(connection, version.id)

    def _stored(self, files: Mapping[str, bytes], model: Model) -> tuple[StoredVersion, bool]:
        with self.database.write() as connection:
            key = register(connection, model)
            version = get(connection, key)
        new = version.stored_at is None
        if new:
            store_files(self.database, key, files)
        return version, new

    def _put_live(  # noqa: PLR0913, PLR0917
        self,
        connection: Connection,
        was: Deployment,
        version: StoredVersion,
        action: Action,
        by: By,
        found: dict[str, Any] | None = None,
    ) -> None:
        set_retired(connection, version.id, retired=False)
        to = replace(was, live_id=version.id, previous_id=was.live_id or was.previous_id)
        if was.candidate_id == version.id:
            to = _candidate(to, None)
        details = None if found is None else {"gate": found}
        change(connection, was, to, action, version.id, by, details)
        self._retire_surplus(connection, version.name, by)

    def _retire_surplus(self, connection: Connection, name: str, by: By) -> None:
        """Retire the oldest versions that have no alias, where too many are in use."""
        deployment = deployment_of(connection, name)
        used = [version for version in versions(connection, name) if version.loadable]
        spare = [version for version in used if version.id not in deployment.ids]
        for version in spare[: max(0, len(used) - self.most)]:
            deployment = _retire(connection, deployment, version, by)


def register(connection: Connection, model: Model) -> int:
    """Return a model's key among the versions on record, which is new where the version is."""
    return register_model_version(
        connection,
        name=model.name,
        version=model.version,
        sha256=model.sha256,
        schema_sha256=model.schema_sha256,
        input_schema=model.input_schema_bytes,
        format=model.format,
    )


def _retire(connection: Connection, was: Deployment, version: StoredVersion, by: By) -> Deployment:
    to = was
    if was.previous_id == version.id:
        to = replace(to, previous_id=None)
    if was.candidate_id == version.id:
        to = _candidate(to, None)
    set_retired(connection, version.id, retired=True)
    return change(connection, was, to, "retire", version.id, by)


def _not_as_on_record(differing: Collection[str]) -> str:
    if not differing:
        return ""
    return (
        f" Not as on record: {', '.join(differing)}. What a live version is checked by is not "
        "changed beneath it: give the schema another `version`, and add and promote that."
    )


def _candidate(deployment: Deployment, version: int | None) -> Deployment:
    return replace(deployment, candidate_id=version, shadow_share=0.0, canary_share=0.0)


def _usable(version: StoredVersion) -> StoredVersion:
    if version.stored_at is None:
        raise Conflict(
            f"The files of {version} are not on record, since it served before they were kept "
            "there; add its directory again."
        )
    return version
