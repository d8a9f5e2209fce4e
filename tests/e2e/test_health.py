"""``/healthz`` and ``/readyz`` of a worker and a relay, also without their server, and under hostile requests."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from dev.process import Child
from dev.stack import HOST, Stack, running_stack, start_temporal
from tests.e2e.requests import a_request
from tests.support import polling
from tests.support.metrics import free_port


@dataclass
class Probed:
    stack: Stack
    worker: int

    def base(self, name: str) -> str:
        return f"http://{HOST}:{self.worker if name == 'worker' else self.stack.ports.relay}"

    async def get(self, name: str, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            return await http.get(f"{self.base(name)}{path}")

    async def until_ready(self, name: str, status: int) -> str:
        async def answers() -> str | None:
            answer = await self.get(name, "/readyz")
            return answer.text if answer.status_code == status else None

        text: str = await polling.until(answers, f"{name}: {status}", seconds=60, every=0.5)
        return text


@pytest.fixture(scope="module")
async def probed() -> AsyncIterator[Probed]:
    port = free_port()
    async with running_stack(speed=60, workers=False) as stack:
        await asyncio.gather(stack.start_worker(SEEDANCE_HEALTH_ADDRESS=f"{HOST}:{port}"), stack.start_relay())
        yield Probed(stack, port)


@pytest.mark.parametrize("name", ["worker", "relay"])
async def test_process_that_works_is_ready(probed: Probed, name: str) -> None:
    assert await probed.until_ready(name, 200) == "ok\n"
    answer = await probed.get(name, "/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_stopped_process_does_not_answer(probed: Probed) -> None:
    """Its loop does not turn, though its port is open."""
    process = probed.stack.children["worker"].process
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(httpx.TimeoutException):
            async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
                await http.get(f"{probed.base('worker')}/healthz")
    finally:
        process.send_signal(signal.SIGCONT)
    assert (await probed.get("worker", "/healthz")).status_code == 200


HOSTILE = {
    "slow": b"GET /healthz HTTP/1.1\r\n",
    "huge": b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    "endless line": b"G" * 100_000,
    "cut": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_request_is_hung_up_on(probed: Probed, name: str) -> None:
    reader, writer = await asyncio.open_connection(HOST, probed.worker)
    began = time.monotonic()
    writer.write(HOSTILE[name])
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    assert time.monotonic() - began < 5
    writer.close()
    assert (await probed.get("worker", "/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /metrics HTTP/1.1", 404),
        (b"POST /healthz HTTP/1.1", 405),
        (b"GET /healthz", 400),
        (b"HEAD /healthz HTTP/1.0", 200),
        (b"\xff\xfe \x00 HTTP/1.1", 404),
    ],
)
async def test_other_requests_are_answered(probed: Probed, line: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, probed.worker)
    writer.write(line + b"\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer
    writer.close()


async def test_many_open_connections_do_not_block_probes(probed: Probed) -> None:
    """They are closed after two seconds, so that a probe comes through."""
    opened = [await asyncio.open_connection(HOST, probed.worker) for _ in range(200)]

    async def is_healthy() -> bool:
        try:
            return (await probed.get("worker", "/healthz")).status_code == 200
        except httpx.TransportError:
            return False

    await polling.until(is_healthy, "a probe is answered", seconds=10)
    for _, writer in opened:
        writer.close()


async def test_lost_temporal_ends_readiness(probed: Probed) -> None:
    """The processes live on, and are ready again with the server."""
    stack = probed.stack
    await stack.children["temporal"].stop()
    for name in ("worker", "relay"):
        assert "Temporal" in await probed.until_ready(name, 503)
        assert (await probed.get(name, "/healthz")).status_code == 200
    stack.children["temporal"] = await start_temporal(stack.ports, stack.folder)
    for name in ("worker", "relay"):
        await probed.until_ready(name, 200)


async def test_worker_that_shuts_down_is_not_ready(probed: Probed) -> None:
    """It finishes a create, and takes no new work."""
    stack = probed.stack
    await probed.until_ready("worker", 200)
    request = a_request()
    await stack.ark.fault("create", "hang_after_commit", contains=request.prompt, seconds=6)
    job = await stack.jobs.submit(request)
    await polling.until(lambda: creating(stack, str(request.prompt)), "the create is under way")
    worker: Child = stack.children["worker"]
    worker.process.send_signal(signal.SIGTERM)
    assert await probed.until_ready("worker", 503) == "shutting down\n"
    assert (await probed.get("worker", "/healthz")).status_code == 200
    await worker.process.wait()
    await stack.start_worker(SEEDANCE_HEALTH_ADDRESS=f"{HOST}:{probed.worker}")
    await job.result(90)


async def creating(stack: Stack, prompt: str) -> bool:
    return any(prompt in str(entry.body) for entry in await stack.ark.ledger())


async def test_taken_address_is_one_sentence(probed: Probed) -> None:
    for variable in ("SEEDANCE_HEALTH_ADDRESS", "SEEDANCE_METRICS_ADDRESS"):
        with pytest.raises(RuntimeError, match=f"worker: {variable}: nothing can listen on .* name a free port"):
            await probed.stack.start_worker(f"second {variable}", **{variable: f"{HOST}:{probed.worker}"})
