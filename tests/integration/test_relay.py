"""The relay over real HTTP, in front of a real Temporal."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from temporalio.client import Client
from temporalio.service import RPCError

from seedance_temporal import errors, relay_connections
from seedance_temporal import relay as relay_module
from seedance_temporal.client import VideoJobs
from seedance_temporal.connection import connect
from seedance_temporal.contract import late_tasks_id
from seedance_temporal.identity import callback_token, callback_url
from seedance_temporal.provider.task import LONGEST_TASK_ID
from seedance_temporal.relay import ANSWER_WITHIN_SECONDS, MAX_BODY_BYTES, relay_app
from tests.support.relay_process import SECRET, relay_process
from tests.support.served import served
from tests.support.servers import dev_server
from tests.support.temporal_stub import TASK_ID, address, handle, request

ROOT = Path(__file__).parents[2]
PREVIOUS = "old secret"
BODY = {"id": TASK_ID, "status": "succeeded", "content": {"video_url": "https://example.com/forged.mp4"}}
JOB = "seedance-" + "0" * 64


def relay_of(client: Client, *secrets: str) -> Starlette:
    async def source() -> Client:
        return client

    return relay_app(source, secrets)


@pytest.fixture(scope="module")
async def relay(temporal: Client) -> AsyncIterator[str]:
    async with served(relay_of(temporal, SECRET, PREVIOUS)) as base:
        yield base


@pytest.fixture(scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


async def test_callback_signals_id_and_status_only(temporal: Client, relay: str, http: httpx.AsyncClient) -> None:
    job = await VideoJobs(temporal).submit(request("relayed"))
    answer = await http.post(callback_url(relay, SECRET, job.id, 1), json=BODY)
    assert (answer.status_code, answer.text) == (200, "ok\n")
    signals = await handle(temporal, request("relayed")).query("signals")
    assert signals == [{"task_id": TASK_ID, "status": "succeeded", "attempt": 1}]


@pytest.mark.parametrize("prompt", ["stored", "failed", "waits", "waits no-attributes"])
async def test_other_task_of_ended_job_is_taken_in(
    temporal: Client, relay: str, http: httpx.AsyncClient, prompt: str
) -> None:
    of = request(f"late {prompt}", prompt)
    job = await VideoJobs(temporal).submit(of)
    if "waits" in prompt:
        await handle(temporal, of).query("signals")
        await handle(temporal, of).terminate()
    else:
        with suppress(errors.JobFailed):
            await job.result(20)
    url = callback_url(relay, SECRET, job.id, 3)
    assert (await http.post(url, json=BODY)).status_code == 200
    late = temporal.get_workflow_handle(late_tasks_id(job.id, 3))
    if "waits" in prompt:
        await late.terminate()  # The run did not follow its task to the end.
    else:
        with pytest.raises(RPCError):
            await late.describe()
    assert (await http.post(url, json=BODY | {"id": "cgt-20261122-late"})).status_code == 200
    started = await anext(late.fetch_history_events())
    argument = started.workflow_execution_started_event_attributes.input.payloads[0]
    assert json.loads(argument.data) == {"job_id": job.id, "attempt": 3, "route": of.route}
    signals = [event async for event in late.fetch_history_events()][1:2]
    assert b"cgt-20261122-late" in signals[0].workflow_execution_signaled_event_attributes.input.payloads[0].data
    await late.terminate()


@pytest.mark.parametrize("secret", [SECRET, PREVIOUS])
async def test_both_secrets_are_accepted(relay: str, http: httpx.AsyncClient, secret: str) -> None:
    assert (await http.post(callback_url(relay, secret, JOB, 9999), json=BODY)).status_code == 200


def _wrong_urls() -> dict[str, str]:
    token = callback_token(SECRET, JOB, 1)
    return {
        "forged token": f"/callbacks/{JOB}/1/{'0' * 64}",
        "token of another secret": f"/callbacks/{JOB}/1/{callback_token('guess', JOB, 1)}",
        "token of another attempt": f"/callbacks/{JOB}/2/{token}",
        "token of another job": f"/callbacks/seedance-{'1' * 64}/1/{token}",
        "upper case": f"/callbacks/{JOB}/1/{token.upper()}",
        "cut short": f"/callbacks/{JOB}/1/{token[:-1]}",
        "not ascii": f"/callbacks/{JOB}/1/%C3%A9%FF",
        "no token": f"/callbacks/{JOB}/1/",
        "closing slash": f"/callbacks/{JOB}/1/{token}/",
        "more path": f"/callbacks/{JOB}/1/{token}/more",
        "leading zero": f"/callbacks/{JOB}/01/{token}",
        "plus sign": f"/callbacks/{JOB}/+1/{token}",
        "other digits": f"/callbacks/{JOB}/%D9%A1/{token}",
        "line end": f"/callbacks/{JOB}/1%0A/{token}",
        "attempt 0": f"/callbacks/{JOB}/0/{callback_token(SECRET, JOB, 0)}",
        "five digits": f"/callbacks/{JOB}/10000/{callback_token(SECRET, JOB, 10000)}",
        "not a job id": f"/callbacks/other/1/{callback_token(SECRET, 'other', 1)}",
        "elsewhere": "/",
    }


@pytest.mark.parametrize("path", _wrong_urls().values(), ids=_wrong_urls().keys())
async def test_wrong_url_is_404_without_reason(relay: str, http: httpx.AsyncClient, path: str) -> None:
    answer = await http.post(relay + path, content=b"not json")
    assert (answer.status_code, answer.text) == (404, "Not Found")


NO_TASKS = [
    *(b"", b"not json", b"\xff", b"[]", b"[" * 60_000, b'{"id": "x"}', b'{"status": "queued"}'),
    *(b'{"id": "", "status": "queued"}', b'{"id": 1, "status": "queued"}', b'{"id": "x", "status": null}'),
    b'{"id": "' + b"x" * (LONGEST_TASK_ID + 1) + b'", "status": "queued"}',
]


@pytest.mark.parametrize("body", NO_TASKS, ids=lambda body: repr(body[:30]))
async def test_body_without_task_is_400(relay: str, http: httpx.AsyncClient, body: bytes) -> None:
    assert (await http.post(callback_url(relay, SECRET, JOB, 1), content=body)).status_code == 400


@pytest.mark.parametrize(("more", "code"), [(0, 200), (1, 413)])
async def test_body_over_limit_is_413(relay: str, http: httpx.AsyncClient, more: int, code: int) -> None:
    body = json.dumps(BODY).encode().ljust(MAX_BODY_BYTES + more)
    assert (await http.post(callback_url(relay, SECRET, JOB, 1), content=body)).status_code == code


@pytest.mark.parametrize("length", [f"Content-Length: {2**40}", "Transfer-Encoding: chunked"])
async def test_body_without_end_is_413_and_not_read_on(relay: str, length: str) -> None:
    url = httpx.URL(callback_url(relay, SECRET, JOB, 1))
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"POST {url.path} HTTP/1.1\r\nHost: relay\r\n{length}\r\n\r\n".encode())
    sent, answer = 0, b""
    with suppress(ConnectionError):  # the relay closes the connection
        async with asyncio.timeout(10):
            while sent < 64 * 1024 * 1024:
                writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                sent += 0x4000
                await writer.drain()
    with suppress(ConnectionError):
        answer = await reader.read(64)
    assert sent < 16 * 1024 * 1024
    assert not answer or answer.startswith(b"HTTP/1.1 413")
    writer.close()


async def test_closed_and_unknown_jobs_are_200(temporal: Client, relay: str, http: httpx.AsyncClient) -> None:
    jobs = VideoJobs(temporal)
    job = await jobs.submit(request("closed", "stored"))
    await jobs.job(job.id).result()
    for job_id in (job.id, JOB):
        assert (await http.post(callback_url(relay, SECRET, job_id, 1), json=BODY)).status_code == 200


async def test_forged_callback_starts_nothing(temporal: Client, relay: str, http: httpx.AsyncClient) -> None:
    await http.post(callback_url(relay, SECRET, JOB, 1), json=BODY)
    with pytest.raises(Exception, match="not found"):
        await temporal.get_workflow_handle(JOB).describe()


async def test_thousand_equal_callbacks_do_no_harm(temporal: Client, relay: str, http: httpx.AsyncClient) -> None:
    jobs = VideoJobs(temporal)
    job = await jobs.submit(request("flooded"))
    url = callback_url(relay, SECRET, job.id, 1)
    slots = asyncio.Semaphore(50)

    async def call() -> int:
        async with slots:
            return (await http.post(url, json=BODY)).status_code

    statuses = await asyncio.gather(*(call() for _ in range(1000)))
    assert set(statuses) == {200, 429}
    # More than the provider ever sends, and one more each minute.
    assert 100 <= statuses.count(200) <= 110
    other = callback_url(relay, SECRET, job.id, 2)
    assert (await http.post(other, json=BODY)).status_code == 200, "another attempt has its own"
    await handle(temporal, request("flooded")).signal("end", "stored")
    assert (await jobs.job(job.id).result()).task_id == TASK_ID


async def test_callbacks_over_the_limit_are_refused_at_once(temporal: Client, caplog: pytest.LogCaptureFixture) -> None:
    """While those before them wait for Temporal."""
    connected = asyncio.Event()

    async def source() -> Client:
        await connected.wait()
        return temporal

    most = relay_module._MOST_AT_ONCE
    async with served(relay_app(source, [SECRET])) as base:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=60) as many:
            urls = [callback_url(base, SECRET, JOB, attempt) for attempt in range(1, most + 21)]
            calls = [asyncio.create_task(many.post(url, json=BODY)) for url in urls]
            answered, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert {call.result().status_code for call in answered} == {503}
            connected.set()
            statuses = [(await call).status_code for call in calls]
    assert set(statuses) <= {200, 503}
    # Others can be too late, on a busy machine.
    assert caplog.text.count("are being passed on") >= 20


async def test_burst_is_answered_in_time(temporal: Client, relay: str) -> None:
    """The provider waits five seconds. What cannot be passed on by then is refused at once, and comes again."""
    job = await VideoJobs(temporal).submit(request("burst"))
    host, _, port = relay.removeprefix("http://").partition(":")
    body = json.dumps(BODY).encode()
    head = f"HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"

    async def call(attempt: int) -> tuple[str, float]:
        path = callback_url("", SECRET, job.id, attempt)
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {path} {head}".encode() + body)
        status = (await reader.readline()).split()[1].decode()
        writer.close()
        return status, time.monotonic() - began

    answers = await asyncio.gather(*(call(attempt) for attempt in range(1, 1001)))
    assert {status for status, _ in answers} <= {"200", "503"}
    assert sum(status == "200" for status, _ in answers) >= 100
    assert max(seconds for _, seconds in answers) < 20, "less than two seconds on a quiet machine"
    await handle(temporal, request("burst")).signal("end", "stored")


async def test_mounted_in_another_application(temporal: Client, http: httpx.AsyncClient) -> None:
    backend = Starlette(routes=[Mount("/seedance/hooks", relay_of(temporal, SECRET))])
    async with served(backend) as base:
        mounted = f"{base}/seedance/hooks"
        assert (await http.get(f"{mounted}/healthz")).text == "ok\n"
        assert (await http.post(callback_url(mounted, SECRET, JOB, 1), json=BODY)).status_code == 200
        assert (await http.post(callback_url(mounted, "guess", JOB, 1), json=BODY)).status_code == 404
        assert (await http.post(callback_url(base, SECRET, JOB, 1), json=BODY)).status_code == 404


async def test_temporal_down_is_503_until_it_is_up(temporal: Client, http: httpx.AsyncClient) -> None:
    up = False

    async def source() -> Client:
        return await connect(target_host=address(temporal) if up else "127.0.0.1:1")

    async with served(relay_app(source, [SECRET])) as base:
        url = callback_url(base, SECRET, JOB, 1)
        answer = await http.post(url, json=BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (await http.get(f"{base}/healthz")).status_code == 200
        up = True
        assert (await http.post(url, json=BODY)).status_code == 200


async def test_slow_connection_serves_later_callbacks(temporal: Client, http: httpx.AsyncClient) -> None:
    """It takes longer than the provider waits, and is not begun anew for each callback."""
    begun = []

    async def source() -> Client:
        begun.append(time.monotonic())
        await asyncio.sleep(ANSWER_WITHIN_SECONDS + 1)
        return temporal

    async with served(relay_app(source, [SECRET])) as base:
        url = callback_url(base, SECRET, JOB, 1)
        answers = await asyncio.gather(*(http.post(url, json=BODY, timeout=10) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [503] * 3
        assert (await http.post(url, json=BODY, timeout=10)).status_code == 200
    assert len(begun) == 1


async def test_temporal_outage_is_503_in_time(http: httpx.AsyncClient) -> None:
    async with dev_server(attributes=()) as client:
        app = relay_of(client, SECRET)
        async with served(app) as base:
            assert (await http.post(callback_url(base, SECRET, JOB, 1), json=BODY)).status_code == 200
    async with served(app) as base:
        started = time.monotonic()
        assert (await http.post(callback_url(base, SECRET, JOB, 1), json=BODY, timeout=10)).status_code == 503
        assert time.monotonic() - started < 5


async def test_wrong_namespace_is_503(temporal: Client, http: httpx.AsyncClient) -> None:
    async def source() -> Client:
        return await connect(target_host=address(temporal), namespace="elsewhere")

    async with served(relay_app(source, [SECRET])) as base:
        assert (await http.post(callback_url(base, SECRET, JOB, 1), json=BODY)).status_code == 503


async def test_no_token_in_any_log(relay: str, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = callback_token(SECRET, JOB, 1)
    for body in (json.dumps(BODY), "not json"):
        await http.post(callback_url(relay, SECRET, JOB, 1), content=body)
    # The server's access log is off (the process test sees to that); pytest listens to it all the same.
    written = [record.getMessage() for record in caplog.records if record.name == "seedance_temporal.relay"]
    assert any(JOB in line for line in written)
    assert not any(token in line for line in written)


@pytest.mark.parametrize("secrets", [[], [""], [SECRET, ""]])
def test_no_relay_without_a_secret(secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        relay_app(connect, secrets)


def test_process_names_bad_settings() -> None:
    ended = subprocess.run([sys.executable, "relay.py"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr == "relay: not set in the environment: SEEDANCE_CALLBACK_SECRET\n"


async def test_connection_that_waits_longest_makes_room(
    temporal: Client, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Few(relay_connections.Connection):
        most = 3

    monkeypatch.setattr(relay_connections, "_REQUEST_WITHIN_SECONDS", 3600)
    async with served(relay_of(temporal, SECRET), Few) as base:
        host, _, port = base.removeprefix("http://").partition(":")
        idle = []
        for _ in range(3):
            idle.append(await asyncio.open_connection(host, int(port)))
            # The server accepts several at a time, in any order.
            await asyncio.sleep(0.05)
        assert (await http.get(f"{base}/healthz", headers={"Connection": "close"})).status_code == 200
        with suppress(ConnectionError):
            assert await asyncio.wait_for(idle[0][0].read(), 20) == b""
        for _, writer in idle:
            writer.close()


async def test_idle_connections_keep_no_callback_out(http: httpx.AsyncClient) -> None:
    """More of them than the process may have open files: the one that waits longest makes room, and none waits long."""
    few_files = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256))
    async with relay_process(streams={"preexec_fn": few_files}) as (base, _):
        host, _, port = base.removeprefix("http://").partition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(400)]
        reader, writer = idle[-1]
        writer.write(b"POST /callbacks HTTP/1.1\r\nX-Slow: ")
        answer = await http.get(f"{base}/healthz", timeout=30)
        assert answer.status_code == 200
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b"", "a request that does not end"
        for _, writer in idle:
            writer.close()


async def test_endless_body_to_a_wrong_url_is_cut_off(http: httpx.AsyncClient) -> None:
    """Its answer is 404 at once; nobody reads the rest, which in pieces of one byte would be much work."""
    async with relay_process(streams={}) as (base, _):
        host, _, port = base.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 20_000_000:
                writer.write(b"1\r\nx\r\n" * 1000)
                await asyncio.wait_for(writer.drain(), 30)
                sent += 6000
        assert sent < 20_000_000, "it read everything"
        with suppress(ConnectionError):
            assert (await reader.read(12)) in {b"HTTP/1.1 404", b""}
        began = time.monotonic()
        assert (await http.get(f"{base}/healthz", timeout=30)).status_code == 200
        assert time.monotonic() - began < 3
        writer.close()


async def test_process_serves_before_temporal(http: httpx.AsyncClient) -> None:
    async with relay_process(streams={"stderr": asyncio.subprocess.PIPE}) as (base, process):
        assert (await http.post(callback_url(base, SECRET, JOB, 1), json=BODY)).status_code == 503
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        _, written = await asyncio.wait_for(process.communicate(), 10)
        assert time.monotonic() - started < 3
        assert JOB in written.decode()
        assert callback_token(SECRET, JOB, 1) not in written.decode()
