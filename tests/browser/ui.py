"""Temporal's own UI in a headless Chromium, as an operator sees it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.async_api import Error, Page, async_playwright

from dev.stack import Stack

CHROMIUM = "chromium"
COLUMNS = (
    *("Status", "SeedancePhase", "SeedanceAttention", "SeedanceUser", "SeedanceTaskId", "SeedanceCostUsd"),
    "Workflow ID",
)
# The UI keeps its choice of columns in the browser.
_COLUMNS_KEY = "namespace-workflow-table-columns"
_WIDTH = 1440
# Higher than any page, and lower: the content then determines the height.
_HIGH, _LOW = 2000, 300
_READS = 30
_COLOURS = 128


@dataclass
class TemporalUi:
    """One page of the UI, and the folder for pictures of it."""

    page: Page
    stack: Stack
    pictures: Path

    async def open_list(self) -> None:
        """The list of our workflows, with the columns that operations recommend."""
        query = "WorkflowType%3D%22GenerateVideo%22"
        await self.page.goto(f"{self.stack.ui_url}/namespaces/default/workflows?query={query}")

    async def open_run(self, job_id: str, tab: Literal["timeline", "user-metadata"]) -> None:
        run = await self.stack.client.get_workflow_handle(job_id).describe()
        # What is out of sight is not drawn.
        await self.page.set_viewport_size({"width": _WIDTH, "height": _HIGH})
        await self.page.goto(f"{self.stack.run_url(job_id)}/{run.run_id}/{tab}")

    async def until_it_shows(self, *sentences: str) -> str:
        """Return the text of the page, as soon as these sentences are in it."""
        read = ""
        for _ in range(_READS):
            read = await self._read()
            if all(sentence in read for sentence in sentences):
                return read
            # The key that asks for current details anew; it does nothing elsewhere.
            await self.page.keyboard.press("r")
            await asyncio.sleep(1)
        missing = [sentence for sentence in sentences if sentence not in read]
        raise AssertionError(f"the UI does not show {missing}, but:\n{read}")

    async def _read(self) -> str:
        texts = []
        for frame in self.page.frames:
            try:
                texts.append(await frame.inner_text("body"))
            except Error:  # a frame that is being replaced
                continue
        # Its Markdown is set with typographic apostrophes.
        return " ".join(" ".join(texts).split()).replace("\u2019", "'")

    async def photograph(self, name: str, least: int = 0) -> None:
        """Take a picture of the page without its menus. A page that scrolls by itself needs a height at least."""
        await self.page.set_viewport_size({"width": _WIDTH, "height": _LOW})
        # Frames take on the height of what they hold.
        await self.page.wait_for_timeout(1500)
        height = await self.page.evaluate("document.getElementById('content-wrapper').scrollHeight")
        await self.page.set_viewport_size({"width": _WIDTH, "height": max(height, least)})
        await self.page.wait_for_timeout(500)
        image = Image.open(io.BytesIO(await self.page.locator("#content").screenshot()))
        # A page of text needs few colours, and is then a third of the size.
        image.convert("RGB").quantize(_COLOURS).save(self.pictures / f"{name}.png", optimize=True)


@asynccontextmanager
async def temporal_ui(
    stack: Stack, executable: str, pictures: Path, codec: str | None = None
) -> AsyncIterator[TemporalUi]:
    """A browser of its own, which ends with the context.

    Args:
        codec: The URL of a codec endpoint, which the UI then asks with the browser's cookies.
    """
    chosen = json.dumps(json.dumps({"default": [{"label": label} for label in COLUMNS]}))
    async with async_playwright() as playwright:
        # Root has no sandbox, and the page is our own.
        browser = await playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-lcd-text"]
        )
        try:
            context = await browser.new_context(timezone_id="UTC", viewport={"width": _WIDTH, "height": _HIGH})
            await context.add_init_script(f"localStorage.setItem({json.dumps(_COLUMNS_KEY)}, {chosen})")
            if codec is not None:
                # As the UI's own form for a codec endpoint keeps it, with the browser's setting chosen.
                kept = {
                    "endpoint": json.dumps(codec),
                    "includeCredentials": "true",
                    "overrideRemoteCodecConfiguration": "true",
                }
                for name, value in kept.items():
                    await context.add_init_script(f"localStorage.setItem({json.dumps(name)}, {json.dumps(value)})")
            yield TemporalUi(await context.new_page(), stack, pictures)
        finally:
            await browser.close()
