"""Every text at its longest, in the widest characters, on the real server: no run is ended by it, and none is stuck."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from dev.ark.control import ArkControl
from dev.process import running_ark
from seedance_temporal import VideoJobs
from seedance_temporal.contract import SEARCH_ATTRIBUTES
from seedance_temporal.errors import JobFailed
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import GoogleBucket
from tests.fuzz.proxy import WIDE, Wide, serving
from tests.support.encryption import encrypting
from tests.support.fake_gcs import fake_gcs
from tests.support.jobs import KEY, a_request, some_settings
from tests.support.servers import dev_server
from workers.build import build_workers

_MOST_USER_CHARACTERS = 255
_MOST_PROMPT_CHARACTERS = 32_000


@dataclass
class Parts:
    client: Client
    ark: ArkControl
    gateway: Wide

    async def end(self, request: VideoRequest) -> str:
        """Run a job to its end; return how it ended, without its wide characters."""
        handle = await VideoJobs(self.client).submit(request)
        try:
            result = await handle.result(120)
        except JobFailed as failed:
            ended = failed.code
        else:
            assert result.task_id.endswith(WIDE * 10)
            ended = "stored"
        run = await self.client.get_workflow_handle(handle.id).describe()
        assert run.status in {WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.FAILED}
        assert await run.static_summary()
        return ended.replace(WIDE, "")


@pytest.fixture(scope="module")
async def parts() -> AsyncIterator[Parts]:
    async with AsyncExitStack() as stack:
        # Encrypted texts are longer.
        client = encrypting(await stack.enter_async_context(dev_server()))
        ark = await stack.enter_async_context(running_ark("--speed", "60"))
        gateway = Wide(ark.url, stumbles=1)
        address = await stack.enter_async_context(serving(gateway))
        base_url = ark.base_url("byteplus").replace(ark.url, address)
        settings = some_settings(ark_base_url=base_url, seedance_poll_first_seconds=2)
        bucket = GoogleBucket("videos", stack.enter_context(fake_gcs("videos")))
        known = frozenset(key.name for key in SEARCH_ATTRIBUTES)
        for worker in build_workers(client, settings, bucket, Ark(base_url, KEY, list_spacing=0), known):
            await stack.enter_async_context(worker)
        yield Parts(client, ark, gateway)


def wide_request() -> VideoRequest:
    return a_request(user_id=WIDE * _MOST_USER_CHARACTERS, prompt=WIDE * _MOST_PROMPT_CHARACTERS)


async def test_widest_texts_end_no_run(parts: Parts) -> None:
    assert await parts.end(wide_request()) == "stored"
    await parts.ark.fault("task", "fail", code="InternalServiceError")
    assert await parts.end(wide_request()) == "InternalServiceError"
    parts.gateway.refuses = {"a cat": (400, "InvalidParameter")}
    assert await parts.end(a_request(user_id=WIDE * _MOST_USER_CHARACTERS)) == "InvalidParameter"
    assert parts.gateway.changed > 20
