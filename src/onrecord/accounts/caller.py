"""Who is asking, once known, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from onrecord.accounts.rates import Rate
from onrecord.errors import Forbidden, InsufficientScope

__all__ = ["SCOPES", "Caller", "Grant", "Role", "Scope", "role_of"]

Role = Literal["user", "auditor", "admin"]
"""A user predicts and reads its own record; an auditor reads everything and changes nothing; an
admin does all of it and manages users."""

Scope = Literal["predict", "read", "outcome"]
"""What an API key may be made for: to predict, to read its owner's record, and to say what really
happened to what was predicted for its owner."""

SCOPES: tuple[Scope, ...] = get_args(Scope)


def role_of(name: str) -> Role:
    """Return the role of that name; one that is not known has no more rights than a user."""
    return "admin" if name == "admin" else "auditor" if name == "auditor" else "user"


@dataclass(frozen=True, slots=True)
class Grant:
    """What an API key grants, within what its owner may do.

    `models` are those it reaches, None for every one. The calls of a `test` key are kept apart.
    `rate` and `quota` (calls a day) bound its calls beside what bounds its owner's.
    """

    api_key_id: str
    scopes: frozenset[str]
    models: frozenset[str] | None
    test: bool
    rate: Rate | None = None
    quota: int | None = None

    @property
    def limited(self) -> bool:
        """Whether it has limits of its own."""
        return self.rate is not None or self.quota is not None


@dataclass(frozen=True, slots=True)
class Caller:
    """A user whose token or API key was found valid a moment ago; `grant` is the key's."""

    user_id: str
    username: str
    role: Role
    grant: Grant | None = None

    @property
    def reads_all(self) -> bool:
        """Whether everyone's record is open to it; to an API key only its owner's ever is."""
        return self.grant is None and self.role in {"admin", "auditor"}

    @property
    def api_key_id(self) -> str | None:
        """The API key that it came with, None where it is signed in."""
        return None if self.grant is None else self.grant.api_key_id

    def reaches(self, model: str) -> bool:
        """Tell whether a model is open to it."""
        grant = self.grant
        return grant is None or grant.models is None or model in grant.models

    def may_predict(self, model: str) -> bool:
        """Tell whether it may predict with a model."""
        grant = self.grant
        return self.role != "auditor" and (
            grant is None or ("predict" in grant.scopes and self.reaches(model))
        )

    def check_may_predict(self, model: str) -> None:
        """Raise Forbidden, with the reason, where it may not predict with a model."""
        if self.role == "auditor":
            raise Forbidden("An auditor reads everything and changes nothing: it cannot predict.")
        self.check_scope("predict")
        if self.grant is not None and not self.reaches(model):
            its_own = ", ".join(sorted(self.grant.models or ()))
            raise Forbidden(
                f"This API key is not for the model {model[:100]!r}, but for: {its_own}."
            )

    def check_scope(self, scope: Scope) -> None:
        """Raise InsufficientScope where it came with an API key that lacks the scope."""
        if self.grant is not None and scope not in self.grant.scopes:
            its_own = " ".join(sorted(self.grant.scopes))
            raise InsufficientScope(
                f"This API key lacks the scope {scope!r}; it has: {its_own}.", scope=scope
            )

    def check_reads_all(self) -> None:
        """Raise Forbidden where not everyone's record is open to it."""
        if not self.reads_all:
            raise Forbidden("Only an admin or an auditor may do this.")

    def check_admin(self) -> None:
        """Raise Forbidden where it is no admin."""
        if self.role != "admin":
            raise Forbidden("Only an admin may do this.")

    def check_signed_in(self) -> None:
        """Raise Forbidden where it came with an API key."""
        if self.grant is not None:
            raise Forbidden("An API key cannot do this; sign in, and send that token.")
