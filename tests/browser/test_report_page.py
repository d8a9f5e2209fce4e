"""The page of the report, as somebody sees it: in light and dark, on a phone, and without a network.

``make screenshots`` renews its picture in docs/how-to/reports.md with this test.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page, Request, async_playwright

from seedance_temporal.cli.report_page import page as report_page
from seedance_temporal.provider.billing import BilledTask
from seedance_temporal.provider.prices import Cost
from seedance_temporal.reports.figures import OUTCOMES, Account, Key, figures

MADE_AT = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
BY: tuple[Key, ...] = ("model",)
USD_PER_MILLION = {
    "dreamina-seedance-2-0-260128": 7.0,
    "dreamina-seedance-2-0-fast-260128": 5.6,
    "dreamina-seedance-2-0-mini-260615": 3.5,
}
HOSTILE = "<script>document.title = 'taken'</script><img src=https://example.com/x onerror=\"document.title='taken'\">"


def three_weeks(user: str = "user-42") -> list[Account]:
    """Some hundred jobs, the same at each call."""
    draw = random.Random(7)
    return [_job(draw, number, user) for number in range(400)]


def _job(draw: random.Random, number: int, user: str) -> Account:
    model = draw.choices(list(USD_PER_MILLION), (4, 3, 3))[0]
    started = MADE_AT - timedelta(days=draw.triangular(0.1, 21, 5))
    outcome = draw.choices(OUTCOMES, (80, 4, 6, 2, 3, 1, 4))[0]
    most = draw.choice((40_594, 108_900, 216_900))
    tokens = round(most * draw.uniform(0.85, 1))
    task = BilledTask(f"cgt-{number}", tokens, Cost(round(tokens * USD_PER_MILLION[model] / 1_000_000, 6)))
    return Account(
        job_id=f"seedance-{number:064x}",
        user=user,
        model=model,
        route="byteplus",
        started_at=started,
        ended_at=None if outcome == "open" else started + timedelta(seconds=draw.lognormvariate(5.1, 0.6)),
        outcome=outcome,
        attempts=1,
        tasks=(task,) if outcome == "stored" else (),
        estimated_tokens=most,
        estimate=Cost(most * USD_PER_MILLION[model] / 1_000_000),
    )


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        # Root has no sandbox, and the page is our own. Letters in shades of grey make small pictures.
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-lcd-text"]
        )
        yield await browser.new_page(viewport={"width": 1240, "height": 800})
        await browser.close()


def _written(folder: Path, accounts: list[Account]) -> str:
    file = folder / "report.html"
    text = report_page(accounts, BY, source="the objects in the bucket", made_at=MADE_AT, cny_per_usd=None)
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


async def test_page_shows_figures_and_plots(page: Page, tmp_path: Path, pictures: Path) -> None:
    accounts = three_weeks()
    await page.goto(_written(tmp_path, accounts))
    total = figures(accounts)
    read = await page.inner_text("body")
    for words in ("Seedance report", f"{total.tokens:,}", f"{total.cost_usd:,.4f}", "Half of the jobs within"):
        assert words in read
    for title in ("Spend by day and model", "Time from submission to stored", "Outcomes"):
        assert await page.get_by_role("heading", name=title).count() == 1
        drawn = await page.get_by_role("img", name=title).bounding_box()
        assert drawn is not None
        assert drawn["width"] > 600
    assert await page.locator("tbody tr").count() == len(USD_PER_MILLION)
    legends = page.locator("svg .legend text")
    assert await legends.all_text_contents() == list(USD_PER_MILLION)
    chart = await page.get_by_role("img", name="Spend by day and model").bounding_box()
    lowest = await legends.last.bounding_box()
    assert chart is not None
    assert lowest is not None
    assert lowest["y"] + lowest["height"] <= chart["y"] + chart["height"], "in full"
    bars = page.get_by_role("img", name="Spend by day and model").locator("rect.rect")
    assert await bars.count() >= 21
    assert len({await bars.nth(n).evaluate("it => getComputedStyle(it).fill") for n in (0, -1)}) == 2, "models differ"
    await page.screenshot(path=pictures / "report.png", full_page=True)


async def test_page_loads_and_runs_nothing(page: Page, tmp_path: Path) -> None:
    asked: list[Request] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    uri = _written(tmp_path, [Account(**vars(one) | {"model": HOSTILE}) for one in three_weeks()])
    await page.goto(uri)
    await page.wait_for_timeout(300)
    assert [request.url for request in asked] == [uri]
    assert said == []
    assert (await page.title()).startswith("Seedance report, 2026-11-")
    assert "<script>" in await page.inner_text("tbody"), "shown as it is"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_page_is_readable_in_light_and_dark(page: Page, tmp_path: Path, scheme: str) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.goto(_written(tmp_path, three_weeks()))
    paper = await _brightness(page, "body", "backgroundColor")
    assert (paper > 0.5) == (scheme == "light")
    inks = {
        "body": "color",
        "figcaption": "color",
        "dt": "color",
        "svg .legend text": "fill",
        "svg .axis.x text": "fill",
        "svg .text-overlay text.value": "fill",
    }
    for selector, what in inks.items():
        ink = await _brightness(page, selector, what)
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, f"{selector} cannot be read"


async def _brightness(page: Page, selector: str, what: str) -> float:
    """Relative luminance, as the accessibility guidelines reckon it."""
    colour = await page.locator(selector).first.evaluate(f"it => getComputedStyle(it).{what}")
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


async def test_page_fits_a_phone(page: Page, tmp_path: Path) -> None:
    await page.set_viewport_size({"width": 380, "height": 800})
    await page.goto(_written(tmp_path, three_weeks()))
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "only the table scrolls sideways"
