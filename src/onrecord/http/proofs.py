"""`/predictions/{id}/proof`: that a call is on record, for a stranger to check."""

from __future__ import annotations

import base64

from fastapi import APIRouter
from pydantic import BaseModel, Field

from onrecord.errors import Conflict
from onrecord.http.predictions import find_call
from onrecord.http.services import ReaderDep, ServicesDep
from onrecord.record.proof import Proof, prove

__all__ = ["router"]

router = APIRouter(prefix="/predictions", tags=["record"])


class InclusionProof(BaseModel):
    """A proof of inclusion as RFC 6962, section 2.1.1, has it; bytes are in base64.

    docs/seal.md says what a leaf is, and docs/verify_proof.py checks one.
    """

    leaf: str = Field(description="The call as it was sealed: JSON, whose bytes are hashed.")
    leaf_index: int = Field(description="The leaf's place in the tree, from 0.")
    tree_size: int
    audit_path: list[str] = Field(description="The hashes from the leaf's neighbour to the root.")
    checkpoint: str = Field(description="The signed tree head, a C2SP signed note.")
    salt: str | None = Field(
        description="With it, the commitments to input and output are checked."
    )
    input: str | None
    output: str | None


@router.get("/{prediction}/proof", summary="Prove that a call is on record")
async def prove_prediction(
    prediction: str, caller: ReaderDep, services: ServicesDep
) -> InclusionProof:
    """Prove that the call of a prediction is on record as it was sealed.

    A call that no signed head covers yet is a conflict (409): the next one will.
    """
    entry = await find_call(prediction, caller, services)

    def read() -> Proof | None:
        with services.database.read() as connection:
            return prove(connection, entry.id)

    try:
        proof = await services.database.run(read)
    except (LookupError, TypeError):  # a salt that is gone makes no commitment
        raise Conflict(
            "The seal of the record is damaged here: the operator must verify it."
        ) from None
    if proof is None:
        raise Conflict("The call is not sealed yet: ask again once the next tree head is signed.")
    return InclusionProof(
        leaf=proof.leaf.decode(),
        leaf_index=proof.index,
        tree_size=proof.size,
        audit_path=[base64.b64encode(node).decode() for node in proof.path],
        checkpoint=proof.note,
        salt=_text(proof.row.salt),
        input=_text(proof.row.input),
        output=_text(proof.row.output),
    )


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
