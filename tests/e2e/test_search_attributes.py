"""Search attributes that are missing, or of another type, stop no job; the worker logs the commands that add them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client

from dev.stack import HOST, Stack, jobs_of
from seedance_temporal import VideoJobs
from seedance_temporal.contract import SEARCH_ATTRIBUTES
from seedance_temporal.errors import SeedanceError
from seedance_temporal.search_attributes import register_search_attributes
from tests.e2e.operator import new_namespace
from tests.e2e.requests import a_request
from tests.support.servers import skipping_server

NAMESPACE = "crowded"
# The server has columns for ten keywords in each namespace: with these, there is no room for the last of ours.
OF_OTHERS = [f"Other{number}" for number in range(6)]
KEYWORD, INT = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD, IndexedValueType.INDEXED_VALUE_TYPE_INT


@pytest.fixture(scope="module")
async def crowded(stack: Stack) -> Client:
    """A namespace with little room left, in which the phase is registered as a number."""
    client = await new_namespace(stack, NAMESPACE)
    existing = dict.fromkeys(OF_OTHERS, KEYWORD) | {"SeedancePhase": INT}
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=NAMESPACE, search_attributes=existing)
    )
    return client


@pytest.fixture(scope="module")
async def log(stack: Stack, crowded: Client) -> AsyncIterator[str]:
    """The log of a worker's start there; it serves until the tests of this file are over."""
    worker = await stack.start_worker("worker-crowded", TEMPORAL_NAMESPACE=NAMESPACE)
    yield worker.log.read_text()
    await worker.stop()


async def test_jobs_run_without_missing_attributes(crowded: Client, log: str) -> None:
    missing = {key.name for key in SEARCH_ATTRIBUTES if f"without the search attribute {key.name}" in log}
    assert missing == {"SeedancePhase", "SeedanceModel"}, "the least important one has no room"
    jobs = jobs_of(crowded)
    result = await (await jobs.submit(a_request())).result()
    # The registered ones are used.
    (job,) = await jobs.list(user="user-e2e")
    assert (job.phase, job.task_id) == ("stored", result.task_id)


async def test_filter_by_missing_attribute_is_refused(crowded: Client, log: str) -> None:
    with pytest.raises(SeedanceError, match=f"namespace {NAMESPACE} lacks search attributes.*SeedanceModel"):
        await VideoJobs(crowded).list(model="seedance-2-0")


async def test_logged_commands_fix_attributes(stack: Stack, crowded: Client, log: str) -> None:
    jobs = VideoJobs(crowded)
    with pytest.raises(SeedanceError, match="SeedancePhase"):
        await jobs.list(phase="running")
    (line,) = [line for line in log.splitlines() if "SeedancePhase, which is registered as Int" in line]
    remove, create = re.findall(r"temporal operator search-attribute [^&]+", line)
    of_model = f"search-attribute create --namespace {NAMESPACE} --name SeedanceModel --type Keyword"
    assert f"--name ONE_THAT_NOBODY_NEEDS && temporal operator {of_model}" in log

    # There is room for a keyword more once one of the others is gone.
    others = remove.replace("SeedancePhase", OF_OTHERS[0])
    for command in (f"{others} --yes", f"{remove} --yes", create):
        program = Path(sys.executable).with_name("temporal")
        await asyncio.to_thread(
            subprocess.run,
            [program, *command.split()[1:]],
            env={"TEMPORAL_ADDRESS": f"{HOST}:{stack.ports.temporal}"},
            check=True,
            timeout=60,
        )
    assert "SeedancePhase" in await register_search_attributes(crowded)
    async with asyncio.timeout(90):
        while True:
            # The part of the server that answers queries loads it a little later.
            with contextlib.suppress(SeedanceError):
                await jobs.list(phase="running")
                break
            await asyncio.sleep(0.2)


async def test_server_without_attributes_has_none(caplog: pytest.LogCaptureFixture) -> None:
    async with skipping_server() as client:
        assert await register_search_attributes(client) == frozenset()
    assert "cannot be asked for" in caplog.text
    assert all(f"--name {key.name} --type" in caplog.text for key in SEARCH_ATTRIBUTES)
