"""Answer ``/healthz`` and ``/readyz`` of a worker over HTTP, for probes of containers and load balancers.

The responder reads one short request of a connection, and closes it: slow, long and many requests cost it little.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.listen_address import parse_address

# Of a request: its line and its headers.
_MOST_BYTES = 8 * 1024
_REQUEST_SECONDS = 2.0
_MOST_AT_ONCE = 20
_ASK_SECONDS = 2.0
# Probes within this time share an answer, so that many of them do not become calls to Temporal.
ANSWER_IS_FRESH_SECONDS = 5.0
# A poll lasts for a minute, and Temporal notes a poller at the beginning of each.
_POLLED_WITHIN = timedelta(minutes=3)
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_log = logging.getLogger(__name__)


class Readiness:
    """Whether a worker does its work: its workers run, and Temporal has seen it poll.

    ``why_not`` is None where it does.
    """

    def __init__(self) -> None:
        self._client: Client | None = None
        self._workers: Sequence[Worker] = ()
        self._queue = ""
        self._stops = False
        self._answer: tuple[float, str | None] | None = None
        self._asking = asyncio.Lock()

    def serve(self, client: Client, workers: Sequence[Worker], queue: str) -> None:
        """Note that the workers begin. ``queue``: the task queue of their workflows."""
        self._client, self._workers, self._queue = client, workers, queue

    def stop(self) -> None:
        """Note that the process shuts down."""
        self._stops = True

    async def why_not(self) -> str | None:
        """Return why the worker is not ready, in a few words; None where it is."""
        if self._stops:
            return "shutting down"
        if self._client is None:
            return "not connected to Temporal"
        if not all(worker.is_running for worker in self._workers):
            return "a worker has stopped"
        async with self._asking:
            if self._answer is None or time.monotonic() - self._answer[0] > ANSWER_IS_FRESH_SECONDS:
                self._answer = time.monotonic(), await self._ask(self._client)
            return self._answer[1]

    async def _ask(self, client: Client) -> str | None:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=self._queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            answer = await client.workflow_service.describe_task_queue(request, timeout=timedelta(seconds=_ASK_SECONDS))
        except RPCError as error:
            return f"Temporal answered {error.status.name}"
        since = datetime.now(UTC) - _POLLED_WITHIN
        own = (poller for poller in answer.pollers if poller.identity == client.identity)
        if not any(poller.last_access_time.ToDatetime(UTC) > since for poller in own):
            return "Temporal has not seen this worker poll"
        return None


@contextlib.asynccontextmanager
async def health_server(address: str | None, readiness: Readiness) -> AsyncIterator[None]:
    """Answer probes at an address for as long as the block runs; do nothing without one.

    Raises:
        InvalidSettings: Nothing can listen there.
    """
    if address is None:
        yield
        return
    host, port = parse_address(address)
    try:
        server = await asyncio.start_server(_Responder(readiness.why_not).answer, host, port, limit=_MOST_BYTES)
    except OSError as error:
        raise InvalidSettings(
            f"SEEDANCE_HEALTH_ADDRESS: nothing can listen on {address} ({error.strerror}); "
            "name a free port of this host"
        ) from None
    async with server:
        yield


class _Responder:
    def __init__(self, why_not: Callable[[], Awaitable[str | None]]) -> None:
        self._why_not = why_not
        self._at_once = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        if self._at_once >= _MOST_AT_ONCE:
            writer.transport.abort()
            return
        self._at_once += 1
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, text = await self._response(head.split(b"\r\n", 1)[0])
            body = f"{text}\n".encode()
            writer.write(
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            )
            writer.write(b"" if head.startswith(b"HEAD ") else body)
            async with asyncio.timeout(_REQUEST_SECONDS):
                await writer.drain()
            writer.close()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Slow, cut, or longer than any probe.
            writer.transport.abort()
        finally:
            self._at_once -= 1

    async def _response(self, line: bytes) -> tuple[int, str]:
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, "not HTTP"
        method, path, _ = words
        if path not in {b"/healthz", b"/readyz"}:
            return 404, "not found"
        if method not in {b"GET", b"HEAD"}:
            return 405, "use GET"
        if path == b"/healthz":
            return 200, "ok"
        why_not = await self._why_not()
        return (200, "ok") if why_not is None else (503, why_not)
