"""What a worker has loaded: which version of each model answers a call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

from onrecord.serving.prediction import Conceal, Predictor

__all__ = ["Route", "ServedModel", "ServedModels", "share_of"]

_SHARES = 1 << 32
_LEAST_DIGITS = 8


def share_of(*parts: str) -> float:
    """Return where in [0, 1) something falls that is named by these texts, always the same.

    Whoever is below a share is below every greater one, so that a share that grows only adds.
    """
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:4]) / _SHARES


class Route:
    """What an address leads to: a version, and for a share of the users another one."""

    __slots__ = ("_canary", "_canary_share", "live", "name")

    def __init__(
        self, name: str, live: Predictor, canary: Predictor | None = None, canary_share: float = 0.0
    ) -> None:
        self.name = name
        self.live = live
        self._canary = canary
        self._canary_share = canary_share

    def predictor_for(self, user_id: str) -> Predictor:
        """Return the version that answers a user, which is the same for all of its calls."""
        if self._canary is not None and share_of(self.name, user_id) < self._canary_share:
            return self._canary
        return self.live


@dataclass(frozen=True)
class ServedModel:
    """One model: its loaded versions, oldest first, and which of them has which alias.

    `canary_share` of the users get the candidate's answers; `shadow_share` of the calls are
    answered by it, too, unseen.
    """

    name: str
    live: Predictor
    candidate: Predictor | None = None
    previous: Predictor | None = None
    versions: Sequence[Predictor] = ()
    canary_share: float = 0.0
    shadow_share: float = 0.0

    @cached_property
    def route(self) -> Route:
        """What its address leads to that names no version."""
        canary = self.candidate if self.canary_share > 0 else None
        return Route(self.name, self.live, canary, self.canary_share)

    @cached_property
    def names(self) -> dict[str, Predictor]:
        """The loaded versions by what they may be called, hashes in full only.

        A name that several versions have is none.
        """
        found: dict[str, Predictor] = {}
        for texts in (
            [(version.model.sha256, version) for version in self.versions],
            [(str(version.number), version) for version in self.versions],
            [(version.model.version, version) for version in self.versions],
        ):
            names = [text for text, _ in texts]
            for text, version in texts:
                found.pop(text, None)
                if names.count(text) == 1:
                    found[text] = version
        aliases = {"live": self.live, "candidate": self.candidate, "previous": self.previous}
        return found | {alias: held for alias, held in aliases.items() if held is not None}

    def find(self, reference: str) -> Predictor | None:
        """Return the loaded version that goes by an alias, label, number or begin of its hash."""
        exact = self.names.get(reference)
        if exact is not None or len(reference) < _LEAST_DIGITS:
            return exact
        digits = reference.lower()
        found = [version for version in self.versions if version.model.sha256.startswith(digits)]
        return found[0] if len(found) == 1 else None


@dataclass
class ServedModels:
    """All models of a worker; what they are changes on its event loop, between two calls.

    `routes` leads from the path of a prediction call, as it is sent, to what answers it. A call
    keeps the version that it began with. `default` is the name of the model of `/predict`, that of
    the first one that is served where none was named.
    """

    default: str
    models: Mapping[str, ServedModel] = field(default_factory=dict)
    routes: Mapping[bytes, Route] = field(default_factory=dict)

    def serve(self, models: Sequence[ServedModel]) -> None:
        """Serve these from now on."""
        self.models = {model.name: model for model in models}
        self.default = self.default or next(iter(self.models), "")
        routes = {}
        for model in models:
            path = f"/models/{quote(model.name)}"
            routes[f"{path}/predict".encode()] = model.route
            for text, version in model.names.items():
                pinned = f"{path}/versions/{quote(text, safe='')}/predict"
                routes[pinned.encode()] = Route(model.name, version)
        if self.default in self.models:
            routes[b"/predict"] = self.models[self.default].route
        self.routes = routes

    def close(self) -> None:
        """Let go of the threads of all versions."""
        for model in self.models.values():
            for version in model.versions:
                version.close()

    @property
    def conceal(self) -> Conceal | None:
        """What encrypts the inputs of whichever version has sensitive columns."""
        versions = (version for model in self.models.values() for version in model.versions)
        return next((v.conceal for v in versions if v.conceal is not None), None)
