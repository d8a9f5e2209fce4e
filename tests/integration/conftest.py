"""Real servers for a test file that asks for them: Temporal, the local Ark, a bucket server, a host of files."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from dev.ark.control import ArkControl
from seedance_temporal.media import public_http
from seedance_temporal.provider.ark import Ark
from seedance_temporal.storage.bucket import GoogleBucket
from tests.support.ark_api import Api, an_api
from tests.support.fake_gcs import fake_gcs
from tests.support.jobs import KEY, as_new, local_ark
from tests.support.raw_host import RawHost, raw_host
from tests.support.result_host import ResultHost, result_host
from tests.support.servers import dev_server
from tests.support.temporal_stub import worker


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
async def raw() -> AsyncIterator[RawHost]:
    async with raw_host() as host:
        yield host


@pytest.fixture
def client(raw: RawHost) -> Ark:
    """The worker's client of the raw host."""
    return Ark(raw.url, KEY, list_spacing=0)


@pytest.fixture
async def api(ark: ArkControl) -> AsyncIterator[Api]:
    async with an_api(ark) as api:
        yield api


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of temporary files, and no pause between the tries of a download."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(public_http, "_RESUME_PAUSE_SECONDS", 0)
    return folder
