"""The webhook relay: check a callback's URL, and signal the job that a task may have changed.

The provider does not sign callbacks. The URL authenticates one: only the worker and the provider know it. The body is
not trusted: the workflow gets the task from the provider. The relay has no state, so any number may run.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import MetricMeter
from temporalio.service import RPCError

from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import (
    SEEDANCE_TASK_ID,
    SIGNAL_TASK_CHANGED,
    Queues,
    TaskChanged,
)
from seedance_temporal.errors import InvalidJobId, SeedanceError
from seedance_temporal.identity import callback_token, hash_of_job
from seedance_temporal.late_tasks import ask_later
from seedance_temporal.metrics import CALLBACKS
from seedance_temporal.provider.task import usable_task_id
from seedance_temporal.request_body import HANG_UP, read_body

ClientSource = Callable[[], Awaitable[Client]]
# Callbacks are far smaller. A proxy in front of the relay has a limit of its own: see docs/how-to/relay.md.
MAX_BODY_BYTES = 64 * 1024
# The provider waits 5 seconds for its answer.
ANSWER_WITHIN_SECONDS = 4
# So many are passed on within that time; of more, each is refused at once, and the provider sends it again.
_MOST_AT_ONCE = 500
_PROBE_SECONDS = 2.0
# Anybody can ask whether the relay is ready; it asks Temporal at most this often.
PROBE_IS_FRESH_SECONDS = 5.0
# No job has this id, for which any would need a hash.
_NO_JOB = "seedance-probe-of-a-relay"
# The provider sends some twenty callbacks of an attempt, repetitions included. More come of a leaked URL.
_MOST_OF_AN_ATTEMPT = 100
_SECONDS_TO_ONE_MORE = 60
_MOST_ATTEMPTS = 10_000
_RESULTS = {200: "passed_on", 400: "no_task", 404: "not_ours", 413: "too_large", 429: "too_many"}
_ATTEMPT = re.compile(r"[1-9][0-9]{0,3}")
_log = logging.getLogger(__name__)


class _Callback(BaseModel):
    """The fields of a body that are used. Both become part of the job's history, hence the limits."""

    id: Annotated[str, StringConstraints(strict=True), AfterValidator(usable_task_id)]
    status: Annotated[str, StringConstraints(strict=True, max_length=256)]


def relay_app(
    client_source: ClientSource, secrets: Sequence[str], *, meter: MetricMeter = MetricMeter.noop
) -> Starlette:
    """Make the relay as an ASGI application, to be served alone or mounted under a path of another one.

    It needs no lifespan events, which do not reach a mounted application: it connects at the first callback, and
    answers 503 while that fails. ``SEEDANCE_CALLBACK_URL`` is the public URL of its mount point.

    Args:
        client_source: Connects to Temporal, as :func:`seedance_temporal.connect` does; called until it succeeds.
        secrets: The HMAC secrets that are accepted: one, or two during a rotation.
        meter: Counts callbacks, such as ``Runtime.metric_meter`` of Temporal's SDK; by default nothing does.

    Raises:
        ValueError: There is no secret, or an empty one, with which anybody could make a callback URL.
    """
    if not secrets or not all(secrets):
        raise ValueError("the relay needs a secret, and none of its secrets may be empty")
    relay = _Relay(client_source, secrets, meter)
    app = Starlette(
        routes=[
            Route("/callbacks/{job_id}/{attempt}/{token}", relay.callback, methods=["POST"]),
            Route("/healthz", _healthz),
            Route("/readyz", relay.readyz),
        ],
    )
    # A redirect to the path with or without a slash would reveal that the path exists.
    app.router.redirect_slashes = False
    return app


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


class _Relay:
    def __init__(self, client_source: ClientSource, secrets: Sequence[str], meter: MetricMeter) -> None:
        self._client_source = client_source
        self._secrets = tuple(secrets)
        self._meter = meter
        self._connection: asyncio.Future[Client] | None = None
        self._at_once = 0
        self._probing = asyncio.Lock()
        self._probed: tuple[float, str | None] = (float("-inf"), None)
        # By job and attempt: how many callbacks are left, and when that was counted.
        self._left: dict[tuple[str, int], tuple[float, float]] = {}

    async def readyz(self, _: Request) -> Response:
        """Answer 200 where Temporal takes signals, else 503. Probes within some seconds share an answer."""
        async with self._probing:
            probed_at, problem = self._probed
            if time.monotonic() - probed_at > PROBE_IS_FRESH_SECONDS:
                problem = await self._why_not_ready()
                self._probed = time.monotonic(), problem
        return PlainTextResponse(f"{problem or 'ok'}\n", 200 if problem is None else 503)

    async def _why_not_ready(self) -> str | None:
        """Signal a job that cannot exist: its absence is the answer of a server that would have taken the signal."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                client = await self._connected()
                await client.get_workflow_handle(_NO_JOB).signal(SIGNAL_TASK_CHANGED)
        except RPCError as error:
            return None if is_unknown_workflow(error) else f"Temporal answered {error.status.name}"
        except (TimeoutError, SeedanceError, RuntimeError):
            return "Temporal does not answer"
        return f"a workflow {_NO_JOB} runs; end it"

    async def callback(self, request: Request) -> Response:
        """Answer one callback: 200 where Temporal has the signal, or the job is closed or unknown."""
        status = 500
        try:
            response = await self._answer(request)
            status = response.status_code
            return response
        except HTTPException as refused:
            status = refused.status_code
            raise
        finally:
            CALLBACKS.add(self._meter, result=_RESULTS.get(status, "unavailable"))

    async def _answer(self, request: Request) -> Response:
        job_id, attempt_text, token = (request.path_params[name] for name in ("job_id", "attempt", "token"))
        if not self._is_ours(job_id, attempt_text, token):
            _log.warning("a callback whose URL is not one of ours")
            raise HTTPException(404)
        attempt = int(attempt_text)
        if self._at_once >= _MOST_AT_ONCE:
            _log.warning("callback for %s attempt %d refused: %d are being passed on", job_id, attempt, self._at_once)
            raise HTTPException(503, "Try again later", {"Retry-After": "5"} | HANG_UP)
        if not self._allows(job_id, attempt):
            _log.warning("callback for %s attempt %d refused: it had too many of them", job_id, attempt)
            raise HTTPException(429, "Too many for this job", {"Retry-After": "60"} | HANG_UP)
        self._at_once += 1
        try:
            async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
                seen = _Callback.model_validate_json(await read_body(request, MAX_BODY_BYTES))
                await self._signal(job_id, TaskChanged(task_id=seen.id, status=seen.status, attempt=attempt))
        except ValidationError:
            raise HTTPException(400, "Not a task") from None
        except ClientDisconnect:
            return Response(status_code=400)  # the sender is gone
        except (TimeoutError, RPCError, SeedanceError, RuntimeError) as error:
            # A client that could not connect raises RuntimeError.
            _log.warning("callback for %s attempt %d not passed on: %s", job_id, attempt, error or "no answer in time")
            raise HTTPException(503, "Try again later", {"Retry-After": "5"} | HANG_UP) from None
        finally:
            self._at_once -= 1
        _log.info("callback for %s attempt %d: %.40r", job_id, attempt, seen.status)
        return PlainTextResponse("ok\n")

    def _is_ours(self, job_id: str, attempt: str, token: str) -> bool:
        try:
            hash_of_job(job_id)
        except InvalidJobId:
            return False
        if not _ATTEMPT.fullmatch(attempt):
            return False
        given = token.encode()
        # All are compared, each in constant time: the time does not reveal how much of one matches.
        matches = [
            hmac.compare_digest(given, callback_token(secret, job_id, int(attempt)).encode())
            for secret in self._secrets
        ]
        return any(matches)

    def _allows(self, job_id: str, attempt: int) -> bool:
        """Limit what a leaked URL does to a job: each callback makes its history longer, and a worker replays that."""
        now, key = time.monotonic(), (job_id, attempt)
        left, counted_at = self._left.pop(key, (_MOST_OF_AN_ATTEMPT, now))
        left = min(_MOST_OF_AN_ATTEMPT, left + (now - counted_at) / _SECONDS_TO_ONE_MORE)
        self._left[key] = max(left - 1, 0.0) if left >= 1 else left, now
        if len(self._left) > _MOST_ATTEMPTS:
            del self._left[next(iter(self._left))]
        return left >= 1

    async def _signal(self, job_id: str, change: TaskChanged) -> None:
        """Signal the job, and never start it: a callback must not be able to start, and pay for, a job."""
        client = await self._connected()
        try:
            await client.get_workflow_handle(job_id).signal(SIGNAL_TASK_CHANGED, change)
        except RPCError as error:
            if not is_unknown_workflow(error):
                raise
            await _take_in_late(client, job_id, change)

    async def _connected(self) -> Client:
        """Connect once for all callbacks. It goes on where a callback has no time left for it."""
        connection = self._connection
        if connection is None or (connection.done() and _failed(connection)):
            connection = self._connection = asyncio.ensure_future(self._client_source())
            connection.add_done_callback(_failed)
        return await asyncio.shield(connection)


async def _take_in_late(client: Client, job_id: str, change: TaskChanged) -> None:
    """Take in a callback for a run that has ended, unless it is about the task that the run followed to its end."""
    try:
        run = await client.get_workflow_handle(job_id).describe()
    except RPCError as error:
        if not is_unknown_workflow(error):
            raise
        _log.info("callback for %s: unknown, there is nothing to do", job_id)
        return
    by_itself = run.status in {WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.FAILED}
    if by_itself and run.typed_search_attributes.get(SEEDANCE_TASK_ID) == change.task_id:
        _log.info("callback for %s: it has ended, there is nothing to do", job_id)
        return
    route = run.task_queue.removeprefix(Queues("").workflows)
    await ask_later(client, job_id, route, change)
    _log.info("callback for %s: it has ended; whether the task is one of it is found out", job_id)


def _failed(connection: asyncio.Future[Client]) -> bool:
    """Return whether a connection failed. Its callbacks say so; where none waits any more, nobody needs to know."""
    return connection.cancelled() or connection.exception() is not None
