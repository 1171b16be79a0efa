"""A real browser for tests of pages, which notes whatever a page does that it should not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from live import PASSWORD

AXE = Path(__file__).with_name("vendor") / "axe-core-4.14.1" / "axe.min.js"
PHONE, WIDE = 390, 1440
# Five seconds, as it is else, are few where other tests want the processor, too.
expect.set_options(timeout=30_000)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "Chromium is missing: run tests/install-services.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Visit:
    """A page of a server as one person sees it; `faults` are what the browser complained of."""

    def __init__(
        self,
        browser: Browser,
        base: str,
        *,
        width: int = WIDE,
        state: Any = None,
        javascript: bool = True,
    ) -> None:
        self.base = base
        self.faults: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            storage_state=state,
            java_script_enabled=javascript,
        )
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda it: it.type == "error" and self.faults.append(it.text))
        self.page.on("request", lambda it: self._check_host(it.url))

    def _check_host(self, url: str) -> None:
        if not url.startswith((f"{self.base}/", "data:")):
            self.faults.append(f"a request to {url}")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.base}{path}")
        return self.page

    def sign_in(self, name: str) -> Any:
        """Sign in by the form, and return what a later visit needs to be signed in, too."""
        self.open("/console/sign-in")
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()
        return self.context.storage_state()

    def inaccessible(self) -> list[str]:
        """Return what axe-core finds on the page that is serious or worse."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{it['id']}: {it['nodes'][0]['html'][:200]}"
            for it in found
            if it["impact"] in {"serious", "critical"}
        ]

    def is_too_wide(self) -> bool:
        """Tell whether one must scroll sideways to read the page."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def close(self) -> None:
        self.context.close()
