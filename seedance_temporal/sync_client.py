"""The client without ``await``, for Django, Flask, Celery and scripts.

One event loop runs in a thread of its own; any number of threads may call. It belongs to the process that connected.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Self, TypeVar, Unpack

from seedance_temporal.client import VideoJobs
from seedance_temporal.connection import require_same_process
from seedance_temporal.contract import CancelAnswer, ResolveAction, ResolveAnswer, Resubmit
from seedance_temporal.gate_contract import Hold
from seedance_temporal.handle import VideoJob
from seedance_temporal.job import JobState, VideoResult
from seedance_temporal.places import Place
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.visibility import Wanted

_T = TypeVar("_T")


class _LoopThread:
    """An event loop in a thread, for the process that made it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._closed = False
        # A call that is scheduled behind the stop would never end. A signal handler may close while its thread calls.
        self._scheduling = threading.RLock()
        self._thread = threading.Thread(target=self._serve, name="seedance-jobs", daemon=True)
        self._thread.start()
        # A program need not call `close`; a loop that runs while the interpreter is taken down may crash it.
        atexit.register(self.close)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stop.wait())

    def call(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop, and wait for its end."""
        try:
            require_same_process()
            with self._scheduling:
                if self._closed:
                    raise RuntimeError("this SyncVideoJobs is closed")
                future = asyncio.run_coroutine_threadsafe(call, self._loop)
        except BaseException:
            call.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, of: AsyncIterator[_T]) -> Iterator[_T]:
        async def following() -> _T | None:
            return await anext(of, None)

        while (item := self.call(following())) is not None:
            yield item

    def close(self) -> None:
        if self._process == os.getpid():
            with self._scheduling:
                if not self._closed:
                    self._closed = True
                    self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        atexit.unregister(self.close)


class SyncVideoJobs:
    """:class:`~seedance_temporal.VideoJobs` for code that does not await; the same attributes, methods and errors.

    Make it with :meth:`connect`, once in each process. After :meth:`close`, every call raises RuntimeError.
    """

    def __init__(self, jobs: VideoJobs, loop: _LoopThread) -> None:
        self._jobs = jobs
        self._loop = loop
        self.rules = jobs.rules

    @classmethod
    def connect(cls, *, settings: Settings | None = None, **overrides: Any) -> Self:
        """Connect as :meth:`VideoJobs.connect <seedance_temporal.VideoJobs.connect>` does."""
        require_same_process()
        loop = _LoopThread()
        try:
            return cls(loop.call(VideoJobs.connect(settings=settings, **overrides)), loop)
        except BaseException:
            loop.close()
            raise

    def close(self) -> None:
        """End the connection. Jobs go on."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        request: VideoRequest,
        *,
        resubmit: Resubmit | None = None,
        may_create: bool = True,
        batch: bool = False,
    ) -> SyncVideoJob:
        """See :meth:`VideoJobs.submit <seedance_temporal.VideoJobs.submit>`."""
        submitted = self._jobs.submit(request, resubmit=resubmit, may_create=may_create, batch=batch)
        return self._of(self._loop.call(submitted))

    def job(self, job_id: str) -> SyncVideoJob:
        """See :meth:`VideoJobs.job <seedance_temporal.VideoJobs.job>`."""
        return self._of(self._jobs.job(job_id))

    def find(self, prefix: str) -> SyncVideoJob:
        """See :meth:`VideoJobs.find <seedance_temporal.VideoJobs.find>`."""
        return self._of(self._loop.call(self._jobs.find(prefix)))

    def list(self, *, limit: int | None = 100, **wanted: Unpack[Wanted]) -> list[JobState]:
        """See :meth:`VideoJobs.list <seedance_temporal.VideoJobs.list>`."""
        return self._loop.call(self._jobs.list(limit=limit, **wanted))

    def take_over(self, request: VideoRequest) -> SyncVideoJob:
        """See :meth:`VideoJobs.take_over <seedance_temporal.VideoJobs.take_over>`."""
        return self._of(self._loop.call(self._jobs.take_over(request)))

    def bring_back(self, job_id: str, request: VideoRequest) -> bool:
        """See :meth:`VideoJobs.bring_back <seedance_temporal.VideoJobs.bring_back>`."""
        return self._loop.call(self._jobs.bring_back(job_id, request))

    def runs(self, **wanted: Unpack[Wanted]) -> Iterator[JobState]:
        """See :meth:`VideoJobs.runs <seedance_temporal.VideoJobs.runs>`."""
        return self._loop.iterate(self._jobs.runs(**wanted))

    def pause(self, route: str, *, why: str = "") -> None:
        """See :meth:`VideoJobs.pause <seedance_temporal.VideoJobs.pause>`."""
        self._loop.call(self._jobs.pause(route, why=why))

    def unpause(self, route: str) -> None:
        """See :meth:`VideoJobs.unpause <seedance_temporal.VideoJobs.unpause>`."""
        self._loop.call(self._jobs.unpause(route))

    def held(self, route: str) -> tuple[Hold, ...]:
        """See :meth:`VideoJobs.held <seedance_temporal.VideoJobs.held>`."""
        return self._loop.call(self._jobs.held(route))

    def _of(self, job: VideoJob) -> SyncVideoJob:
        return SyncVideoJob(job, self._loop)


class SyncVideoJob:
    """:class:`~seedance_temporal.VideoJob` for code that does not await; the same attributes, methods and errors."""

    def __init__(self, job: VideoJob, loop: _LoopThread) -> None:
        self._job = job
        self._loop = loop
        self.id = job.id
        self.submitted = job.submitted
        self.existing = job.existing
        self.started = job.started

    def __repr__(self) -> str:
        return f"SyncVideoJob({self.id!r})"

    def result(self, timeout: float | None = None) -> VideoResult:
        """See :meth:`VideoJob.result <seedance_temporal.VideoJob.result>`."""
        return self._loop.call(self._job.result(timeout))

    def state(self, *, detail: bool = True) -> JobState:
        """See :meth:`VideoJob.state <seedance_temporal.VideoJob.state>`."""
        return self._loop.call(self._job.state(detail=detail))

    def follow(self, every: float = 2) -> Iterator[JobState]:
        """See :meth:`VideoJob.follow <seedance_temporal.VideoJob.follow>`."""
        return self._loop.iterate(self._job.follow(every))

    def cancel(self) -> CancelAnswer:
        """See :meth:`VideoJob.cancel <seedance_temporal.VideoJob.cancel>`."""
        return self._loop.call(self._job.cancel())

    def resubmit(self, *, attempt: int, accept_second_charge: bool = False) -> SyncVideoJob:
        """See :meth:`VideoJob.resubmit <seedance_temporal.VideoJob.resubmit>`."""
        job = self._job.resubmit(attempt=attempt, accept_second_charge=accept_second_charge)
        return SyncVideoJob(self._loop.call(job), self._loop)

    def failing(self) -> list[str]:
        """See :meth:`VideoJob.failing <seedance_temporal.VideoJob.failing>`."""
        return self._loop.call(self._job.failing())

    def place(self) -> Place | None:
        """See :meth:`VideoJob.place <seedance_temporal.VideoJob.place>`."""
        return self._loop.call(self._job.place())

    def retry(self) -> bool:
        """See :meth:`VideoJob.retry <seedance_temporal.VideoJob.retry>`."""
        return self._loop.call(self._job.retry())

    def held(self) -> Hold | None:
        """See :meth:`VideoJob.held <seedance_temporal.VideoJob.held>`."""
        return self._loop.call(self._job.held())

    def resolve(self, *, attempt: int, action: ResolveAction, task_id: str | None = None) -> ResolveAnswer:
        """See :meth:`VideoJob.resolve <seedance_temporal.VideoJob.resolve>`."""
        return self._loop.call(self._job.resolve(attempt=attempt, action=action, task_id=task_id))
