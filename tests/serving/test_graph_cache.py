"""A converted model is kept from start to start, and trusted no more than it was."""

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier

from onrecord.errors import UntrustedModelError
from onrecord.serving.artifact import Model, load_model
from onrecord.serving.compile import CompiledRuntime, DeferredRuntime
from onrecord.serving.generated_rows import COMPARED_LIMIT
from onrecord.serving.runner import Runner
from onrecord.serving.runtimes import Runtime
from onrecord.serving.trust import Trust
from serving.models import NUMBERS, Y3, X, trust_in, write_schema

NEAR = [(0.5, -0.25), (-1.0, 0.75)]
FAR = [(2 * COMPARED_LIMIT, 0.0)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_schema(tmp_path_factory.mktemp("kept") / "forest", NUMBERS)
    model = RandomForestClassifier(10, random_state=0).fit(X, Y3)
    skops.io.dump(model, directory / "model.skops")
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "conversions"


def load(directory: Path, cache: Path) -> Model:
    return load_model(directory, trust=trust_in(directory), cache=cache)


def test_a_kept_conversion_answers_alike_and_imports_no_model_library(
    directory: Path, cache: Path
) -> None:
    first = load(directory, cache)
    types = sorted(trust_in(directory).skops_types)
    program = f"""
import json, pathlib, sys
from onrecord.serving.artifact import load_model
from onrecord.serving.trust import Trust
model = load_model(
    pathlib.Path({str(directory)!r}),
    trust=Trust(None, (), {types!r}),
    cache=pathlib.Path({str(cache)!r}),
)
answers = [model.runtime.predict([row]).row(0) for row in {NEAR!r}]
heavy = sorted({{"sklearn", "skops", "skl2onnx", "onnx", "pandas"}} & set(sys.modules))
print(json.dumps([model.runtime.name, answers, heavy]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    name, answers, heavy = json.loads(ran.stdout.splitlines()[-1])
    assert name == first.runtime.name == "onnx"
    assert answers == [first.runtime.predict([row]).row(0) for row in NEAR]
    assert heavy == []


def test_a_row_that_needs_the_original_gets_it_though_the_directory_is_gone(
    directory: Path, cache: Path, tmp_path: Path
) -> None:
    doomed = shutil.copytree(directory, tmp_path / "doomed")
    first = load(doomed, cache)
    second = load(doomed, cache)
    shutil.rmtree(doomed)

    assert second.runtime.predict(FAR).row(0) == first.runtime.predict(FAR).row(0)


def test_trust_that_was_withdrawn_refuses_a_kept_conversion_too(
    directory: Path, cache: Path
) -> None:
    load(directory, cache)

    with pytest.raises(UntrustedModelError):
        load_model(directory, trust=Trust(None), cache=cache)


def test_another_model_or_a_damaged_file_is_converted_anew(
    directory: Path, cache: Path, tmp_path: Path
) -> None:
    load(directory, cache)
    other = shutil.copytree(directory, tmp_path / "other")
    (other / "input_schema.json").write_text(
        json.dumps({"input_schema": {"columns": [{**c, "maximum": 9} for c in NUMBERS]}}),
        encoding="utf-8",
    )
    load(other, cache)
    kept = sorted(cache.iterdir())
    assert len(kept) == 2

    for file in kept:
        file.write_bytes(file.read_bytes()[:-50])
    assert load(directory, cache).runtime.name == "onnx"


def test_why_a_model_was_not_compiled_is_kept_as_well(cache: Path, tmp_path: Path) -> None:
    class_of_one = RandomForestClassifier(3, random_state=0).fit(X, [*([0] * 240)])
    directory = write_schema(tmp_path / "text", [{"name": "a", "type": "numeric"}, NUMBERS[1]])
    skops.io.dump(class_of_one, directory / "model.skops")

    first, second = load(directory, cache), load(directory, cache)

    assert (first.runtime.name, first.runtime_reason) == (
        second.runtime.name,
        second.runtime_reason,
    )


def test_nobody_else_can_read_or_write_what_is_kept(directory: Path, cache: Path) -> None:
    load(directory, cache)

    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert cache.stat().st_mode & 0o077 == 0


@pytest.mark.anyio
async def test_a_row_that_needs_the_original_holds_up_no_other(
    directory: Path, cache: Path
) -> None:
    model = load(directory, cache)
    original = load_model(directory, trust=trust_in(directory), compile=False).runtime
    released = threading.Event()

    def load_slowly() -> Runtime:
        assert released.wait(20), "the original was loaded on the event loop"
        return original

    assert isinstance(model.runtime, CompiledRuntime)
    slow = DeferredRuntime("slow", load_slowly)
    runtime = CompiledRuntime(model.runtime.compiled, slow, model.schema)
    runner = Runner(dataclasses.replace(model, runtime=runtime, seconds_per_row=1e-5))

    far = asyncio.ensure_future(runner.predict(FAR))
    await asyncio.sleep(0)
    near = await runner.predict(NEAR)

    assert near.row(0) == model.runtime.predict(NEAR).row(0)
    assert not far.done()
    released.set()
    assert (await far).row(0) == original.predict(FAR).row(0)
    runner.close()
