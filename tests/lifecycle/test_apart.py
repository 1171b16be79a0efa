"""Work in a process of its own: what comes back, and what is said where nothing does."""

import os
from functools import partial

import pytest

from onrecord.errors import OnrecordError, WorkFailed
from onrecord.lifecycle.apart import run_apart


def test_the_result_of_the_work_comes_back_from_another_process() -> None:
    assert run_apart("asking", os.getpid) != os.getpid()


def test_work_that_kills_its_process_is_told_by_name_and_exit_code() -> None:
    with pytest.raises(WorkFailed, match=r"^reading died, with exit code 7$"):
        run_apart("reading", partial(os._exit, 7))


def test_an_error_of_ours_is_told_in_its_own_words() -> None:
    with pytest.raises(WorkFailed, match=r"^reading failed: the disk is gone$"):
        run_apart("reading", partial(_refuse, "the disk is gone"))


def _refuse(why: str) -> None:
    raise OnrecordError(why)
