"""The client without await, against a real Temporal; and what a fork does to both clients."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
from temporalio.client import Client

from seedance_temporal import Resubmit, SyncVideoJob, SyncVideoJobs, VideoJob, VideoJobs, errors
from seedance_temporal.sync_client import _LoopThread
from tests.support.temporal_stub import RESULT, address, handle, request

ROOT = Path(__file__).parents[2]


def test_methods_are_those_of_the_async_client() -> None:
    for plain, awaited in ((SyncVideoJobs, VideoJobs), (SyncVideoJob, VideoJob)):
        theirs = {name: value for name, value in vars(awaited).items() if not name.startswith("_")}
        ours = {name: value for name, value in vars(plain).items() if not name.startswith("_")}
        assert ours.keys() == (theirs.keys() - {"client"} | {"close"} if plain is SyncVideoJobs else theirs.keys())
        for name in theirs.keys() & ours.keys() - {"connect"}:
            assert list(inspect.signature(ours[name]).parameters.items()) == list(
                inspect.signature(theirs[name]).parameters.items()
            ), name


def _all_methods(server: str) -> None:
    """Run in a thread: the worker of this test lives in the loop of the tests."""
    with SyncVideoJobs.connect(target_host=server) as jobs:
        job = jobs.submit(request("plain"))
        assert (job.existing, jobs.submit(request("plain")).existing, jobs.job(job.id).existing) == (False, True, None)
        assert job.submitted is not None
        assert job.submitted.phase == "checking"
        assert jobs.rules.check(request("plain")) == []
        with pytest.raises(TimeoutError):
            job.result(timeout=0.2)
        while (state := job.state()).phase != "running":
            time.sleep(0.05)
        assert state.detail is not None
        assert job.resolve(attempt=1, action="lost").accepted
        states = job.follow(every=0.1)
        assert next(states).phase == "running"
        assert job.cancel().outcome == "cancelled"
        assert [state.phase for state in states][-1] == "cancelled"
        assert job.resubmit(attempt=1).existing
        done = jobs.submit(request("plain done", "stored"))
        assert done.result(timeout=10) == RESULT
        assert jobs.find(done.id[9:]).id == done.id
        assert jobs.submit(request("plain done", "stored"), resubmit=Resubmit(attempt=1)).result() == RESULT
        with pytest.raises(errors.ProviderFailed, match="It broke"):
            jobs.submit(request("plain broken", "failed")).result(timeout=10)
        with pytest.raises(errors.InvalidRequest):
            jobs.submit(request("", "x"))
        with pytest.raises(errors.InvalidJobId):
            jobs.job("x")
        with pytest.raises(errors.UnknownJob):
            jobs.job("0" * 64).state()
        while not (listed := jobs.list(user="plain done")):
            time.sleep(0.05)
        assert [state.job_id for state in listed] == [state.job_id for state in jobs.runs(user="plain done")]
        assert [state.job_id for state in listed] == [done.id]
    with pytest.raises(RuntimeError):
        job.state()
    jobs.close()


async def test_all_methods(temporal: Client) -> None:
    await asyncio.to_thread(_all_methods, address(temporal))


async def test_many_threads_share_one_client(temporal: Client) -> None:
    def run() -> None:
        with SyncVideoJobs.connect(target_host=address(temporal)) as jobs, ThreadPoolExecutor(8) as threads:
            results = threads.map(lambda n: jobs.submit(request(f"thread {n}", "stored")).result(timeout=20), range(8))
            assert [*results] == [RESULT] * 8

    await asyncio.to_thread(run)


async def test_abandoned_follow_ends_with_the_client(temporal: Client) -> None:
    def run() -> None:
        with SyncVideoJobs.connect(target_host=address(temporal)) as jobs:
            states: Iterator[object] = jobs.submit(request("abandoned")).follow(every=0.1)
            next(states)

    await asyncio.wait_for(asyncio.to_thread(run), 10)
    await handle(temporal, request("abandoned")).terminate()


async def test_unreachable_server_ends_no_thread_late() -> None:
    with pytest.raises(errors.TemporalUnavailable, match="cannot be reached"):
        await asyncio.to_thread(SyncVideoJobs.connect, target_host="127.0.0.1:1")


_FORK = """
import asyncio, os, sys, time
from seedance_temporal import ProcessForked, SyncVideoJobs, VideoJobs, VideoRequest, connect

server = sys.argv[1]
request = VideoRequest(user_id=sys.argv[2], route="byteplus", model="dreamina-seedance-2-0-260128", prompt="hold")

def in_child(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            sys.stdout.flush()
            os._exit(0)
    deadline = time.monotonic() + 15
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            sys.exit("the child hangs")
        time.sleep(0.05)

def says(name, call):
    try:
        print(name, "returned", call())
    except ProcessForked as error:
        print(name, error)

"""
_AFTER = """
def work():
    with SyncVideoJobs.connect(target_host=server) as jobs:
        print("child", jobs.submit(request).existing)

in_child(work)
in_child(work)
print("parent", SyncVideoJobs.connect(target_host=server).submit(request).existing)
"""
_BEFORE = """
jobs = SyncVideoJobs.connect(target_host=server)
job = jobs.submit(request)
plain = asyncio.run(VideoJobs.connect(target_host=server))

def work():
    says("state", job.state)
    says("follow", lambda: next(job.follow()))
    says("submit", lambda: jobs.submit(request))
    says("async", lambda: asyncio.run(plain.submit(request)))
    says("async state", lambda: asyncio.run(plain.job(job.id).state()))
    says("connect", lambda: asyncio.run(connect(target_host=server)))
    says("sync connect", lambda: SyncVideoJobs.connect(target_host=server))
    jobs.close()
    print("closed")

in_child(work)
print("parent", job.state().phase)
jobs.close()
"""
# The thread that brings an answer needs the interpreter once more: here it must ask for it longest.
_ENDS = """
sys.setswitchinterval(5)
print("ends", SyncVideoJobs.connect(target_host=server).submit(request).existing)
"""


async def _forked(temporal: Client, user: str, script: str) -> list[str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error::RuntimeWarning", "-c", _FORK + script, address(temporal), user],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "never awaited" not in done.stderr
    return done.stdout.splitlines()


async def test_fork_after_connecting_fails_at_once(temporal: Client) -> None:
    *refusals, closed, parent = await _forked(temporal, "forked before", _BEFORE)
    names = ["state", "follow", "submit", "async", "async state", "connect", "sync connect"]
    assert [line.partition(" This process")[0] for line in refusals] == names
    assert all("Connect after the fork: once in each worker process" in line for line in refusals)
    assert (closed, parent) == ("closed", "parent running")


async def test_connecting_after_the_fork_works(temporal: Client) -> None:
    assert await _forked(temporal, "forked after", _AFTER) == ["child False", "child True", "parent True"]


@pytest.mark.parametrize("seconds", [0.0, 0.002])
def test_close_ends_the_calls_of_other_threads(seconds: float) -> None:
    """A call that was scheduled behind the end of the loop waited for ever."""
    loop = _LoopThread()
    said: list[str] = []

    def call() -> None:
        while True:
            try:
                loop.call(asyncio.sleep(seconds))
            except CancelledError:
                continue
            except RuntimeError as error:
                said.append(str(error))
                return

    threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    loop.close()
    for thread in threads:
        thread.join(20)
    assert said == ["this SyncVideoJobs is closed"] * 4


def test_many_may_close_at_once() -> None:
    for _ in range(200):
        loop = _LoopThread()
        with ThreadPoolExecutor(3) as pool:
            for closed in [pool.submit(loop.close) for _ in range(3)]:
                closed.result(20)


def test_signal_handler_may_close() -> None:
    loop = _LoopThread()
    with loop._scheduling:  # as in a call that a signal interrupts
        loop.close()
    with pytest.raises(RuntimeError):
        loop.call(asyncio.sleep(0))


async def test_programs_that_end_after_an_answer_end_cleanly(temporal: Client) -> None:
    """Without the moment that the SDK's thread is left, 3 of 100 such programs crashed."""
    four = asyncio.Semaphore(4)

    async def ended(number: int) -> list[str]:
        async with four:
            return await _forked(temporal, f"ends {number}", _ENDS)

    assert await asyncio.gather(*(ended(number) for number in range(24))) == [["ends False"]] * 24
