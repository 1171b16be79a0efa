"""`/docs` in a real browser: sign in there, send the example, get a prediction."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from live import PASSWORD, Server, live_server


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("page")
    with live_server(model_dir, home / "data") as running:
        running.register("ada")
        yield running


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is missing: run tests/install-services.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.errors = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("requestfailed", lambda request: page.errors.append(request.url))
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.goto(f"{server.base}/docs")
        yield page
        browser.close()


def test_signing_in_and_sending_the_example_gives_a_prediction(page: Page) -> None:
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    dialog.get_by_label("username:").fill("ada")
    dialog.get_by_label("password:").fill(PASSWORD)
    dialog.locator("button.authorize").first.click()
    expect(dialog.get_by_text("Logout")).to_be_visible()
    dialog.locator("button.btn-done").first.click()

    operation = page.locator(".opblock-post", has=page.locator('[data-path="/predict"]'))
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()

    live = operation.locator(".live-responses-table")
    expect(live.locator(".response-col_status").nth(1)).to_contain_text("200")
    expect(live).to_contain_text('"probabilities"')
    assert page.errors == []


def test_the_page_shows_the_models_own_columns(page: Page) -> None:
    operation = page.locator(".opblock-post", has=page.locator('[data-path="/predict"]'))
    operation.locator(".opblock-summary-control").click()

    for column in ("age", "pressure", "smoker", "visits"):
        expect(operation.locator(".opblock-section-request-body")).to_contain_text(column)


def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator(".opblock").first).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
