from __future__ import annotations

import hashlib
import re

import pytest

from onrecord.accounts.opaque import digest_of, head_of, random_text, with_secret

HEAD = "onr_live_4fZ0q7Kd"


def test_a_secret_has_its_head_256_random_bits_and_a_checksum() -> None:
    secrets = {with_secret(HEAD) for _ in range(100)}

    assert len(secrets) == 100
    for secret in secrets:
        assert re.fullmatch(r"onr_live_[0-9A-Za-z]{8}[0-9A-Za-z]{43}[0-9A-Za-z]{6}", secret)
        assert head_of(secret) == HEAD
    assert 62**43 > 2**256


def test_a_changed_a_cut_and_a_lengthened_secret_are_told_from_a_whole_one() -> None:
    secret = with_secret(HEAD)

    for place in range(len("onr_"), len(secret)):
        other = "A" if secret[place] != "A" else "B"
        assert head_of(secret[:place] + other + secret[place + 1 :]) is None
    assert head_of(secret[:-1]) is None
    assert head_of(secret + "0") is None
    assert head_of(secret + "\n") is None


@pytest.mark.parametrize("text", ["", "onr_live_", "onr_live_" + "é" * 57, "\ud800" * 60, "a.b.c"])
def test_other_text_is_no_secret(text: str) -> None:
    assert head_of(text) is None


def test_the_digest_is_the_sha256_of_the_whole() -> None:
    assert digest_of("onr") == hashlib.sha256(b"onr").hexdigest()
    assert len(digest_of("\ud800")) == 64


def test_random_text_has_the_length_asked_for() -> None:
    assert [len(random_text(length)) for length in (0, 1, 8)] == [0, 1, 8]
