from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from onrecord.accounts.keys import Key, KeyRing
from onrecord.errors import SettingsError

SECRET = "s" * 32
GOOD = {"kid": "one", "secret": "c2Vj" * 11}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "token-keys.json"


def test_a_missing_file_is_made_for_its_owner_only(path: Path) -> None:
    ring = KeyRing.from_file(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(ring.signing_key().secret) >= 32
    assert KeyRing.from_file(path).signing_key() == ring.signing_key()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    KeyRing.from_file(path)
    path.chmod(mode)

    with pytest.raises(SettingsError, match="chmod 600"):
        KeyRing.from_file(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "\xff",
        '{"keys": 3}',
        '{"keys": []}',
        json.dumps({"keys": ["one"]}),
        json.dumps({"keys": [GOOD, GOOD]}),
        json.dumps({"keys": [{**GOOD, "kid": name} for name in "abc"]}),
        json.dumps({"keys": [{**GOOD, "kid": "a b"}]}),
        json.dumps({"keys": [{**GOOD, "kid": 3}]}),
        json.dumps({"keys": [{**GOOD, "secret": "c2Vj"}]}),
        json.dumps({"keys": [{**GOOD, "secret": "!" * 44}]}),
        json.dumps({"keys": [{**GOOD, "secret": None}]}),
        "[" * 100_000,
    ],
)
def test_a_malformed_file_is_refused_by_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)

    with pytest.raises(SettingsError) as refusal:
        KeyRing.from_file(path)
    assert str(refusal.value).startswith(str(path))
    assert GOOD["secret"] not in str(refusal.value)


def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="cannot be"):
        KeyRing.from_file(tmp_path / "file" / "keys.json")
    with pytest.raises(SettingsError, match="cannot be read"):
        KeyRing.from_file(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read"):
        KeyRing.rotate_file(tmp_path / "missing.json")


def test_processes_that_make_the_file_at_once_agree(path: Path) -> None:
    code = (
        "import sys; from onrecord.accounts.keys import KeyRing; print(flush=True); "
        "sys.stdin.readline(); print(KeyRing.from_file(sys.argv[1]).signing_key().kid)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=60)[0].strip() for process in processes}

    assert answers == {KeyRing.from_file(path).signing_key().kid}


def test_a_rotation_is_taken_up_and_keeps_one_key_before_it(path: Path) -> None:
    ring = KeyRing.from_file(path)
    first = ring.signing_key()
    version = ring.version

    second = KeyRing.rotate_file(path)
    assert ring.signing_key().kid == second
    assert ring.version > version
    assert ring.secret_of(first.kid) == first.secret
    third = KeyRing.rotate_file(path)
    assert ring.secret_of(third) is not None
    assert ring.secret_of(second) is not None
    assert ring.secret_of(first.kid) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir() if p.suffix != ".lock"] == [path.name]


@pytest.mark.parametrize("harm", ["garbage", "missing"])
def test_a_file_that_became_unusable_is_not_taken_up_but_its_repair_is(
    path: Path, harm: str
) -> None:
    ring = KeyRing.from_file(path)
    key = ring.signing_key()
    good = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_text("garbage")
    assert ring.signing_key() == key
    assert ring.signing_key() == key

    path.write_bytes(good)
    path.chmod(0o600)
    os.utime(path, ns=(1, 1))
    new = KeyRing.rotate_file(path)
    assert ring.signing_key().kid == new


def test_keys_come_from_a_setting_and_the_first_signs() -> None:
    ring = KeyRing.from_secrets(f"new:{SECRET}:x, old:{SECRET}")

    assert ring.signing_key() == Key("new", f"{SECRET}:x".encode())
    assert ring.secret_of("old") == SECRET.encode()
    assert ring.secret_of("other") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f":{SECRET}",
        f"a:{SECRET[1:]}",
        f"{SECRET}:",
        f"a:{SECRET},",
        f"a:{SECRET},a:{SECRET}",
        f"a:{SECRET},b:{SECRET},c:{SECRET}",
        f"a:{SECRET}\ud800",
    ],
)
def test_a_malformed_setting_is_refused_without_showing_a_secret(text: str) -> None:
    with pytest.raises(SettingsError, match="token_secrets") as refusal:
        KeyRing.from_secrets(text)
    assert SECRET[1:] not in str(refusal.value)


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(Key("a", SECRET.encode()))
