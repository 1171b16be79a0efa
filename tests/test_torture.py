"""The harnesses of torture/ in a short form: `make torture` runs the long one."""

from collections.abc import Iterable, Iterator

import pytest

from torture import database, disk, faults, signals
from torture.order import order
from torture.replay import failed_sync, replay
from torture.report import Finding, table
from torture.spool import spool
from torture.stage import Stage
from torture.swaps import swaps


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("torture"), seed=1) as stage:
        yield stage


def assert_as_expected(found: Iterable[Finding]) -> None:
    findings = list(found)

    assert all(finding.as_expected for finding in findings), "\n" + table(findings)


def test_every_answered_call_is_on_record_after_sigkill(stage: Stage) -> None:
    assert_as_expected(signals.kill(stage, 2, (("SQLite", 1), ("PostgreSQL", 1))))


def test_sigterm_under_load_cuts_and_loses_nothing(stage: Stage) -> None:
    assert_as_expected(signals.terminate(stage, 2, (("SQLite", 1), ("PostgreSQL", 2))))


def test_a_postgresql_that_is_killed_has_every_answered_call(stage: Stage) -> None:
    assert_as_expected(database.crash(stage, 2, workers=[1]))


def test_a_cut_before_or_after_a_commit_loses_and_doubles_nothing(stage: Stage) -> None:
    assert_as_expected(database.cut_off(stage, 9, workers=[1]))


def test_calls_are_recorded_or_refused_while_postgresql_is_gone(stage: Stage) -> None:
    assert_as_expected(database.trouble(stage, 1, ["refuses", "vanishes"]))


def test_what_was_spooled_is_on_record_once_whatever_was_killed_meanwhile(stage: Stage) -> None:
    assert_as_expected(spool(stage, 4, workers=[1]))


def test_on_a_full_disk_calls_are_refused_until_there_is_room(stage: Stage) -> None:
    assert_as_expected(disk.full(stage, 2))


def test_no_call_is_answered_when_a_write_or_sync_of_the_log_fails(stage: Stage) -> None:
    assert_as_expected(faults.errors(stage, 1, faults.PLACES[:1]))


def test_each_answer_leaves_after_the_sync_of_its_commit(stage: Stage) -> None:
    assert_as_expected(order(stage, 200, workers=[1]))


def test_a_power_cut_takes_no_answered_call_away(stage: Stage) -> None:
    assert_as_expected(replay(stage, 50))


def test_a_power_cut_after_failed_syncs_takes_no_answered_call_away(stage: Stage) -> None:
    assert_as_expected(failed_sync(stage, 50))


def test_versions_become_live_under_load_and_no_call_fails_or_mixes_two(stage: Stage) -> None:
    assert_as_expected(swaps(stage, 2, (("PostgreSQL", 2),)))
