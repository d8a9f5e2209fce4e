"""Jobs of every path through a day of trouble, in simulated time: such a day takes a second."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from temporalio.contrib.pydantic import pydantic_data_converter

from seedance_temporal import contract
from seedance_temporal.contract import GenerateVideoInput, Queues
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, JobState
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from tests.faults.outages import Errands, Job, Path
from tests.faults.simulated import Life, SimulatedBucket, SimulatedProvider, Trouble
from tests.model.client import ModelClient
from tests.model.executions import Executions, activities_of
from tests.model.run import simulated
from tests.model.server import Server
from tests.support.jobs import KEY, a_request, detail_of, some_settings
from tests.support.stores import PNG, VIDEO

_LONGEST = timedelta(days=10)
_LOOK_SECONDS = 60.0
# A replay costs as much as the run so far.
_STEPS_TO_A_REPLAY = 100
# As the real server does.
_RENEW_AFTER = 4_096


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
        server = Server("n0", loop, Executions(), single_batch=single_batch)
        server.client = client = ModelClient(server)
        server.renew_after = _RENEW_AFTER
        steps = itertools.count(1)
        server.evicts = lambda: next(steps) % _STEPS_TO_A_REPLAY == 0
        settings = some_settings(
            seedance_callback_url="https://relay.example.com",
            seedance_callback_secret=SecretStr("a secret of the relay"),
        )
        life = Life(trouble)
        bucket, provider = SimulatedBucket(life), SimulatedProvider(VIDEO, PNG, life, **path.provider)
        ark = Ark("https://ark.example.com/api/v3", KEY, transport=provider.transport, list_spacing=0)
        server.executions.activities = activities_of(bucket, ark, settings, provider.result_transport)
        if path.lists:
            ledger = Ledger(bucket.inner, settings.seedance_prefix)
            loop.run_until_complete(ledger.note_identifiers_listed(settings.ark_route, settings.key_fingerprint))
        request = a_request(return_last_frame=True)
        job_id = job_id_of(request)
        errands = Errands(client, path, job_id, provider)
        life.before_each = errands.run
        provider.after_post = errands.after_post
        server.start(contract.WORKFLOW, job_id, Queues(request.route).workflows, GenerateVideoInput(request=request))
        began, raised = loop.time(), list[tuple[datetime, str, str]]()
        while any(run.open for run in server.runs):
            loop.run_until_complete(asyncio.sleep(_LOOK_SECONDS))
            now = datetime.fromtimestamp(loop.now(), UTC)
            # A job that only waits makes no requests.
            loop.run_until_complete(errands.run(now))
            # A long timeline leaves out its middle.
            state = _state(server, job_id)
            if state.attention is not None and (not raised or raised[-1][1:] != _need(state)):
                raised.append((now, *_need(state)))
            assert loop.time() - began < _LONGEST.total_seconds(), "the job does not end"
        last = server.newest(job_id)
        assert last is not None
        assert errands.failed == []
        error = None
        if last.failure is not None:
            details = last.failure.application_failure_info.details.payloads
            error = pydantic_data_converter.payload_converter.from_payloads(details, [JobError])[0]
        return Job(
            path=path,
            state=_state(server, job_id),
            error=error,
            trouble=trouble,
            life=life,
            provider=provider,
            bucket=bucket,
            callbacks=errands.callbacks,
            answers=errands.answers,
            raised=raised,
            histories=[(run.events, run.hosted.bytes) for run in server.runs if run.workflow_id == job_id],
            closed_at=datetime.fromtimestamp(loop.now(), UTC),
        )


def _state(server: Server, job_id: str) -> JobState:
    run = server.newest(job_id)
    assert run is not None
    state: JobState = run.hosted.object.state()
    return state


def _need(state: JobState) -> tuple[str, str]:
    return str(state.attention), detail_of(state).advice or ""
