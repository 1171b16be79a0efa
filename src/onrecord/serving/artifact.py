"""A model directory, loaded once: its bytes are read here and nowhere else."""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from onrecord.errors import ModelDirectoryError
from onrecord.serving.compile import (
    CompiledGraph,
    CompiledRuntime,
    DeferredRuntime,
    NotCompiled,
    compile_runtime,
)
from onrecord.serving.explanations import why_not_explained
from onrecord.serving.formats import (
    FORMATS,
    ModelFile,
    foreign_types,
    load_runtime,
    require_trust,
)
from onrecord.serving.golden_rows import (
    GOLDEN_FILE,
    GoldenRow,
    failures_of,
    parse_golden_rows,
)
from onrecord.serving.graph_cache import GraphCache, KeptConversion, conversion_key
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.model_files import (
    BASELINE_FILE,
    MAX_TEXT_BYTES,
    SCHEMA_FILE,
    memory_bytes,
    read_file,
)
from onrecord.serving.outputs import Outputs
from onrecord.serving.runtimes import Row, Runtime, first_line
from onrecord.serving.runtimes.sklearn import SklearnRuntime
from onrecord.serving.sample_rows import SAMPLES_FILE, parse_sample_rows
from onrecord.serving.trust import Trust

__all__ = [
    "COMPANIONS",
    "Model",
    "is_converted",
    "load_model",
    "model_of",
    "read_model_directory",
    "read_model_file",
]

COMPANIONS = (SAMPLES_FILE, GOLDEN_FILE, BASELINE_FILE)
"""Files that a model directory may have beside the model and its schema."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NO_COMPILER = "not compiled: the extra `compile` is not installed"
_TIMED_CALLS = 15
_TIMED_SECONDS = 0.5


@dataclass(frozen=True)
class Model:
    """A model that is ready to answer.

    `sha256` is of the model file's bytes and `schema_sha256` of the schema file's, both in
    hexadecimal; `runtime_reason` says why this runtime serves; `seconds_per_row` is the median
    time of one row alone, measured when it was loaded; `golden_rows` are those of its directory,
    which it answers as it is to. `kept_reason` is why its answers cannot be explained ("" where
    they can be), kept with its conversion: None where only the original tells.
    """

    name: str
    version: str
    sha256: str
    schema_sha256: str
    input_schema_bytes: bytes
    schema: InputSchema
    format: str
    runtime: Runtime
    runtime_reason: str
    seconds_per_row: float
    golden_rows: list[GoldenRow]
    kept_reason: str | None = None

    def why_not_explained(self) -> str:
        """Return why its answers cannot be explained, "" where they can be.

        It is found out with a row made from the schema, and whatever explaining takes is loaded,
        unless what was kept tells: before a server answers, since that can take seconds.
        """
        if self.schema.sensitive:
            return "Contributions would tell the values of the model's sensitive columns."
        if self.kept_reason is not None:
            return self.kept_reason
        return why_not_explained(self.runtime, self.schema.probe_row())


def read_model_file(directory: Path) -> ModelFile:
    """Read the one model file of a directory; raises ModelDirectoryError."""
    if not directory.is_dir():
        raise ModelDirectoryError(
            str(directory), None, "there is no such directory", "Name a model directory."
        )
    found = sorted(file.name for file in directory.iterdir() if file.name in FORMATS)
    if len(found) != 1:
        problem = f"there are several: {', '.join(found)}" if found else "it is missing"
        remedy = (
            "Keep one of them."
            if found
            else f"Put the model there, as one of {', '.join(FORMATS)}."
        )
        raise ModelDirectoryError(str(directory), "model file", problem, remedy)
    raw = read_file(directory / found[0], max_bytes=memory_bytes())
    return ModelFile(directory / found[0], raw, hashlib.sha256(raw).hexdigest())


def load_model(
    directory: Path,
    *,
    trust: Trust,
    name: str | None = None,
    compile: bool = True,  # noqa: A002 - it is the setting's name
    cache: Path | None = None,
) -> Model:
    """Load a model directory: read, check against its schema, probe, compile and time it.

    `name` replaces the schema's, which replaces the directory's. `cache` is the folder in which
    conversions are kept: a model found there serves at once, and its original is loaded from the
    bytes read here when a row first needs it. Raises ModelDirectoryError with
    the file, the field and the remedy where the model cannot be served, UntrustedModelError where
    the operator has not agreed to it.
    """
    files = read_model_directory(directory)
    return model_of(files, directory, trust=trust, name=name, compile=compile, cache=cache)


def read_model_directory(directory: Path) -> dict[str, bytes]:
    """Return the files of a model directory that belong to the model, by their names.

    Raises ModelDirectoryError where one is missing, or cannot be read within its bounds.
    """
    file = read_model_file(directory)
    files = {file.path.name: file.raw}
    files[SCHEMA_FILE] = read_file(directory / SCHEMA_FILE, max_bytes=MAX_TEXT_BYTES)
    for name in COMPANIONS:
        if os.path.lexists(directory / name):
            files[name] = read_file(directory / name, max_bytes=MAX_TEXT_BYTES)
    return files


def model_of(  # noqa: PLR0913 - those of load_model, but for where the bytes come from
    files: Mapping[str, bytes],
    place: Path,
    *,
    trust: Trust,
    name: str | None = None,
    compile: bool = True,  # noqa: A002 - it is the setting's name
    cache: Path | None = None,
) -> Model:
    """Make a model of the files of a model directory, as `load_model` does.

    `place` is where they come from: messages name it, and its own name may be the model's.
    """
    (file_name,) = files.keys() & FORMATS.keys()
    raw = files[file_name]
    file = ModelFile(place / file_name, raw, hashlib.sha256(raw).hexdigest())
    schema_bytes = files[SCHEMA_FILE]
    schema = parse_input_schema(schema_bytes, SCHEMA_FILE)
    name = name or schema.name or place.resolve().name
    if not _NAME.fullmatch(name):
        raise ModelDirectoryError(
            SCHEMA_FILE,
            "name",
            f"the model's name {name!r} cannot stand in an address",
            'Give a "name" of letters, digits, dots, dashes and underscores there, or --name.',
        )
    schema_sha256 = hashlib.sha256(schema_bytes).hexdigest()
    samples_bytes = files.get(SAMPLES_FILE)
    samples = parse_sample_rows(samples_bytes, schema) if samples_bytes else []
    key = _conversion_key(file.sha256, files)
    conversions = GraphCache(cache if compile and file.format != "onnx" else None)
    kept = conversions.find(key)
    if kept is not None and kept.graph is not None:
        runtime = _kept_runtime(file, kept, kept.graph, schema, trust)
        _probe(runtime, schema, file.path.name)
        reason, seconds = kept.reason, _seconds_per_row(runtime, schema)
    else:
        original = load_runtime(file, schema, trust)
        _probe(original, schema, file.path.name)
        refused = kept.reason if kept is not None else None
        if file.format == "onnx":
            refused = "the model is an ONNX graph already"
        elif not compile:
            refused = "compilation is switched off"
        runtime, reason, seconds = _choose(original, schema, samples, refused)
        if refused is None and reason != _NO_COMPILER:
            graph, not_explained = None, None
            if isinstance(runtime, CompiledRuntime):
                graph = runtime.compiled
                not_explained = _reason_to_keep(original, schema)
            types = foreign_types(file)
            conversions.keep(key, KeptConversion(graph, reason, types, not_explained))
    golden = parse_golden_rows(files.get(GOLDEN_FILE, b""), schema)
    failures = failures_of(golden, runtime)
    if failures:
        raise ModelDirectoryError(
            GOLDEN_FILE,
            None,
            f"the model does not answer as its golden rows say: {'; '.join(failures[:3])}",
            "Serve the model that they were made with, or make them anew.",
        )
    return Model(
        name=name,
        version=schema.version or file.sha256[:12],
        sha256=file.sha256,
        schema_sha256=schema_sha256,
        input_schema_bytes=schema_bytes,
        schema=schema,
        format=FORMATS[file.path.name],
        runtime=runtime,
        runtime_reason=reason,
        seconds_per_row=seconds,
        golden_rows=golden,
        kept_reason=None if kept is None else kept.not_explained,
    )


def is_converted(files: Mapping[str, bytes], cache: Path) -> bool:
    """Say whether `model_of` would make a model of these files without converting it."""
    (file_name,) = files.keys() & FORMATS.keys()
    if FORMATS[file_name] == "onnx":
        return True
    key = _conversion_key(hashlib.sha256(files[file_name]).hexdigest(), files)
    return GraphCache(cache).find(key) is not None


def _conversion_key(model_sha256: str, files: Mapping[str, bytes]) -> str:
    others = (files[SCHEMA_FILE], files.get(SAMPLES_FILE) or b"")
    return conversion_key(model_sha256, *(hashlib.sha256(raw).hexdigest() for raw in others))


def _kept_runtime(
    file: ModelFile,
    kept: KeptConversion,
    graph: CompiledGraph,
    schema: InputSchema,
    trust: Trust,
) -> Runtime:
    require_trust(file, kept.types, trust)
    original = DeferredRuntime(file.format, lambda: load_runtime(file, schema, trust))
    return CompiledRuntime(graph, original, schema)


def _reason_to_keep(original: Runtime, schema: InputSchema) -> str | None:
    """Return why a model cannot be explained, None where the model must be loaded to explain it.

    A library that takes seconds to import is to be there before the first call, and only a server
    needs it.
    """
    if isinstance(original, SklearnRuntime) and original.explained_by_shap:
        return None
    return why_not_explained(original, schema.probe_row())


def _probe(runtime: Runtime, schema: InputSchema, file: str) -> None:
    """Let the model answer a row made from the schema, and each nullable column's absence."""
    probe = schema.probe_row()
    outputs = _answer(runtime, probe, file, "a probe row made from the schema", "columns")
    _check_task(outputs, schema, file)
    for i, column in enumerate(schema.columns):
        if column.nullable:
            gone = (*probe[:i], None, *probe[i + 1 :])
            what = f"a row in which {column.name} is null"
            _answer(runtime, gone, file, what, f"columns: {column.name}.nullable")


def _check_task(outputs: Outputs, schema: InputSchema, file: str) -> None:
    """Refuse a schema that says regression of a classification or miscounts the targets."""
    if schema.targets and len(schema.targets) != len(outputs.targets):
        raise ModelDirectoryError(
            SCHEMA_FILE,
            "target",
            f"it names {len(schema.targets)}, but {file} has {len(outputs.targets)}",
            "Name each of the model's targets, in its order.",
        )
    numbers = all(isinstance(target.values[0], float) for target in outputs.targets)
    if numbers and (schema.classes or schema.task == "classification"):
        field, found, remedy = "classes", "a number", 'Remove them, or make task "regression".'
        if not schema.classes:
            field, remedy = "task", 'Make it "regression".'
    elif not numbers and schema.task == "regression":
        field, found, remedy = "task", "a class", 'Make it "classification".'
    else:
        return
    raise ModelDirectoryError(SCHEMA_FILE, field, f"the answer of {file} is {found}", remedy)


def _answer(runtime: Runtime, row: Row, file: str, what: str, field: str) -> Outputs:
    try:
        outputs = runtime.predict([row])
        outputs.row(0)
    except ModelDirectoryError:
        raise
    except Exception as error:
        raise ModelDirectoryError(
            SCHEMA_FILE,
            field,
            f"{file} cannot answer {what} ({first_line(error)})",
            "Make the schema that of the training data; give columns an `example` the model knows.",
        ) from error
    if len(outputs) != 1:
        raise ModelDirectoryError(
            file,
            None,
            f"it gave {len(outputs)} answers to one row",
            "Serve a model that answers row by row.",
        )
    return outputs


def _choose(
    original: Runtime, schema: InputSchema, samples: Sequence[Row], refused: str | None
) -> tuple[Runtime, str, float]:
    """Return the runtime that serves, why, and its seconds for one row.

    `refused` is why it is not to be compiled, None where that is to be tried.
    """
    seconds = _seconds_per_row(original, schema)
    if refused is not None:
        return original, refused, seconds
    try:
        runtime = compile_runtime(original, schema, samples)
    except NotCompiled as reason:
        return original, f"not compiled: {reason}", seconds
    except ImportError as error:
        structlog.get_logger("onrecord").warning("no compiler", missing=error.name)
        return original, _NO_COMPILER, seconds
    faster = _seconds_per_row(runtime, schema)
    if faster >= seconds:
        return original, "not compiled: the original is faster", seconds
    agreed = f"generated rows and {len(samples)} sample rows" if samples else "generated rows"
    return runtime, f"compiled: it agrees with the original on {agreed}", faster


def _seconds_per_row(runtime: Runtime, schema: InputSchema) -> float:
    rows = [schema.probe_row()]
    times: list[float] = []
    while len(times) < _TIMED_CALLS and sum(times) < _TIMED_SECONDS:
        start = time.perf_counter()
        runtime.predict(rows)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
