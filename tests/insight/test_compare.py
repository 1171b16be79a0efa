"""The candidate beside the live version: each figure beside one that is calculated directly."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner, Result

from calls import register, sign_up
from conftest import DATABASES, empty_postgresql
from live import converted, linear_model_dir
from onrecord.cli.main import _build
from onrecord.lifecycle.versions import Versions
from shadows import BY, Service, shadow_service, work

RANDOM = np.random.default_rng(5)
ROWS = [
    {
        "age": float(RANDOM.uniform(40, 75)),
        "pressure": float(RANDOM.integers(80, 200)),
        "smoker": bool(RANDOM.integers(2)),
        "visits": int(RANDOM.integers(10)),
    }
    for _ in range(120)
]
CANDIDATE = "/models/risk/versions/candidate/predict"


@pytest.fixture(scope="module", params=DATABASES)
def service(
    request: pytest.FixtureRequest, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("compare")
    second_dir = converted(linear_model_dir(home / "second" / "risk", seed=8))
    if request.param == "sqlite":
        url = f"sqlite:///{home / 'record.db'}"
        with shadow_service(model_dir, second_dir, home, url) as found:
            yield found
        return
    cluster = request.getfixturevalue("postgres_cluster")
    with (
        empty_postgresql(cluster) as url,
        shadow_service(model_dir, second_dir, home, url) as found,
    ):
        yield found


def command(service: Service, *words: str) -> Result:
    environment = {
        "ONRECORD_DATABASE": service.settings.database_url,
        "ONRECORD_DATA_DIR": str(service.settings.data_dir),
    }
    return CliRunner().invoke(_build(), ["models", "compare", *words], env=environment)


def ask(service: Service, rows: list[dict[str, Any]], path: str = "/predict") -> list[Any]:
    answers = [service.client.post(path, json=row, headers=service.admin) for row in rows]
    assert {it.status_code for it in answers} == {200}
    return [it.json() for it in answers]


def wilson(hits: int, n: int) -> dict[str, Any]:
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return {"value": hits / n, "low": interval.low, "high": interval.high}


def close(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_the_figures_are_those_of_a_direct_calculation(service: Service) -> None:
    shadowing = service.shadow()
    ours = ask(service, ROWS)
    work(shadowing)
    actual = [int(row["age"] + 20 * row["smoker"] > 62) for row in ROWS]
    for answer, outcome in zip(ours[:80], actual, strict=False):
        path = f"/predictions/{answer['id']}/outcome"
        told = service.client.post(path, json={"outcome": outcome}, headers=service.admin)
        assert told.status_code == 201, told.text

    path = "/models/risk/compare"
    found = service.client.get(path, headers=service.admin).json()
    assert found["canary"]["candidate"] is None
    theirs = ask(service, ROWS, CANDIDATE)

    shadow = found["shadow"]
    before = np.array([it["prediction"] for it in ours])
    after = np.array([it["prediction"] for it in theirs])
    changes = Counter((str(a), str(b)) for a, b in zip(before, after, strict=True) if a != b)
    assert changes
    assert (shadow["calls"], shadow["rows"], shadow["enough"]) == (120, 120, True)
    assert close(shadow["agreement"], wilson(int((before == after).sum()), 120))
    assert {(it["from"], it["to"]): it["rows"] for it in shadow["transitions"]} == changes
    scores = [[[*it["probabilities"].values()] for it in both] for both in (ours, theirs)]
    distance = np.abs(np.array(scores[0]) - np.array(scores[1])).max(axis=1)
    half = 1.959963984540054 * distance.std(ddof=1) / np.sqrt(120)
    mean = {"value": distance.mean(), "low": distance.mean() - half, "high": distance.mean() + half}
    assert close(shadow["differences"]["mean"], mean)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        assert shadow["differences"][name] == pytest.approx(np.quantile(distance, share))
    assert close(shadow["errors"]["candidate"], {"n": 120, **wilson(0, 120)})
    assert close(shadow["errors"]["live"], {"n": 120, **wilson(0, 120)})
    right = [(both[:80] == np.array(actual[:80])) for both in (before, after)]
    outcomes = shadow["outcomes"]
    assert (outcomes["n"], outcomes["enough"]) == (80, True)
    assert close(outcomes["live"]["accuracy"], wilson(int(right[0].sum()), 80))
    assert close(outcomes["candidate"]["accuracy"], wilson(int(right[1].sum()), 80))
    gain = right[1].astype(float) - right[0]
    assert outcomes["candidate_less_live"]["accuracy"]["value"] == pytest.approx(gain.mean())

    with_canary = service.client.get(path, headers=service.admin).json()["canary"]
    assert with_canary["live"]["calls"] == 0
    alone = with_canary["candidate"]
    assert alone["calls"] == 120
    assert alone["classes"].keys() == {"0", "1"}
    assert close(alone["classes"]["1"], wilson(int(after.sum()), 120))
    assert alone["duration_us"]["p50"] > 0


def test_what_was_skipped_and_what_had_no_answer_is_counted(service: Service) -> None:
    service.shadow()
    asked = ask(service, ROWS[:12])
    work(service.shadowing(most_behind=10))
    since = service.client.get(f"/predictions/{asked[0]['id']}", headers=service.admin).json()

    found = json.loads(command(service, "risk", "--since", since["received_at"], "--json").stdout)

    assert found["shadow"]["calls"] == 10
    assert found["shadow"]["skipped"] == 2
    assert found["shadow"]["enough"] is False
    assert found["shadow"]["outcomes"]["live"] is None


def test_the_command_and_the_page_say_that_there_are_too_few_rows(
    service: Service, tmp_path: Path
) -> None:
    shadowing = service.shadow()
    asked = ask(service, ROWS[:9])
    work(shadowing)
    since = service.client.get(f"/predictions/{asked[0]['id']}", headers=service.admin).json()
    page = tmp_path / "compare.html"

    told = command(service, "risk", "--since", since["received_at"], "--html", str(page))

    assert told.exit_code == 0, told.output
    assert "too few to judge by: below 30" in told.stdout
    text = page.read_text(encoding="utf-8")
    assert "Too few rows: below 30" in text
    assert "://" not in text
    assert "<script" not in text
    whole = command(service, "risk", "--html", str(page))
    assert "same answer" in whole.stdout
    assert "From which class to which" in page.read_text(encoding="utf-8")


def test_a_promoted_candidate_is_compared_with_the_version_before_it_by_their_numbers(
    service: Service,
) -> None:
    shadowing = service.shadow()
    asked = ask(service, ROWS[:9])
    work(shadowing)
    since = service.client.get(f"/predictions/{asked[0]['id']}", headers=service.admin).json()

    def compared(**which: str) -> Any:
        query = {"since": since["received_at"], **which}
        return service.client.get("/models/risk/compare", params=query, headers=service.admin)

    before = compared().json()
    numbers = {it: str(before[it]["number"]) for it in ("live", "candidate")}
    Versions(service.database).promote("risk", "candidate", BY, gate=None)

    assert compared().status_code == 404
    assert before["shadow"]["calls"]
    assert compared(**numbers).json()["shadow"] == before["shadow"]
    told = command(service, "risk", "--live", numbers["live"], "--candidate", "live")
    assert f"(number {numbers['candidate']}) beside live" in told.stdout
    unknown = compared(live="77")
    assert unknown.status_code == 404
    assert "no version '77'" in unknown.json()["detail"]
    Versions(service.database).rollback("risk", BY)
    service.shadow()


def test_admins_and_auditors_compare_and_a_model_without_a_candidate_is_said(
    service: Service,
) -> None:
    _, vera = sign_up(service.client, service.database, "vera", "auditor")
    eve = register(service.client, "eve")
    get = service.client.get

    assert get("/models/risk/compare", headers=vera).status_code == 200
    assert get("/models/risk/compare", headers=eve).status_code == 403
    assert get("/models/nothing/compare", headers=vera).status_code == 404
    bad = get("/models/risk/compare?since=yesterday", headers=vera)
    assert bad.status_code == 400
    Versions(service.database).retire("risk", "candidate", BY)
    refused = get("/models/risk/compare", headers=vera)
    assert refused.status_code == 404
    assert "no candidate" in refused.json()["detail"]
    assert command(service, "risk").exit_code == 1
