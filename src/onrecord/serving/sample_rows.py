"""The rows that a model directory may bring, on which a compiled model must agree as well."""

from __future__ import annotations

from onrecord.errors import CallError, InvalidInput, ModelDirectoryError
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.runtimes import Row
from onrecord.serving.validation import Validator

__all__ = ["SAMPLES_FILE", "parse_sample_rows"]

SAMPLES_FILE = "sample_rows.json"

_MAX_ROWS = 10_000


def parse_sample_rows(raw: bytes, schema: InputSchema) -> list[Row]:
    """Return the rows in the bytes of a samples file: the body of a prediction call, by its rules.

    Raises ModelDirectoryError, which names the first bad field, where it does not fit the schema.
    """
    try:
        return list(Validator(schema, max_rows=_MAX_ROWS).validate(raw).values)
    except CallError as error:
        fault = error.faults[0] if isinstance(error, InvalidInput) and error.faults else None
        raise ModelDirectoryError(
            SAMPLES_FILE,
            fault.pointer if fault is not None else None,
            fault.detail if fault is not None else error.detail,
            'Write {"rows": [...]} with rows that fit the schema, or remove the file.',
        ) from error
