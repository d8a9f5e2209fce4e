"""With encryption on, Temporal's UI and command line show a request to those who may read it, and to nobody else."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from dev.stack import HOST, Stack, running_stack
from tests.browser.test_temporal_ui import a_request
from tests.browser.ui import TemporalUi, temporal_ui
from tests.support.encryption import a_key_setting

PROMPT = "A lighthouse of basalt at dusk"
TOKEN = "a-token-of-ann-0123456789-0123456789"


@pytest.mark.faults
async def test_ui_shows_prompt_to_those_allowed(chromium: str, pictures: Path) -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    async with running_stack(speed=60, settings={"SEEDANCE_ENCRYPTION_KEYS": a_key_setting("k1")}) as stack:
        codec = await stack.start_codec(port, f"ann:{TOKEN}")
        job = await stack.jobs.submit(a_request(PROMPT))
        await job.result()
        async with temporal_ui(stack, chromium, pictures, codec) as ui:
            await sees_nothing(ui, job.id)
            assert "is not known" in await signed_in(ui, codec, TOKEN[:-1])
            await sees_nothing(ui, job.id)
            assert "You are signed in" in await signed_in(ui, codec, TOKEN)
            await ui.open_run(job.id, "user-metadata")
            await ui.until_it_shows(f"prompt: {PROMPT}", "for user-42", "Stored. The video is in the bucket")
            await ui.open_run(job.id, "timeline")
            await ui.until_it_shows("POST create: attempt 1, paid at most once", f'"prompt": "{PROMPT}"')
        async with temporal_ui(stack, chromium, pictures) as ui:
            await sees_nothing(ui, job.id)
        assert PROMPT in await history(stack, job.id, "--codec-endpoint", codec, "--codec-auth", f"Bearer {TOKEN}")
        assert PROMPT not in await history(stack, job.id, "--codec-endpoint", codec, "--codec-auth", "Bearer x")
        assert PROMPT not in await history(stack, job.id)
        assert TOKEN not in stack.children["codec"].log.read_text()


async def signed_in(ui: TemporalUi, codec: str, token: str) -> str:
    """Give a token to the codec endpoint in the browser; return what it says."""
    await ui.page.goto(f"{codec}/login")
    await ui.page.get_by_label("Token").fill(token)
    await ui.page.get_by_role("button", name="Sign in").click()
    await ui.page.wait_for_load_state()
    return await ui.page.inner_text("body")


async def sees_nothing(ui: TemporalUi, job_id: str) -> None:
    """Open the pages that show a request, once they have all that the browser gets."""
    await ui.open_run(job_id, "timeline")
    assert PROMPT not in await ui.until_it_shows('Input "', "create_task")
    await ui.open_run(job_id, "user-metadata")
    read = await ui.until_it_shows("No details available", "No Current Details")
    assert PROMPT not in read
    assert "user-42" not in read


async def history(stack: Stack, job_id: str, *options: str) -> str:
    """Return a history as Temporal's command line writes it."""
    temporal = str(Path(sys.executable).parent / "temporal")
    process = await asyncio.create_subprocess_exec(
        *(temporal, "workflow", "show", "--workflow-id", job_id, "--detailed", *options),
        *("--address", f"{HOST}:{stack.ports.temporal}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return said.decode()
