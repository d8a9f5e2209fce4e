"""Real servers for a test file that asks for them: Temporal, the local Ark, a bucket server, a host of files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from temporalio.client import Client

from dev.ark.control import ArkControl
from seedance_temporal.storage.bucket import GoogleBucket
from tests.support.fake_gcs import fake_gcs
from tests.support.jobs import as_new, local_ark
from tests.support.result_host import ResultHost, result_host
from tests.support.temporal_stub import dev_server, worker


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[Client]:
    """A dev server, and a worker with the stand-in for the workflow."""
    async with dev_server() as client, worker(client):
        yield client


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with local_ark() as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    """The server without the faults and switches of the test before."""
    return await as_new(server)


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleBucket]:
    with fake_gcs("videos") as client:
        yield GoogleBucket("videos", client)


@pytest.fixture
def bucket_env(google: GoogleBucket) -> dict[str, str]:
    """The variables that lead a command to the bucket."""
    return {"SEEDANCE_BUCKET": "videos", "STORAGE_EMULATOR_HOST": google._client._connection.API_BASE_URL}


@pytest.fixture
async def host() -> AsyncIterator[ResultHost]:
    async with result_host() as host:
        yield host


@pytest.fixture
async def client(ark: ArkControl) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the local Ark, with its key."""
    async with httpx.AsyncClient(
        base_url=ark.base_url("byteplus"),
        headers={"Authorization": "Bearer local-ark-key"},
        trust_env=False,
        verify=False,  # noqa: S501 - it is http
    ) as http:
        yield http
