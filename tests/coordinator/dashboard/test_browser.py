"""The page in Chromium, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.coordinator.conftest import TOKEN
from tests.coordinator.dashboard.test_comparisons import in_shadow, in_trial
from tests.coordinator.dashboard.test_dashboard import SNAPSHOT
from tests.coordinator.openai.conftest import HttpBench, MakeHttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 60_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@asynccontextmanager
async def signed_in(door: HttpBench) -> AsyncIterator[Page]:
    async with opened(door) as page:
        await page.fill("#key", TOKEN)
        await page.press("#key", "Enter")
        yield page


@asynccontextmanager
async def opened(door: HttpBench) -> AsyncIterator[Page]:
    """Nothing that it asks for may fail, and no script of it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(WAIT_MS)
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(request.url))
        await page.goto(door.url)
        yield page
        await browser.close()
    assert not troubles


async def test_it_asks_for_a_key_and_shows_the_cluster(door: HttpBench) -> None:
    for name in ("first", "second"):
        await door.bench.ask(text="hello", max_tokens=5, request_id=name)
    door.bench.coordinator.timeline.note(door.bench.coordinator.state())
    async with opened(door) as page:
        await expect(page.locator("#login")).to_be_visible()
        await page.fill("#key", TOKEN)
        await page.press("#key", "Enter")
        await expect(page.locator("#instances tr")).to_have_count(1 + 3, timeout=WAIT_MS)
        await expect(page.locator("#tiles")).to_contain_text("goodput")
        await page.get_by_role("cell", name="first", exact=True).click()
        await expect(page.locator("#chosen")).to_contain_text("first")
        assert await page.evaluate("document.getElementById('waterfall').height > 0")


async def test_it_shows_the_arms_of_a_trial(make_http: MakeHttp) -> None:
    door = await in_trial(make_http)
    async with signed_in(door) as page:
        await expect(page.locator("#trial")).to_be_visible(timeout=WAIT_MS)
        await expect(page.locator("#arms i")).to_have_text(["a", "b"])
        await expect(page.locator("#instances i.arm-a")).to_have_count(2)
        await expect(page.locator("#instances i.arm-b")).to_have_count(1)
        await expect(page.locator("#measures")).to_contain_text("goodput per instance")
        await expect(page.locator("#shadow")).to_be_hidden()


async def test_it_shows_the_shadow_and_hides_it_when_it_ends(make_http: MakeHttp) -> None:
    door = await in_shadow(make_http)
    async with signed_in(door) as page:
        await expect(page.locator("#shadow")).to_be_visible(timeout=WAIT_MS)
        await expect(page.locator("#shadow-tiles li")).to_have_count(6)
        await expect(page.locator("#shadow-decisions")).to_contain_text("would let it wait")
        door.bench.coordinator.trials.stop_shadow()
        await expect(page.locator("#shadow")).to_be_hidden(timeout=WAIT_MS)


async def test_a_wrong_key_is_refused_in_its_words(door: HttpBench) -> None:
    refused = await door.http.get(SNAPSHOT, headers={"authorization": "Bearer wrong"})
    reason = refused.json()["error"]
    async with opened(door) as page:
        await page.fill("#key", "wrong")
        await page.press("#key", "Enter")
        await expect(page.locator("#trouble")).not_to_be_empty(timeout=WAIT_MS)
        assert await page.locator("#trouble").inner_text() == reason
        assert await page.locator("#main").is_hidden()
