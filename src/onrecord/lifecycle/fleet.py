"""What a worker has loaded, kept to what the record says is to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from onrecord.errors import ModelDirectoryError, OnrecordError, Unavailable
from onrecord.record.database import Database
from onrecord.record.deployments import Deployment, all_deployments, revision
from onrecord.record.model_versions import StoredVersion, files_of, versions
from onrecord.serving.artifact import Model
from onrecord.serving.prediction import Predictor
from onrecord.serving.runtimes import first_line
from onrecord.serving.served import ServedModel, ServedModels

__all__ = ["Fleet", "Load", "Plan", "load_stored"]

Load = Callable[[Mapping[str, bytes], Path, str], Model]
"""Makes a model of its files, of where they come from, and of its name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be loaded at a revision: the deployments, and the versions that may answer."""

    revision: int
    deployments: Sequence[Deployment]
    versions: Mapping[int, StoredVersion]


def load_stored(database: Database, version: StoredVersion, load: Load) -> Model:
    """Load a version from the record.

    Raises ModelDirectoryError where its files are not there or not those of its hashes, and
    whatever `load` raises.
    """
    with database.read() as connection:
        files = files_of(connection, version.id)
    place = Path(f"{version.name}-{version.number}")
    try:
        model = load(files, place, version.name)
    except (KeyError, ValueError) as error:
        raise _damaged(version) from error
    if (model.sha256, model.schema_sha256) != (version.sha256, version.schema_sha256):
        raise _damaged(version)
    return model


def _damaged(version: StoredVersion) -> ModelDirectoryError:
    return ModelDirectoryError(
        str(version),
        None,
        "its files on record are not whole, or not those that were added",
        "Add its directory again.",
    )


class Fleet:
    """The loaded versions of one worker.

    `build` makes what answers calls of a loaded version. `prepare` does, before one is loaded that
    has come while others answer, what would hold those up; where it raises OnrecordError, the
    version is not loaded. `plan` and `load` may run in any thread, one at a time; `serve` on the
    event loop that answers calls.
    """

    def __init__(
        self,
        database: Database,
        served: ServedModels,
        *,
        load: Load,
        build: Callable[[StoredVersion, Model], Predictor],
        prepare: Callable[[StoredVersion, Mapping[str, bytes]], None],
    ) -> None:
        self.served = served
        self.revision = 0
        self.failures: Mapping[str, str] = {}
        """Which versions cannot be loaded here, and why."""
        self.missing: Sequence[str] = ()
        """Those of them that are to be live."""
        self._database = database
        self._load = load
        self._build = build
        self._prepare = prepare
        self._predictors: Mapping[int, Predictor] = {}

    def plan(self) -> Plan | None:
        """Return what is to be loaded; None where nothing has changed since the last `serve`."""
        with self._database.read() as connection:
            newest = revision(connection)
            if newest == self.revision:
                return None
            known = {version.id: version for version in versions(connection) if version.loadable}
            return Plan(newest, all_deployments(connection), known)

    def load(
        self, plan: Plan, models: Mapping[int, Model] | None = None
    ) -> tuple[dict[int, Predictor], dict[int, str]]:
        """Return the versions of a plan, loaded, and why those are missing that cannot be.

        What is loaded already is not loaded again, nor what is among `models`. Raises Unavailable
        where the database cannot be read now: that is no fault of a version.
        """
        log = structlog.get_logger("onrecord")
        loaded: dict[int, Predictor] = {}
        failures: dict[int, str] = {}
        for key, version in plan.versions.items():
            predictor = self._predictors.get(key)
            if predictor is None:
                try:
                    model = (models or {}).get(key) or self._loaded(version)
                    predictor = self._build(version, model)
                except Unavailable:
                    raise
                except Exception as error:
                    # Whatever a model's library raises, the other versions go on.
                    told = isinstance(error, OnrecordError)
                    failures[key] = str(error) if told else f"it raised {first_line(error)}"
                    log.exception(
                        "version cannot be loaded",
                        version=str(version),
                        why=failures[key],
                        exc_info=not told,
                    )
                    continue
                log.info(
                    "model loaded",
                    model=model.name,
                    version=model.version,
                    number=version.number,
                    sha256=model.sha256,
                    runtime=model.runtime.name,
                    reason=model.runtime_reason,
                    us_per_row=round(model.seconds_per_row * 1e6, 1),
                )
            loaded[key] = predictor
        return loaded, failures

    def _loaded(self, version: StoredVersion) -> Model:
        def load(files: Mapping[str, bytes], place: Path, name: str) -> Model:
            if self.served.models:
                self._prepare(version, files)
            return self._load(files, place, name)

        return load_stored(self._database, version, load)

    def serve(
        self, plan: Plan, loaded: Mapping[int, Predictor], failures: Mapping[int, str]
    ) -> None:
        """Answer as the plan says from now on, but for what could not be loaded.

        A model whose live version is missing goes on with the one that was live.
        """
        models = []
        for deployment in plan.deployments:
            before = self.served.models.get(deployment.name)
            live = loaded.get(deployment.live_id or 0)
            if live is None and before is not None:
                live = before.live
            if live is None:
                continue
            if before is not None and before.live is not live:
                structlog.get_logger("onrecord").info(
                    "version live",
                    model=deployment.name,
                    version=live.model.version,
                    number=live.number,
                )
            own = [
                loaded[key]
                for key, version in plan.versions.items()
                if version.name == deployment.name and key in loaded
            ]
            models.append(
                ServedModel(
                    deployment.name,
                    live,
                    loaded.get(deployment.candidate_id or 0),
                    loaded.get(deployment.previous_id or 0),
                    own if live in own else [*own, live],
                    deployment.canary_share,
                    deployment.shadow_share,
                )
            )
        self.served.serve(models)
        self._predictors = dict(loaded)
        self.failures = {str(plan.versions[key]): why for key, why in failures.items()}
        live_ids = {deployment.live_id for deployment in plan.deployments}
        self.missing = [str(plan.versions[key]) for key in failures if key in live_ids]
        self.revision = plan.revision
