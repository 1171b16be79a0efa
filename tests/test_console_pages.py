"""The console's pages of the record in a real browser, over a real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, expect

from browser import PHONE, WIDE, Visit, chromium
from conftest import empty_postgresql
from live import GOOD_ROW, PASSWORD, Server, linear_model_dir, live_server
from postgres import Cluster

PAGES = (
    "record",
    "record?status=422&where=age",
    "record/{call}?replay=1",
    "overview?span=3h",
    "models/risk",
    "models/risk/drift?span=24h",
    "models/risk/compare?span=24h",
    "models/risk/tiles?span=24h",
    "try/risk?v.age=40&v.visits=2.5",
    "try/risk/file",
    "account",
    "admin/users?search=a",
    "admin/keys",
    "admin/models",
    "admin/health",
    "admin/settings",
)


@dataclass(frozen=True)
class Scene:
    """What Ada, who is signed in, has asked of a server; `call` is an answered call."""

    server: Server
    headers: dict[str, str]
    state: Any
    call: str

    def predict(self, **values: Any) -> str:
        answer = httpx2.post(
            f"{self.server.base}/predict", json=GOOD_ROW | values, headers=self.headers
        ).json()
        return str(answer.get("id") or answer["request_id"])


@pytest.fixture(scope="module")
def server(
    model_dir: Path, postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server on PostgreSQL with an admin, Ada, and a candidate; other tests have SQLite."""
    home = tmp_path_factory.mktemp("console")
    second = linear_model_dir(home / "second", seed=8)
    with (
        empty_postgresql(postgres_cluster) as url,
        live_server(model_dir, home / "data", database_url=url) as running,
    ):
        running.register("ada")
        for words in (
            ("users", "set-role", "ada", "admin"),
            ("models", "add", str(second), "--name", "risk"),
        ):
            done = running.command(*words)
            assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def scene(browser: Browser, server: Server) -> Scene:
    form = {"username": "ada", "password": PASSWORD}
    token = httpx2.post(f"{server.base}/token", data=form, timeout=30).json()["access_token"]
    visit = Visit(browser, server.base)
    found = Scene(server, {"authorization": f"Bearer {token}"}, visit.sign_in("ada"), "")
    visit.close()
    calls = [found.predict(age=20.0 + n) for n in range(0, 60, 5)]
    found.predict(age="old")
    return replace(found, call=calls[-1])


@pytest.mark.parametrize(
    ("width", "schemes"), [(PHONE, ("dark", "light")), (WIDE, ("light", "dark"))]
)
def test_every_page_can_be_read_by_everybody_and_asks_nobody_else(
    browser: Browser, scene: Scene, width: int, schemes: tuple[Any, Any]
) -> None:
    visit = Visit(browser, scene.server.base, width=width, state=scene.state)
    for place, path in enumerate(PAGES):
        visit.page.emulate_media(color_scheme=schemes[place % 2])
        page = visit.open(f"/console/{path.format(call=scene.call)}")
        expect(page.locator("[aria-busy]")).to_have_count(0)
        assert visit.inaccessible() == [], path
        assert not visit.is_too_wide(), path
    # The answer to filters that cannot be read is an error to the browser, too.
    assert [it for it in visit.faults if "400 (Bad Request)" not in it] == []
    visit.close()


def tab_to(place: Locator) -> None:
    """Press Tab until something has the focus."""
    for _ in range(60):
        if place.evaluate("it => it === document.activeElement"):
            return
        place.page.keyboard.press("Tab")
    raise AssertionError("no key leads there")


def test_the_record_is_walked_through_by_keyboard_alone(browser: Browser, scene: Scene) -> None:
    visit = Visit(browser, scene.server.base)
    page = visit.open("/console/record")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    tab_to(page.get_by_label("Username"))
    page.keyboard.type("ada")
    page.keyboard.press("Tab")
    page.keyboard.type("a long enough password")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Record")).to_be_visible()
    rows = page.locator(".calls tbody tr")
    tab_to(rows.first.get_by_role("link"))
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1).get_by_role("link")).to_be_focused()
    page.keyboard.press("k")
    expect(rows.first.get_by_role("link")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Search by id")).to_be_focused()
    page.keyboard.type(scene.call)
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Answer")).to_be_visible()
    tab_to(page.get_by_label("What happened"))
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("in force")).to_be_visible()
    assert visit.faults == []
    visit.close()


def test_a_model_is_tried_by_keyboard_alone_at_any_width(browser: Browser, scene: Scene) -> None:
    for width in (WIDE, PHONE):
        visit = Visit(browser, scene.server.base, width=width, state=scene.state)
        page = visit.open("/console/try")
        form = page.locator("#try")
        age = form.get_by_role("textbox", name="age")
        tab_to(age)
        page.keyboard.press("Control+A")
        page.keyboard.type("71.5")
        page.keyboard.press("Enter")
        expect(page.locator(".prediction")).to_have_text(re.compile("^[01]$"), timeout=60_000)
        expect(age).to_have_value("71.5")
        expect(page.get_by_role("heading", name="What moved the model")).to_be_visible()
        assert visit.inaccessible() == []
        assert not visit.is_too_wide()

        tab_to(form.get_by_role("button", name="Show the curve"))
        page.keyboard.press("Enter")
        slider = page.get_by_role("slider")
        said = page.locator("figure output")
        before = said.text_content()
        tab_to(slider)
        page.keyboard.press("Home")
        expect(said).not_to_have_text(before or "")
        assert visit.inaccessible() == []
        assert not visit.is_too_wide()
        assert visit.faults == []

        age.fill("old")
        form.get_by_role("textbox", name="visits").fill("")
        form.get_by_role("button", name="Predict").click()
        expect(form.locator(".fault")).to_have_count(2)
        expect(age).to_have_accessible_description(re.compile("Write a number"))
        assert visit.inaccessible() == []
        visit.close()


def test_new_calls_come_into_a_live_list_and_the_focus_stays(
    browser: Browser, scene: Scene
) -> None:
    visit = Visit(browser, scene.server.base, state=scene.state)
    page = visit.open("/console/record")
    page.get_by_label("Live").check()
    chosen = page.locator(f'tr[data-id="{scene.call}"] a')
    chosen.focus()

    new = scene.predict(age=77.0)

    expect(page.locator(".calls tbody tr").first).to_have_attribute("data-id", new)
    expect(page.get_by_text("1 new call")).to_be_attached()
    expect(chosen).to_be_focused()
    assert visit.faults == []
    visit.close()


def test_the_record_is_narrowed_and_paged_without_javascript(
    browser: Browser, scene: Scene
) -> None:
    visit = Visit(browser, scene.server.base, width=PHONE, state=scene.state, javascript=False)
    page = visit.open("/console/record?limit=10")
    page.get_by_role("link", name="Older").click()
    expect(page.locator(f'tr[data-id="{scene.call}"]')).to_have_count(0)
    page.get_by_role("link", name="Newest").click()
    page.locator("summary", has_text="Filters").click()
    page.get_by_label("Column's value").fill("age=75")
    page.get_by_role("button", name="Show").click()

    expect(page.locator(".calls tbody tr")).to_have_count(1)
    page.locator("summary", has_text="Filters").click()
    page.get_by_role("link", name="Remove age=75").click()
    expect(page).to_have_url(re.compile(r"/console/record$"))
    visit.close()


def test_a_candidate_is_promoted_after_a_question_and_the_gate_says_what_it_found(
    browser: Browser, scene: Scene
) -> None:
    visit = Visit(browser, scene.server.base, state=scene.state)
    page = visit.open("/console/overview")

    expect(page.get_by_role("link", name="Candidate 2 beside live")).to_be_visible()
    page.get_by_role("link", name="Promote version 2").click()
    page.get_by_role("button", name="Promote version 2").click()
    expect(page.get_by_role("heading", name="Version 2 of risk is live")).to_be_visible(
        timeout=60_000
    )
    expect(page.get_by_text("passed", exact=True)).to_be_visible()
    page.get_by_role("link", name="Go to risk").click()
    expect(page.locator("[aria-busy]")).to_have_count(0)
    page.get_by_role("link", name="Roll back to it").click()
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_role("row", name=re.compile("^1 .* live "))).to_be_visible()
    visit.close()


def many_rows(count: int, header: str = "age,pressure,smoker,visits") -> bytes:
    return "\n".join([header, *(f"{20 + n % 70},130,true,3" for n in range(count))]).encode()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_file_is_scored_and_downloaded(browser: Browser, scene: Scene, javascript: bool) -> None:
    visit = Visit(browser, scene.server.base, state=scene.state, javascript=javascript)
    page = visit.open("/console/try/risk")
    page.get_by_role("link", name="send a file").click()
    # With JavaScript a file may be larger than a call, and goes in parts.
    count = 25_000 if javascript else 3
    content = many_rows(count, "Age,pressure,smoker,visits")
    file = {"name": "patients.csv", "mimeType": "text/csv", "buffer": content}
    page.get_by_label("File", exact=True).set_input_files([file])
    if not javascript:
        page.get_by_text("Which column is which").click()
        page.get_by_role("combobox", name="age").fill("Age")
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name="Score the file").click()
        if javascript:
            page.get_by_role("link", name="Download").click(timeout=60_000)
            expect(page.get_by_text("Scored in 3 calls.")).to_be_visible()

    assert download.value.suggested_filename == "patients-scored.csv"
    lines = download.value.path().read_bytes().decode().splitlines()
    assert lines[0].startswith("Age,pressure,smoker,visits,prediction_id,prediction")
    assert len(lines) == count + 1
    assert len({line.split(",")[4] for line in lines}) == count + 1
    assert visit.faults == []
    visit.close()


def test_a_bad_row_in_a_later_part_is_named_by_its_place_in_the_file(
    browser: Browser, scene: Scene
) -> None:
    visit = Visit(browser, scene.server.base, width=PHONE, state=scene.state)
    page = visit.open("/console/try/risk/file")
    content = many_rows(12_000) + b"\nold,130,true,3\n"
    file = {"name": "patients.csv", "mimeType": "text/csv", "buffer": content}
    page.get_by_label("File", exact=True).set_input_files([file])
    page.get_by_role("button", name="Score the file").click()

    expect(page.get_by_role("row", name=re.compile("12,001 age"))).to_be_visible(timeout=60_000)
    expect(page.get_by_text("The 10000 rows before this part")).to_be_visible()
    assert visit.inaccessible() == []
    assert not visit.is_too_wide()
    assert [it for it in visit.faults if "400 (Bad Request)" not in it] == []
    visit.close()
