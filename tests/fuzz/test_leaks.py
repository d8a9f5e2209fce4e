"""Real processes whose provider quotes every secret in every text: none is in history, bucket, logs or output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from dev.process import start
from dev.stack import API_KEYS, CALLBACK_SECRET, READY_SECONDS, ROOT, Stack, running_stack
from seedance_temporal.identity import callback_token
from tests.e2e.command import python
from tests.e2e.invariants import check_invariants
from tests.e2e.requests import a_request, until, until_ended
from tests.fuzz.proxy import Gateway, Quoting, serving

_SIGNATURE = "5ec4e7"


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running_stack(speed=60, workers=False) as stack:
        await stack.start_relay()
        yield stack


async def start_worker(stack: Stack, address: str) -> None:
    environment = stack.environment | {
        "ARK_API_KEY": API_KEYS["byteplus"],
        "ARK_BASE_URL": stack.ark.base_url("byteplus").replace(stack.ark.url, address),
    }
    command = [sys.executable, "-m", "tests.fuzz.debug_worker"]
    stack.children["worker"] = child = await start("worker", command, environment, stack.folder, cwd=ROOT)
    await child.until_log_says("serving route", READY_SECONDS)


async def outputs(stack: Stack, jobs: list[str]) -> dict[str, str]:
    """Return what each command of the command line writes about jobs."""
    commands = [("list", "--json"), ("report", "--from-bucket", "--json")]
    commands += [("show", job) for job in jobs]
    commands += [("audit", job, "--json") for job in jobs[:3]]
    written = {}
    for command in commands:
        _, out, err = await python("starter.py", *command, env=stack.environment)
        assert out, f"{command}: {err}"
        written[" ".join(command)] = out + err
    return written


async def test_quoted_secrets_are_kept_nowhere(stack: Stack) -> None:
    lying = Quoting(stack.ark.url)
    async with serving(lying) as address:
        await start_worker(stack, address)
        lying.refuses = {"no such ratio": (400, "InvalidParameter"), "too often": (429, "RateLimitExceeded")}
        stored, failed, lost = a_request(), a_request(), a_request()
        refused, waiting = a_request(prompt="no such ratio"), a_request(prompt="too often")
        await stack.ark.fault("task", "fail", contains=failed.prompt, code="InternalServiceError")
        await stack.ark.fault("create", "lost_after_commit", contains=lost.prompt)
        jobs = [(await stack.jobs.submit(each)).id for each in (stored, failed, lost, refused, waiting)]
        ends = await asyncio.gather(*(until_ended(stack, job) for job in jobs[:4]))
        await until(stack, jobs[4], lambda job: job.phase == "waiting")
        written = await outputs(stack, jobs)
        lying.refuses.clear()
        ends.append(await until_ended(stack, jobs[4]))
        _check_told(stack, lying)
    assert [end.phase for end in ends] == ["stored", "failed", "stored", "refused", "stored"]
    secrets = [*API_KEYS.values(), CALLBACK_SECRET, _SIGNATURE]
    secrets += [callback_token(CALLBACK_SECRET, job, attempt) for job in jobs for attempt in (1, 2)]
    for command, text in written.items():
        assert not [secret for secret in secrets if secret in text], command
    await check_invariants(stack)


def _check_told(stack: Stack, lying: Gateway) -> None:
    """Check that the worker was told secrets, and wrote what DEBUG writes."""
    assert lying.changed > 100
    assert lying.stumbles == 0
    log = stack.children["worker"].log.read_text()
    assert "DEBUG httpcore" in log
