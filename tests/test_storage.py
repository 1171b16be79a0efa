"""Model directories in S3-compatible storage: a local server of it, and onrecord's commands."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner
from xgboost import XGBRegressor

from onrecord.cli.main import _build
from onrecord.errors import ModelDirectoryError
from onrecord.lifecycle.storage import at_hand
from onrecord.parts import load_given_models
from onrecord.settings import Settings, load_settings
from serving.models import NUMBERS, VALUES, X, schema_of

ROW = (0.5, -1.0)


class Bucket:
    """A bucket of a server, whose objects are put there as any client would."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = httpx2.Client(base_url=address)
        assert self._http.put("/bucket").is_success

    def put(self, key: str, raw: bytes) -> None:
        assert self._http.put(f"/bucket/{key}", content=raw).is_success

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = Bucket(f"http://{host}:{port}")
    yield bucket
    bucket.close()
    server.stop()


@pytest.fixture(autouse=True)
def environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.address)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("ONRECORD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ONRECORD_COMPILE", "false")


@pytest.fixture(scope="module")
def models(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> list[XGBRegressor]:
    """Put `s3://bucket/models/price/1` and `/2` there, with what else lies in such places."""
    found = []
    for number, factor in (("1", 1), ("2", 10)):
        model = XGBRegressor(n_estimators=3).fit(X, factor * VALUES)
        file = tmp_path_factory.mktemp("models") / "model.ubj"
        model.save_model(file)
        folder = f"models/price/{number}"
        bucket.put(f"{folder}/model.ubj", file.read_bytes())
        bucket.put(f"{folder}/input_schema.json", schema_of(NUMBERS, version=number).encode())
        bucket.put(f"{folder}/training.parquet", b"of no use to a server")
        bucket.put(f"{folder}/", b"")
        found.append(model)
    bucket.put("models/price/2/deep/er/model.ubj", b"not of a version")
    return found


def served(*places: str) -> Settings:
    return load_settings(model_dir=list(places))


def test_a_model_in_a_bucket_answers_as_the_model_does(models: list[XGBRegressor]) -> None:
    ((files, model),) = load_given_models(served("s3://bucket/models/price/2/"))

    assert sorted(files) == ["input_schema.json", "model.ubj"]
    assert (model.name, model.version) == ("2", "2")
    expected = models[1].predict([ROW])[0]
    assert model.runtime.predict([ROW]).row(0)["prediction"] == pytest.approx(expected)


@pytest.mark.parametrize("place", ["s3://bucket/models", "s3://bucket/models/price"])
def test_a_folder_of_versions_in_a_bucket_is_one_of_a_model(
    models: list[XGBRegressor], place: str
) -> None:
    found = load_given_models(served(place))

    assert [(model.name, model.version) for _, model in found] == [("price", "1"), ("price", "2")]


def test_only_the_files_of_models_are_copied_and_they_go_again(
    models: list[XGBRegressor],
) -> None:
    with at_hand(["s3://bucket/models/price", "elsewhere"]) as (copy, here):
        names = sorted(str(it.relative_to(copy)) for it in copy.rglob("*") if it.is_file())

    assert names == [f"{n}/{it}" for n in "12" for it in ("input_schema.json", "model.ubj")]
    assert (copy.exists(), here) == (False, Path("elsewhere"))


def test_one_environment_variable_names_several_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONRECORD_MODEL_DIR", "s3://bucket/a:/models/b:s3://bucket/c")

    assert load_settings().model_dir == ("s3://bucket/a", "/models/b", "s3://bucket/c")


def test_what_a_copy_lacks_is_told_by_its_address(bucket: Bucket) -> None:
    bucket.put("bare/input_schema.json", schema_of(NUMBERS).encode())

    with pytest.raises(ModelDirectoryError) as found:
        load_given_models(served("s3://bucket/bare"))

    assert str(found.value).startswith("s3://bucket/bare: model file: it is missing")


@pytest.mark.parametrize(
    "place", ["s3://bucket/nothing", "s3://bucket/models/price/1/model.ubj", "s3://no-such/model"]
)
def test_a_place_without_a_model_is_refused_by_name(place: str) -> None:
    with pytest.raises(ModelDirectoryError) as found, at_hand([place]):
        pass

    assert found.value.file == place
    assert "there is no model" in found.value.problem


def test_a_storage_that_is_not_there_is_told_without_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(ModelDirectoryError) as found, at_hand(["s3://bucket/models"]):
        pass

    assert "127.0.0.1:9" in str(found.value)
    assert "AWS_ENDPOINT_URL_S3" in found.value.remedy
    assert "secret" not in str(found.value)


def test_an_mlflow_model_in_a_bucket_becomes_a_model_directory(
    bucket: Bucket, models: list[XGBRegressor], tmp_path: Path
) -> None:
    inputs = json.dumps([{"name": it["name"], "type": "double"} for it in NUMBERS])
    mlmodel = {"flavors": {"xgboost": {"data": "m.ubj"}}, "signature": {"inputs": inputs}}
    raw = models[0].get_booster().save_raw("ubj")
    bucket.put("runs/1/artifacts/MLmodel", json.dumps(mlmodel).encode())
    bucket.put("runs/1/artifacts/m.ubj", bytes(raw))

    made = ["init", "s3://bucket/runs/1/artifacts", "-o", str(tmp_path / "price")]
    result = CliRunner().invoke(_build(), made)

    assert result.exit_code == 0, result.output
    ((_, model),) = load_given_models(served(str(tmp_path / "price")))
    assert model.schema.names == ("a", "b")
