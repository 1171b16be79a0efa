"""A model directory from a stranger: refused in words, before any code of it runs, within bounds.

`tests/serving/test_trust.py` has who may agree to code, and `tests/serving/test_onnx.py` each place
in a graph where values in other files can hide.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import catboost
import joblib
import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.linear_model import LogisticRegression

from onrecord.cli.serve import _serve_with_workers
from onrecord.errors import ModelDirectoryError, StartupError, UntrustedModelError
from onrecord.serving.artifact import load_model, read_model_file
from onrecord.serving.runtimes.onnx_bytes import external_tensors
from onrecord.serving.trust import Trust
from onrecord.settings import load_settings
from serving.models import NUMBERS, X, Y, write_pickle, write_schema


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return (os.system, (self.command,))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that exists after the test only where code of a model has run."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Every refusal is quick and takes no memory to speak of."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * 1024


def refusal(directory: Path, *, trust: Trust | None = None) -> ModelDirectoryError:
    with pytest.raises(ModelDirectoryError) as caught:
        load_model(directory, trust=trust or Trust(None), compile=False)
    assert isinstance(caught.value, StartupError)
    assert caught.value.remedy
    return caught.value


def evil_joblib(canary: Path) -> bytes:
    packed = io.BytesIO()
    joblib.dump(Command(f"touch {canary}"), packed, compress=("zlib", 9))
    return packed.getvalue()


PICKLES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "os.system": ("model.pkl", lambda canary: pickle.dumps(Command(f"touch {canary}"))),
    "os.system, protocol 0": (
        "model.pkl",
        lambda canary: pickle.dumps(Command(f"touch {canary}"), protocol=0),
    ),
    "a compressed joblib": ("model.joblib", evil_joblib),
    "a pickle called skops": (
        "model.skops",
        lambda canary: pickle.dumps(Command(f"touch {canary}")),
    ),
    "a pickle called ONNX": (
        "model.onnx",
        lambda canary: pickle.dumps(Command(f"touch {canary}")),
    ),
    "a pickle called CatBoost": (
        "model.cbm",
        lambda canary: pickle.dumps(Command(f"touch {canary}")),
    ),
    "a pickle called XGBoost": (
        "model.ubj",
        lambda canary: pickle.dumps(Command(f"touch {canary}")),
    ),
    "a pickle called LightGBM": (
        "model.txt",
        lambda canary: pickle.dumps(Command(f"touch {canary}"), protocol=0),
    ),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_that_runs_a_command_is_refused_by_whatever_name_it_comes(
    case: str, tmp_path: Path, canary: Path
) -> None:
    name, content = PICKLES[case]
    directory = write_schema(tmp_path / "model", NUMBERS)
    (directory / name).write_bytes(content(canary))

    assert refusal(directory).file == name


def test_a_file_that_is_swapped_after_it_was_hashed_is_not_the_one_that_runs(
    tmp_path: Path, canary: Path
) -> None:
    directory = write_pickle(tmp_path / "model", LogisticRegression().fit(X, Y))
    pinned = read_model_file(directory).sha256

    class Swapping(Trust):
        def allows(self, sha256: str) -> bool:
            (directory / "model.pkl").write_bytes(pickle.dumps(Command(f"touch {canary}")))
            return super().allows(sha256)

    model = load_model(directory, trust=Swapping(None, [pinned]), compile=False)

    assert model.sha256 == pinned
    assert model.runtime.predict([(1.0, 1.0)])
    assert isinstance(refusal(directory, trust=Trust(None, [pinned])), UntrustedModelError)


def skops_file(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """A directory with a good skops file, and what its archive has in it."""
    directory = write_schema(tmp_path / "model", NUMBERS)
    skops.io.dump(LogisticRegression().fit(X, Y), directory / "model.skops")
    with zipfile.ZipFile(directory / "model.skops") as archive:
        return directory, {name: archive.read(name) for name in archive.namelist()}


def write_archive(
    directory: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]], **options: Any
) -> None:
    with (
        pytest.MonkeyPatch.context() as patched,
        zipfile.ZipFile(directory / "model.skops", "w", **options) as archive,
    ):
        patched.setattr("warnings.warn", lambda *_, **__: None)
        for name, content in entries:
            archive.writestr(name, content)


def test_the_archives_of_these_tests_would_load(tmp_path: Path) -> None:
    directory, entries = skops_file(tmp_path)

    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        write_archive(directory, list(entries.items()), compression=packing)
        assert load_model(directory, trust=Trust(None), compile=False).format == "skops"


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


ARCHIVES: dict[str, tuple[list[tuple[Any, bytes]], dict[str, Any], str]] = {
    "a path out of the folder": ([("../../canary", b"x")], {}, "entry named '../../canary'"),
    "an absolute path": ([("/etc/cron.d/x", b"x")], {}, "entry named"),
    "a path of another system": ([("..\\..\\x", b"x")], {}, "entry named"),
    "two schemas": ([("schema.json", b"{}")], {}, "two entries of one name"),
    "a link": ([(link("extra.npy"), b"/etc/passwd")], {}, "is a link"),
    "a packing without bound": (
        [("extra.npy", b"x" * 1000)],
        {"compression": zipfile.ZIP_BZIP2},
        "no bound",
    ),
    "a bomb": (
        [("extra.npy", bytes(1 << 28))],
        {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1},
        "unpacks to",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_skops_file_that_plays_tricks_with_its_archive_is_refused(
    case: str, tmp_path: Path, canary: Path
) -> None:
    directory, entries = skops_file(tmp_path)
    more, options, said = ARCHIVES[case]
    write_archive(directory, [*entries.items(), *more], **options)

    assert said in refusal(directory).problem


def test_a_bomb_within_the_archive_is_refused(tmp_path: Path) -> None:
    directory, entries = skops_file(tmp_path)
    sparse = io.BytesIO()
    with zipfile.ZipFile(sparse, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as inner:
        inner.writestr("data.npy", bytes(1 << 28))
    write_archive(directory, [*entries.items(), ("extra.npz", sparse.getvalue())])

    assert "unpacks to" in refusal(directory).problem


def test_a_size_that_an_archive_only_claims_is_refused_unread(tmp_path: Path) -> None:
    directory, _ = skops_file(tmp_path)
    raw = bytearray((directory / "model.skops").read_bytes())
    place = raw.index(b"PK\x01\x02")
    raw[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFFE)
    (directory / "model.skops").write_bytes(raw)

    assert "unpacks to 42949" in refusal(directory).problem


def object_node(module: str, name: str, loader: str = "ObjectNode", **more: Any) -> dict[str, Any]:
    node = {"__class__": name, "__module__": module, "__loader__": loader, "__id__": 1}
    return {**node, "content": None, **more}


def function_node(module: str, name: str) -> dict[str, Any]:
    content = {"module_path": module, "function": name}
    return object_node(module, name, "FunctionNode", content=content)


def reduce_node(command: str) -> dict[str, Any]:
    text = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "__id__": 3}
    arguments = object_node(
        "builtins", "tuple", "TupleNode", content=[{**text, "content": json.dumps(command)}]
    )
    return object_node("posix", "system", "ReduceNode", content={}, reduce={"args": arguments})


NODES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "an object": lambda canary: object_node("subprocess", "Popen"),
    "a function": lambda canary: function_node("posix", "system"),
    "eval": lambda canary: function_node("builtins", "eval"),
    "a type": lambda canary: object_node(
        "builtins", "type", "TypeNode", content={"module": "os", "class": "system"}
    ),
    "a method": lambda canary: object_node(
        "subprocess",
        "Popen",
        "MethodNode",
        content={"func": "communicate", "obj": object_node("subprocess", "Popen")},
    ),
    "an operator": lambda canary: object_node(
        "builtins", "exec", "OperatorFuncNode", attrs=object_node("builtins", "tuple", "TupleNode")
    ),
    "a reduction": lambda canary: reduce_node(f"touch {canary}"),
    "a partial": lambda canary: object_node(
        "functools",
        "partial",
        "PartialNode",
        content={
            "func": function_node("posix", "system"),
            "args": object_node("builtins", "tuple", "TupleNode", content=[]),
            "kwds": object_node("builtins", "dict", "DictNode", content={}),
            "namespace": object_node("builtins", "dict", "DictNode", content={}),
        },
    ),
    "an unknown loader": lambda canary: object_node("os", "system", "EvalNode"),
    "a loader that is no text": lambda canary: {**object_node("os", "system"), "__loader__": []},
    "nothing": lambda canary: {},
}


@pytest.mark.parametrize("case", NODES)
def test_a_skops_file_with_code_in_it_is_refused_under_every_protocol(
    case: str, tmp_path: Path, canary: Path
) -> None:
    directory = write_schema(tmp_path / "model", NUMBERS)
    for protocol in (0, 1, 2, -1, 10**9, True, "2", None):
        document = {**NODES[case](canary), "protocol": protocol, "_skops_version": "0.16.0"}
        write_archive(directory, [("schema.json", json.dumps(document).encode())])

        assert refusal(directory).file == "model.skops", protocol


@pytest.mark.parametrize("inner", ["npy", "npz"])
def test_a_pickle_in_an_array_of_a_skops_file_does_not_run(
    inner: str, tmp_path: Path, canary: Path
) -> None:
    directory, entries = skops_file(tmp_path)
    evil = io.BytesIO()
    np.save(evil, np.array([Command(f"touch {canary}")], dtype=object), allow_pickle=True)
    content = evil.getvalue()
    if inner == "npz":
        packed = io.BytesIO()
        scipy.sparse.save_npz(packed, scipy.sparse.csr_matrix(np.eye(2)))
        whole = zipfile.ZipFile(packed)
        replaced = io.BytesIO()
        with zipfile.ZipFile(replaced, "w") as out:
            for name in whole.namelist():
                out.writestr(name, content if name == "data.npy" else whole.read(name))
        content = replaced.getvalue()
    arrays = {name: content if name.endswith(".npy") else kept for name, kept in entries.items()}
    write_archive(directory, list(arrays.items()))

    assert refusal(directory).file in {"model.skops", "input_schema.json"}


def test_a_link_out_of_the_directory_is_refused_and_one_within_it_is_not(tmp_path: Path) -> None:
    directory, _ = skops_file(tmp_path)
    (directory / "versions").mkdir()
    for name in ("model.skops", "input_schema.json"):
        (directory / name).rename(directory / "versions" / name)
        (directory / name).symlink_to(Path("versions") / name)

    assert load_model(directory, trust=Trust(None), compile=False).format == "skops"
    for name, target in (("input_schema.json", "/etc/passwd"), ("model.skops", "../model.skops")):
        (directory / name).unlink()
        (directory / name).symlink_to(target)
        (tmp_path / "model.skops").write_bytes((directory / "versions/model.skops").read_bytes())
        error = refusal(directory)
        assert (error.file, "leads out" in error.problem) == (name, True)
        (directory / name).unlink()
        (directory / name).symlink_to(Path("versions") / name)


@pytest.mark.parametrize("name", ["model.skops", "input_schema.json", "sample_rows.json"])
@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "endless", "a link to itself"])
def test_what_is_no_file_is_refused_and_waited_for_by_nobody(
    name: str, kind: str, tmp_path: Path
) -> None:
    directory, _ = skops_file(tmp_path)
    (directory / name).unlink(missing_ok=True)
    if kind == "a FIFO":
        os.mkfifo(directory / name)
    elif kind == "a folder":
        (directory / name).mkdir()
    elif kind == "endless":
        (directory / name).symlink_to("/dev/zero")
    else:
        (directory / name).symlink_to(name)

    assert refusal(directory).file == name


@pytest.mark.parametrize("name", ["model.skops", "input_schema.json", "sample_rows.json"])
def test_a_file_larger_than_the_machine_is_refused_unread(name: str, tmp_path: Path) -> None:
    directory, _ = skops_file(tmp_path)
    with (directory / name).open("wb") as sparse:
        sparse.truncate(1 << 42)

    error = refusal(directory)

    assert (error.file, "4398046511104 bytes" in error.problem) == (name, True)


def test_several_workers_copy_no_more_than_is_served(tmp_path: Path) -> None:
    directory, _ = skops_file(tmp_path)
    (directory / "round").symlink_to(".")
    (directory / "again").symlink_to(".")
    (directory / "input_schema.json").unlink()
    os.mkfifo(directory / "input_schema.json")
    settings = load_settings(model_dir=directory, data_dir=tmp_path / "data", workers=2)

    with pytest.raises(ModelDirectoryError, match="regular file"):
        _serve_with_workers(settings, {})


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def graph_with(tensor: bytes) -> bytes:
    """An ONNX model of one node, Identity, over an initializer."""
    node = field(1, b"w") + field(2, b"y") + field(4, b"Identity")
    shape = field(1, field(1, 1)) + field(2, field(1, field(1, 1)))
    output = field(1, b"y") + field(2, field(1, shape))
    graph = field(1, node) + field(2, b"g") + field(5, tensor) + field(12, output)
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))


def external(location: bytes) -> bytes:
    entry = field(1, b"location") + field(2, location)
    return field(1, 1) + field(2, 1) + field(8, b"w") + field(13, entry) + field(14, 1)


GRAPHS: dict[str, bytes] = {
    **{
        f"values in {location.decode()}": graph_with(external(location))
        for location in (b"../../etc/passwd", b"/etc/passwd", b"weights.bin", b"/dev/zero", b"")
    },
    "a tensor larger than memory": graph_with(
        field(1, 1 << 40) + field(1, 1 << 20) + field(2, 1) + field(8, b"w") + field(9, b"\x00" * 4)
    ),
    "a tensor of a negative size": graph_with(
        field(1, (1 << 64) - 1) + field(2, 1) + field(8, b"w") + field(9, b"\x00" * 4)
    ),
    "a number without end": b"\xff" * 8_000_000,
    "a field of that many bytes": field(7, b"")[:1] + varint(1 << 60),
    "groups": b"\x3b" * 1000,
    "graphs in graphs": b"",
    "ONNX Runtime's own format": b"\x18\x00\x00\x00ORTM" + bytes(500),
    "a page of the web": b"<!doctype html><html></html>",
}


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = field(1, field(5, field(1, b"body") + field(6, inner)))
    return field(7, inner)


@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_reaches_out_or_claims_absurd_sizes_is_refused(
    case: str, tmp_path: Path
) -> None:
    directory = write_schema(tmp_path / "model", NUMBERS)
    (directory / "model.onnx").write_bytes(GRAPHS[case] or nested(400))

    assert refusal(directory).file in {"model.onnx", "input_schema.json"}


def test_values_in_another_file_are_found_whatever_else_the_file_is(tmp_path: Path) -> None:
    """ONNX Runtime tells its own format by four bytes, which an ONNX graph could have there too."""
    polyglot = b"\x1a\x06\x00\x00ORTM" + graph_with(external(b"/etc/passwd"))
    directory = write_schema(tmp_path / "model", NUMBERS)
    (directory / "model.onnx").write_bytes(polyglot)

    assert external_tensors(polyglot) == ["w"]
    assert "own format" in refusal(directory).problem


GARBAGE: dict[str, tuple[str, bytes]] = {
    "a length without its bytes": (
        "model.cbm",
        b"CBM1" + struct.pack("<I", 0x7FFFFFFF) + b"x" * 64,
    ),
    "a JSON that is no booster": (
        "model.json",
        b'{"learner": {"gradient_booster": {"model": {"trees": [1]}}}}',
    ),
    "deep JSON": ("model.json", b'{"a":' * 50_000),
    "an array without end": ("model.ubj", b"{L" + bytes(8) + b"[$U#L\x7f" + b"\xff" * 7),
    "a billion classes": (
        "model.txt",
        b"tree\nversion=v4\nnum_class=1000000000\n\nend of trees\n",
    ),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_for_a_booster_is_refused_and_ends_no_process(case: str, tmp_path: Path) -> None:
    name, content = GARBAGE[case]
    directory = write_schema(tmp_path / "model", NUMBERS)
    (directory / name).write_bytes(content)

    assert refusal(directory).file in {name, "input_schema.json"}


def test_a_catboost_file_that_lies_about_its_trees_ends_no_process(tmp_path: Path) -> None:
    directory = write_schema(tmp_path / "model", NUMBERS)
    model = catboost.CatBoostClassifier(iterations=10, depth=3, silent=True, thread_count=1)
    model.set_params(allow_writing_files=False)
    model.fit(X, Y).save_model(directory / "model.cbm")
    raw = (directory / "model.cbm").read_bytes()
    depths = struct.pack("<3I", 3, 3, 3)
    assert depths in raw
    (directory / "model.cbm").write_bytes(
        raw.replace(depths, struct.pack("<3I", 0xFA000003, 3, 3), 1)
    )

    assert "crashes its library" in refusal(directory).problem


SCHEMAS: dict[str, bytes] = {
    "deep": b"[" * 100_000,
    "an integer of a million digits": b'{"input_schema": ' + b"9" * 1_000_000 + b"}",
    "NaN": b'{"input_schema": {"columns": [{"name": "a", "type": "numeric", "minimum": NaN}]}}',
    "half a pair": b'{"input_schema": {"columns": [{"name": "\\ud800", "type": "numeric"}]}}',
    "not UTF-8": b'{"input_schema": "\xff"}',
    "a key twice": b'{"input_schema": 1, "input_schema": {"columns": []}}',
    "a name for an address": json.dumps(
        {"input_schema": {"columns": list(NUMBERS), "name": "../x"}}
    ).encode(),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_schema_that_is_none_is_refused_in_words(case: str, tmp_path: Path) -> None:
    directory, _ = skops_file(tmp_path)
    (directory / "input_schema.json").write_bytes(SCHEMAS[case])

    assert refusal(directory).file == "input_schema.json"
