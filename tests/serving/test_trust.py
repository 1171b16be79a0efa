"""Whose code runs: nothing unpickles that the operator has not agreed to."""

import json
import pickle
import stat
from pathlib import Path
from typing import Any

import joblib
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from onrecord.errors import SettingsError, UntrustedModelError
from onrecord.serving.artifact import load_model, read_model_file
from onrecord.serving.formats import types_to_trust
from onrecord.serving.trust import Trust
from serving.models import NUMBERS, X, Y, write_pickle, write_schema


class Writes:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def half(table: Any) -> Any:
    return table / 2


def load(directory: Path, trust: Trust) -> Any:
    return load_model(directory, trust=trust, compile=False)


def logistic() -> LogisticRegression:
    return LogisticRegression().fit(X, Y)


@pytest.mark.parametrize("file", ["model.pkl", "model.joblib"])
def test_no_code_of_a_file_runs_before_it_is_trusted(file: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    directory = write_schema(tmp_path / "m", NUMBERS)
    with (directory / file).open("wb") as out:
        (pickle if file == "model.pkl" else joblib).dump(Writes(trace), out)

    with pytest.raises(UntrustedModelError) as caught:
        load(directory, Trust(None))

    assert not trace.exists()
    assert caught.value.file == file
    assert read_model_file(directory).sha256 in caught.value.problem
    assert f"onrecord trust {directory}" in caught.value.remedy
    pickle.loads((directory / file).read_bytes())
    assert trace.exists()  # it would have


@pytest.mark.parametrize("given", [str.lower, str.upper])
def test_a_hash_in_the_settings_makes_a_pickle_load(given: Any, tmp_path: Path) -> None:
    directory = write_pickle(tmp_path, logistic())
    sha256 = read_model_file(directory).sha256

    assert load(directory, Trust(None, [given(sha256)])).sha256 == sha256


def test_a_pin_makes_a_pickle_load_and_lies_in_the_trust_file_only(tmp_path: Path) -> None:
    directory = write_pickle(tmp_path / "m", logistic())
    before = sorted(file.name for file in directory.iterdir())
    trust = Trust(tmp_path / "server" / "trust.json")
    file = read_model_file(directory)
    trust.pin(file.sha256, file.path)

    load(directory, trust)
    load(directory, Trust(tmp_path / "server" / "trust.json"))  # another process reads it again
    with pytest.raises(UntrustedModelError):
        load(directory, Trust(tmp_path / "other.json"))

    assert sorted(entry.name for entry in directory.iterdir()) == before
    assert [entry.name for entry in (tmp_path / "server").iterdir()] == ["trust.json"]
    assert stat.S_IMODE((tmp_path / "server" / "trust.json").stat().st_mode) == 0o600
    kept = json.loads((tmp_path / "server" / "trust.json").read_text())
    assert kept["models"][file.sha256]["path"] == str(file.path)


def test_a_trust_file_in_the_model_directory_counts_for_nothing(tmp_path: Path) -> None:
    directory = write_pickle(tmp_path, logistic())
    Trust(directory / "trust.json").pin(read_model_file(directory).sha256, directory)

    with pytest.raises(UntrustedModelError):
        load(directory, Trust(None))


@pytest.mark.parametrize("place", [0, 0.5, 0.999])
def test_one_other_byte_is_another_file(place: float, tmp_path: Path) -> None:
    directory = write_pickle(tmp_path / "m", logistic())
    trust = Trust(tmp_path / "trust.json")
    trust.pin(read_model_file(directory).sha256, directory)
    raw = bytearray((directory / "model.pkl").read_bytes())
    raw[int(place * len(raw))] ^= 1
    (directory / "model.pkl").write_bytes(raw)

    with pytest.raises(UntrustedModelError):
        load(directory, trust)


def write_skops_with_a_function(directory: Path) -> Path:
    model = make_pipeline(FunctionTransformer(half), LogisticRegression()).fit(X, Y)
    skops.io.dump(model, write_schema(directory, NUMBERS) / "model.skops")
    return directory


def test_a_skops_file_names_the_types_that_are_not_trusted(tmp_path: Path) -> None:
    directory = write_skops_with_a_function(tmp_path)

    with pytest.raises(UntrustedModelError) as caught:
        load(directory, Trust(None))

    assert types_to_trust(read_model_file(directory), Trust(None)) == [f"{__name__}.half"]
    assert f"{__name__}.half" in caught.value.problem
    assert "onrecord trust" in caught.value.remedy


def test_a_skops_file_loads_once_its_types_are_trusted(tmp_path: Path) -> None:
    directory = write_skops_with_a_function(tmp_path / "m")
    trust = Trust(tmp_path / "trust.json")
    trust.trust_types([f"{__name__}.half"])

    kept = Trust(tmp_path / "trust.json")

    assert types_to_trust(read_model_file(directory), kept) == []
    assert load(directory, kept).format == "skops"
    assert load(directory, Trust(None, (), [f"{__name__}.half"])).format == "skops"


def test_a_pin_does_not_stand_for_the_types_of_a_skops_file(tmp_path: Path) -> None:
    directory = write_skops_with_a_function(tmp_path)

    with pytest.raises(UntrustedModelError):
        load(directory, Trust(None, [read_model_file(directory).sha256]))


def test_an_ordinary_skops_file_needs_no_trust(tmp_path: Path) -> None:
    skops.io.dump(logistic(), write_schema(tmp_path, NUMBERS) / "model.skops")

    assert load(tmp_path, Trust(None)).format == "skops"


def test_pins_and_types_are_kept_side_by_side(tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust.json")
    trust.pin("AB" * 32, Path("a"))
    trust.trust_types(["x.Y"])
    trust.pin("cd" * 32, Path("b"))

    kept = Trust(tmp_path / "trust.json")

    assert kept.allows("ab" * 32)
    assert kept.allows("CD" * 32)
    assert kept.skops_types == {"x.Y"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"models": 3}', b'{"skops_types": 3}', b"\xff"])
def test_a_damaged_trust_file_trusts_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(content)

    with pytest.raises(SettingsError, match=r"trust\.json"):
        Trust(tmp_path / "trust.json")


def test_without_a_file_nothing_can_be_pinned() -> None:
    with pytest.raises(SettingsError):
        Trust(None).pin("ab" * 32, Path("a"))


def test_a_trust_file_that_cannot_be_written_is_an_error_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="cannot be written"):
        Trust(tmp_path / "file" / "trust.json").pin("ab" * 32, Path("a"))
