"""Jobs through a day of trouble, in simulated time: such a day takes a second for each job."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from temporalio.contrib.pydantic import pydantic_data_converter

from seedance_temporal import contract
from seedance_temporal.contract import GenerateVideoInput, Queues
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, JobState
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import VideoRequest
from tests.faults.outages import Errands, Job, Path
from tests.faults.simulated import Life, SimulatedBucket, SimulatedProvider, Trouble
from tests.model.client import ModelClient
from tests.model.clock import JumpingLoop
from tests.model.executions import Executions, activities_of
from tests.model.run import simulated
from tests.model.server import Run, Server
from tests.support.jobs import KEY, a_request, detail_of, some_settings
from tests.support.stores import PNG, VIDEO

_LONGEST = timedelta(days=10)
_LOOK_SECONDS = 60.0
# A replay costs as much as the run so far.
_STEPS_TO_A_REPLAY = 100
# As the real server does.
_RENEW_AFTER = 4_096


class Day:
    """The parts around the jobs of a route: a server, its workers, a bucket and a provider, which can be in trouble.

    Args:
        single_batch: Whether what arrives at once is delivered as a coming SDK will do.
        lists: Whether LIST is known to show identifiers.
        provider: How the provider behaves, as :class:`SimulatedProvider` takes it.
    """

    def __init__(
        self,
        loop: JumpingLoop,
        trouble: Trouble | None,
        *,
        single_batch: bool = False,
        lists: bool = True,
        **provider: Any,
    ) -> None:
        self._loop = loop
        self._began = loop.time()
        self.server = server = Server("n0", loop, Executions(), single_batch=single_batch)
        server.client = self.client = ModelClient(server)
        server.renew_after = _RENEW_AFTER
        steps = itertools.count(1)
        server.evicts = lambda: next(steps) % _STEPS_TO_A_REPLAY == 0
        settings = some_settings(
            seedance_callback_url="https://relay.example.com",
            seedance_callback_secret=SecretStr("a secret of the relay"),
            seedance_max_jobs_per_user_day=100_000,
        )
        self.life = Life(trouble)
        self.bucket = SimulatedBucket(self.life)
        self.provider = SimulatedProvider(VIDEO, PNG, self.life, **provider)
        ark = Ark("https://ark.example.com/api/v3", KEY, transport=self.provider.transport, list_spacing=0)
        server.executions.activities = activities_of(self.bucket, ark, settings, self.provider.result_transport)
        if lists:
            ledger = Ledger(self.bucket.inner, settings.seedance_prefix)
            loop.run_until_complete(ledger.note_identifiers_listed(settings.ark_route, settings.key_fingerprint))

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._loop.now(), UTC)

    def start(self, request: VideoRequest) -> str:
        """Start a job; return its id."""
        job_id, queue = job_id_of(request), Queues(request.route).workflows
        self.server.start(contract.WORKFLOW, job_id, queue, GenerateVideoInput(request=request))
        return job_id

    def looks(self) -> Iterator[None]:
        """Let a minute pass, again and again, until all runs have ended."""
        while any(run.open for run in self.server.runs):
            self._loop.run_until_complete(asyncio.sleep(_LOOK_SECONDS))
            yield
            assert self._loop.time() - self._began < _LONGEST.total_seconds(), "the job does not end"

    def do(self, errand: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(errand)

    def state(self, job_id: str) -> JobState:
        state: JobState = self._newest(job_id).hosted.object.state()
        return state

    def error(self, job_id: str) -> JobError | None:
        """Return how a job ended without a video."""
        if (failure := self._newest(job_id).failure) is None:
            return None
        details = failure.application_failure_info.details.payloads
        error: JobError = pydantic_data_converter.payload_converter.from_payloads(details, [JobError])[0]
        return error

    def closed_at(self, job_id: str) -> datetime:
        """Return when a job ended; the small workflow of late tasks can run on."""
        closed_at = self._newest(job_id).closed_at
        assert closed_at is not None
        return datetime.fromtimestamp(closed_at, UTC)

    def histories(self, workflow_id: str) -> list[tuple[int, int]]:
        """Return events and bytes of each run."""
        return [(run.events, run.hosted.bytes) for run in self.runs(workflow_id)]

    def runs(self, workflow_id: str) -> list[Run]:
        return [run for run in self.server.runs if run.workflow_id == workflow_id]

    def _newest(self, job_id: str) -> Run:
        return self.runs(job_id)[-1]


def play(path: Path, trouble: Trouble | None = None, *, single_batch: bool = False) -> Job:
    """Run a job of a path to its end, through trouble.

    Args:
        single_batch: Whether what arrives at once is delivered as a coming SDK will do.

    Raises:
        AssertionError: It does not end.
    """
    # The product's jitter.
    random.seed(0)
    with simulated() as loop:
        day = Day(loop, trouble, single_batch=single_batch, lists=path.lists, **path.provider)
        request = a_request(return_last_frame=True)
        errands = Errands(day.client, path, job_id_of(request), day.provider)
        day.life.before_each = errands.run
        day.provider.after_post = errands.after_post
        job_id, raised = day.start(request), list[tuple[datetime, str, str]]()
        for _ in day.looks():
            # A job that only waits makes no requests.
            day.do(errands.run(day.now))
            # A long timeline leaves out its middle.
            state = day.state(job_id)
            if state.attention is not None and (not raised or raised[-1][1:] != _need(state)):
                raised.append((day.now, *_need(state)))
        assert errands.failed == []
        return Job(
            path=path,
            state=day.state(job_id),
            error=day.error(job_id),
            trouble=trouble,
            life=day.life,
            provider=day.provider,
            bucket=day.bucket,
            callbacks=errands.callbacks,
            answers=errands.answers,
            raised=raised,
            histories=day.histories(job_id),
            closed_at=day.closed_at(job_id),
        )


def _need(state: JobState) -> tuple[str, str]:
    return str(state.attention), detail_of(state).advice or ""
