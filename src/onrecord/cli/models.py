"""`onrecord init`, `trust` and `check`: preparing a model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from onrecord.cli.terminal import shown
from onrecord.errors import ModelDirectoryError, OnrecordError, SettingsError
from onrecord.insight.baselines import encoded
from onrecord.insight.training_baseline import training_baseline
from onrecord.lifecycle.storage import at_hand, is_in_storage
from onrecord.parts import load_trust
from onrecord.serving.artifact import load_model, read_model_file
from onrecord.serving.formats import FORMATS, types_to_trust
from onrecord.serving.infer_schema import infer_schema
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.mlflow_model import read_mlflow_model
from onrecord.serving.model_files import (
    BASELINE_FILE,
    MLMODEL_FILE,
    SCHEMA_FILE,
    memory_bytes,
    read_file,
)
from onrecord.settings import load_settings

__all__ = ["check", "init", "trust"]

_Directory = Annotated[str, typer.Argument(help="The model directory, here or s3://BUCKET/FOLDER.")]


def init(
    model: Annotated[
        str,
        typer.Argument(
            help="The model file, named as its format demands, or an MLflow model directory, here "
            "or s3://BUCKET/FOLDER."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Real data with the model's columns: CSV, Parquet. Not needed for an MLflow model "
            "with a signature.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column that the model predicts; it is no input.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The model directory to write.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing schema.")] = False,
) -> None:
    """Make a model directory from a model file and the data it was trained on, or from MLflow."""
    if target is not None and data is None:
        raise SettingsError("--target names a column of DATA; give the data, too")
    if output is None and (is_in_storage(model) or Path(model).is_dir()):
        raise SettingsError("say with --output where to make a model directory of it")
    directory = output or Path(model).with_suffix("")
    schema_file = directory / SCHEMA_FILE
    if schema_file.exists() and not force:
        raise SettingsError(f"{schema_file} exists; say --force to replace it")
    with at_hand([model]) as (path,):
        file, name, document = _drafted(path, data, target)
        raw = read_file(file, max_bytes=memory_bytes())
    schema = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    parse_input_schema(schema, SCHEMA_FILE)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(raw)
    schema_file.write_bytes(schema)
    scores = None if data is None else _write_baseline(directory, data)
    count = len(document["input_schema"]["columns"])
    typer.echo(f"wrote {schema_file}: {count} columns; read it, then `onrecord check {directory}`")
    if scores is not None:
        typer.echo(f"wrote {directory / BASELINE_FILE}, what drift is measured from{scores}")
    if FORMATS.get(name) in {"pickle", "joblib"}:
        typer.echo(
            f"{directory / name} runs code when it is loaded; if you know where it comes from, "
            f"`onrecord trust {directory}` first"
        )


def _drafted(
    model: Path, data: Path | None, target: str | None
) -> tuple[Path, str, dict[str, Any]]:
    """Return the model file, what it is called in a model directory, and its schema's document."""
    if model.is_dir():
        if not (model / MLMODEL_FILE).exists():
            raise ModelDirectoryError(
                str(model),
                None,
                f"it is a directory without {MLMODEL_FILE}, so no MLflow model",
                "Name a model file, or a directory that MLflow saved.",
            )
        found = read_mlflow_model(model, signature=data is None)
        document = found.schema() if data is None else infer_schema(data, target)
        return found.file, found.name, document
    if not model.is_file():
        raise SettingsError(f"{model} is not a file")
    if data is None:
        raise SettingsError("give DATA, too: the schema of a model file is made from it")
    return model, f"model{model.suffix}", infer_schema(data, target)


def _write_baseline(directory: Path, data: Path) -> str:
    """Write the baseline that the training data is; return what is to be said of its scores."""
    schema = parse_input_schema((directory / SCHEMA_FILE).read_bytes(), SCHEMA_FILE)
    runtime, told = None, ""
    try:
        trusted = load_trust(load_settings())
        runtime = load_model(directory, trust=trusted, name=None, compile=False).runtime
    except OnrecordError:
        told = "; without scores, as the model cannot be loaded before it is trusted and checked"
    sketch = training_baseline(data, schema, runtime)
    (directory / BASELINE_FILE).write_bytes(encoded(sketch) + b"\n")
    return told


def trust(
    directory: _Directory,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Agree to run the code in a model file; the server remembers its SHA-256."""
    trusted = load_trust(load_settings())
    with at_hand([directory]) as (path,):
        file = read_model_file(path)
    place = f"{directory.rstrip('/')}/{file.path.name}"
    types = types_to_trust(file, trusted) if file.format == "skops" else []
    if file.format == "skops":
        if not types:
            typer.echo(f"{shown(place)} holds no type beyond those already trusted")
            return
        typer.echo(f"{shown(place)} holds these types beyond skops' own list:")
        for name in types:
            typer.echo(f"  {shown(name)}".replace("\n", " "))
    elif file.format in {"pickle", "joblib"}:
        typer.echo(f"{shown(place)} runs code when it is loaded. SHA-256: {file.sha256}")
    else:
        typer.echo(f"{shown(place)} needs no trust: its format cannot run code")
        return
    if not yes:
        typer.confirm("Do you trust where it comes from?", abort=True)
    if types:
        trusted.trust_types(types)
        typer.echo("trusted; the server will load skops files with these types")
    else:
        trusted.pin(file.sha256, place)
        typer.echo("trusted; the server will load exactly these bytes")


def check(
    directory: _Directory,
    compile: Annotated[  # noqa: A002 - it is the option's name
        bool, typer.Option("--compile/--no-compile", help="Convert to ONNX where both agree.")
    ] = True,
) -> None:
    """Load a model directory as `serve` would, and say what would serve it."""
    trusted = load_trust(load_settings())
    with at_hand([directory]) as (path,):
        model = load_model(path, trust=trusted, name=None, compile=compile)
    version, width = shown(model.version), len(model.schema.columns)
    typer.echo(f"{model.name} {version}: {model.format}, {width} columns")
    typer.echo(f"  sha256   {model.sha256}")
    typer.echo(f"  runtime  {model.runtime.name}: {model.runtime_reason}")
    typer.echo(f"  one row  {model.seconds_per_row * 1e6:.0f} us")
