"""A bucket with 100,000 jobs: all that are open are found within minutes, in bounded memory."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from dev.process import stop
from dev.stack import ROOT
from seedance_temporal.recovery import read_jobs
from seedance_temporal.storage.bucket import GoogleBucket
from tests.faults.report import AddRow

# An answer of a real bucket in the same region takes less.
ANSWER_SECONDS = 0.1


@asynccontextmanager
async def a_bucket(jobs: int, open_jobs: int) -> AsyncIterator[GoogleBucket]:
    command = ("-m", "tests.support.large_bucket", str(jobs), str(open_jobs), str(ANSWER_SECONDS))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        options = {"api_endpoint": f"http://127.0.0.1:{port}"}
        client = storage.Client("local", credentials=AnonymousCredentials(), client_options=options)
        yield GoogleBucket("videos", client)
    finally:
        await stop(process)


@pytest.mark.parametrize(
    ("jobs", "open_jobs", "most_seconds"),
    [
        pytest.param(500, 20, 60, id="smoke"),
        pytest.param(100_000, 500, 600, id="100,000", marks=[pytest.mark.faults, pytest.mark.timeout(900)]),
    ],
)
async def test_large_bucket_is_read_fast(jobs: int, open_jobs: int, most_seconds: float, report: AddRow) -> None:
    async with a_bucket(jobs, open_jobs) as bucket:
        before, began = _most_memory(), time.monotonic()
        found = await read_jobs(bucket, "seedance")
        seconds = time.monotonic() - began
    assert (len(found.read), found.stored, found.damaged) == (open_jobs, jobs - open_jobs, {})
    assert seconds < most_seconds
    megabytes = _most_memory() - before
    assert megabytes < 500
    figures = {"jobs": jobs, "open": open_jobs, "seconds": f"{seconds:.1f}", "MB": f"{megabytes:.0f}"}
    report("Reading a bucket's ledgers", figures)


def _most_memory() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
