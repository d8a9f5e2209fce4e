"""The client of the provider's task API, and the one table that classifies answers to a create.

A create is sent at most once per call, without transport retries and redirects. Each has a fresh connection: on a
stale one, a request that was never sent would count as a lost answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from seedance_temporal.paced import PacedTransport
from seedance_temporal.provider.answers import (
    MOST_BYTES,
    MOST_BYTES_OF_LIST,
    Answer,
    aside,
    cleared_task,
    is_usable_id,
    read_answer,
)
from seedance_temporal.provider.create_answer import CreateAnswer
from seedance_temporal.provider.refusals import attention_of, can_pass, is_for_all, retry_after, seconds_until_reset
from seedance_temporal.provider.task import MOST, is_task_id, parse_task, quoted_id, refusal_class
from seedance_temporal.proxies import proxy_for, usual_tls
from seedance_temporal.urls import redacted

_TASKS = "/contents/generations/tasks"
# Connecting is free to repeat; everything after it is bounded by the caller's total time.
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
# Total time of a GET, LIST or DELETE: an answer can come byte by byte.
_ANSWER_SECONDS = 50.0
_NO_SUCH_TASK = ("ResourceNotFound", "NotFound.")
_LISTED = ("id", "status", "model", "created_at", "safety_identifier")
_LONGEST_CODE = 200
_LONGEST_MESSAGE = 1000
# More than a second: a rate limit by arrival must not count two calls in one second.
LIST_SPACING_SECONDS = 1.1


_ACCEPTED_WITHOUT_ID = CreateAnswer("accepted_without_id", "no_task_id", "accepted, but the task id could not be read")
_ACCEPTED_WITH_ODD_ID = CreateAnswer(
    "accepted_without_id", "unusable_task_id", "accepted, but the task id could not be used"
)


class ArkError(Exception):
    """The provider refused a get, list or delete, or its answer is not the expected one.

    Attributes:
        status: The HTTP status.
        code, message: The provider's, without secrets; the code is empty where the answer had no envelope.
        attention: Set where an operator must act.
        needs_model: Whether LIST was refused because the API key is Custom, and the request names no model.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.attention = attention_of(status, code, message)
        self.needs_model = status == httpx.codes.BAD_REQUEST and "filter.model" in message
        super().__init__(f"HTTP {status} {code}: {message}")


class NoAnswer(httpx.TransportError):
    """The provider gave no answer. The message holds no part of the request."""


@dataclass(frozen=True)
class TaskPage:
    """One page of LIST: the payloads, the number of all tasks that match, and the time of the request."""

    items: list[dict[str, Any]]
    total: int
    asked_at: datetime


class _Sending:
    """The progress of a request, by the trace events of its transport."""

    def __init__(self) -> None:
        self._events: set[str] = set()
        self._asks_proxy = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        event = event.partition(".")[2]
        if event == "send_request_headers.started":
            # A proxy is first asked to connect, by a request of its own.
            self._asks_proxy = getattr(info.get("request"), "method", None) == b"CONNECT"
        if not (self._asks_proxy and "send_request" in event):
            self._events.add(event)

    def sent_nothing(self, error: Exception) -> bool:
        """Return whether it is certain that no byte was sent. Without trace events, the error decides."""
        if "send_request_headers.complete" in self._events:
            return False
        if "send_request_headers.started" in self._events:
            # Headers are built first, and written afterwards.
            return isinstance(error, httpx.LocalProtocolError)
        never_connected = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)
        return bool(self._events) or isinstance(error, (*never_connected, httpx.LocalProtocolError))


class Ark:
    """The provider's task API on one route.

    Args:
        base_url: Without a closing slash.
        api_key: Sent to the base URL alone.
        secrets: Texts that are removed from answers, as the key is, where the provider repeats them.
        transport: Makes the transport of each request; by default without retries, by the environment's proxy.
        list_spacing: The least seconds between two calls of LIST.

    Raises:
        InvalidSettings: The environment names a proxy that is not understood.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        secrets: tuple[str, ...] = (),
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        list_spacing: float = LIST_SPACING_SECONDS,
    ) -> None:
        self._url = base_url + _TASKS
        # A compressed answer can be a thousand times as long as its bytes on the wire.
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept-Encoding": "identity"}
        self._key = api_key
        self._secrets = (api_key, *secrets)
        self._listing = asyncio.Lock()
        self._list_spacing = list_spacing
        proxy = proxy_for(base_url) if transport is None else None
        self._transport = transport or (lambda: PacedTransport(verify=usual_tls(), proxy=proxy))

    def _client(self, read_seconds: float | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(read_seconds, connect=_CONNECT_SECONDS),
            transport=self._transport(),
            follow_redirects=False,
        )

    async def create(self, body: dict[str, Any], seconds: float | None = None) -> CreateAnswer:
        """Send the paid POST once.

        Args:
            body: The JSON of the create.
            seconds: Total time, connecting included; None limits the time to connect alone.

        Returns:
            ``not_sent`` only where it is certain that no byte was sent, or the provider says that nothing was created.
        """
        sending = _Sending()
        try:
            client = self._client(read_seconds=None)
        except Exception as error:
            return _unsendable(error, wrong_key=isinstance(error, UnicodeError))
        try:
            request = client.build_request("POST", self._url, json=body, extensions={"trace": sending})
        except Exception as error:
            return _unsendable(error)
        status: int | None = None
        answer: CreateAnswer | None = None
        try:
            async with asyncio.timeout(seconds), client, aclosing(await client.send(request, stream=True)) as response:
                status = response.status_code
                answer = self._classify(await read_answer(response))
        except Exception as error:
            # An answer that was read counts, also where the connection breaks while it is closed.
            if answer is None:
                answer = _ACCEPTED_WITHOUT_ID if status == httpx.codes.OK else self._broken(error, sending)
        return answer

    def _broken(self, error: Exception, sending: _Sending) -> CreateAnswer:
        if not sending.sent_nothing(error):
            if isinstance(error, TimeoutError):
                return CreateAnswer("unknown", "timed_out", "the provider did not answer within the time for a create")
            return CreateAnswer("unknown", "answer_lost", f"the answer was lost: {self._named(error)}")
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            return _unsendable(error, wrong_key=isinstance(error, httpx.LocalProtocolError))
        return CreateAnswer("not_sent", "not_connected", f"no connection: {self._named(error)}")

    def _classify(self, answer: Answer) -> CreateAnswer:
        """Classify an answer to a create: this is the one table."""
        status = answer.status
        if status == httpx.codes.OK:
            return self._classify_accepted(answer)
        envelope = self._envelope(answer)
        if envelope is None:
            return _in_between(status)
        code, message = envelope
        match status:
            case 400 | 404:
                passing = can_pass(code, message)
                return CreateAnswer("refused", code, message, failure_class=refusal_class(code), passing=passing)
            case 401 | 403 | 429:
                attention = attention_of(status, code, message)
                return CreateAnswer(
                    *("not_sent", code, message),
                    attention=attention,
                    retry_after=retry_after(answer.headers),
                    reset_in=seconds_until_reset(message),
                    for_all=is_for_all(status, code, message),
                    over_rate=status == 429 and attention is None,
                )
            case _:
                return CreateAnswer("unknown", code, message)

    def _classify_accepted(self, answer: Answer) -> CreateAnswer:
        """Classify a 200: the task exists, unless a gateway answered with a page."""
        if answer.content is None:
            return _ACCEPTED_WITHOUT_ID
        payload = answer.json
        task_id = payload.get("id") if isinstance(payload, dict) else None
        if isinstance(task_id, str) and task_id:
            usable = is_usable_id(task_id, self._secrets)
            return CreateAnswer("created", task_id=task_id) if usable else _ACCEPTED_WITH_ODD_ID
        # The provider answers with JSON, even if it is broken; a gateway's page proves no task.
        return _ACCEPTED_WITHOUT_ID if answer.content.lstrip()[:1] != b"<" else _in_between(answer.status)

    async def get(self, task_id: str) -> dict[str, Any] | None:
        """Get a task's payload, which :func:`parse_task` can read, or None where the provider knows no such task.

        The payload holds no secrets, but that URLs in its ``content`` keep their signatures.

        Raises:
            ArkError: A refusal, or the payload of another task.
            httpx.HTTPError: No answer.
        """
        if not is_task_id(task_id):
            return None
        answer = await self._ask("GET", f"{self._url}/{quoted_id(task_id)}")
        if answer.status == httpx.codes.NOT_FOUND and self._error(answer).code.startswith(_NO_SUCH_TASK):
            return None
        payload = self._object(answer)
        task = await aside(answer.content or b"", lambda: cleared_task(payload, self._secrets))
        try:
            shown = parse_task(task)
        except ValueError:
            raise ArkError(answer.status, "", "the answer is not a task") from None
        if shown.id != task_id:
            raise ArkError(answer.status, "", "the answer is about another task")
        return task

    async def list(self, page: int, page_size: int, service_tier: str = "default", model: str = "") -> TaskPage:
        """Get one page of the account's tasks of the last seven days.

        The account may send one call a second, so this returns only when the next call may be sent, by any process.
        Items that are not tasks are left out. An id that cannot be used is cut, and GET finds no task by it.

        Args:
            page, page_size: Counted from 1, with at most 500 tasks each.
            service_tier: Only tasks of this tier.
            model: Only tasks of this model or endpoint; a Custom key needs it.

        Raises:
            ArkError: A refusal, or an answer that is not a list.
            httpx.HTTPError: No answer.
        """
        query: dict[str, str | int] = {"page_num": page, "page_size": page_size, "filter.service_tier": service_tier}
        query |= {"filter.model": model} if model else {}
        async with self._listing:
            sent_at, asked_at = time.monotonic(), datetime.now(UTC)
            try:
                answer = await self._ask("GET", self._url, query, MOST_BYTES_OF_LIST)
            finally:
                await asyncio.sleep(sent_at + self._list_spacing - time.monotonic())
        payload = self._object(answer)
        items, total = payload.get("items"), payload.get("total")
        if not isinstance(items, list) or type(total) is not int or not 0 <= total <= MOST:
            raise ArkError(httpx.codes.OK, "", "the answer is not a list of tasks")
        if total < len(items):
            # A total that its own page contradicts must not make a listing look complete: there may be more.
            total = len(items) + 1
        listed = [item for item in items[:page_size] if isinstance(item, dict)]
        tasks = await aside(
            answer.content or b"", lambda: [cleared_task(_plain(item), self._secrets) for item in listed]
        )
        return TaskPage(tasks, total, asked_at)

    async def delete(self, task_id: str) -> None:
        """Cancel a queued task. It erases the record of a finished one: get the task first.

        Raises:
            ArkError: A refusal, such as for a running task.
            httpx.HTTPError: No answer.
        """
        if not is_task_id(task_id):
            raise ArkError(httpx.codes.NOT_FOUND, "", "the id cannot be one of a task")
        answer = await self._ask("DELETE", f"{self._url}/{quoted_id(task_id)}")
        if not answer.succeeded:
            raise self._error(answer)

    async def _ask(
        self,
        method: str,
        url: str,
        query: Mapping[str, str | int] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> Answer:
        try:
            async with (
                asyncio.timeout(_ANSWER_SECONDS),
                self._client(_READ_SECONDS) as client,
                client.stream(method, url, params=query) as response,
            ):
                return await read_answer(response, most_bytes)
        except Exception as error:
            raise NoAnswer(self._named(error)) from None

    def _object(self, answer: Answer) -> dict[str, Any]:
        if not answer.succeeded:
            raise self._error(answer)
        payload = answer.json
        if not isinstance(payload, dict):
            raise ArkError(answer.status, "", "the answer is not a JSON object")
        return payload

    def _error(self, answer: Answer) -> ArkError:
        code, message = self._envelope(answer) or ("", "no error of the provider")
        return ArkError(answer.status, code, message)

    def _envelope(self, answer: Answer) -> tuple[str, str] | None:
        """Return code and message of the provider's own error, or None where a gateway or the like answered."""
        payload = answer.json
        error = payload.get("error") if isinstance(payload, dict) else None
        code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
        # The provider's codes are names; gateways with a similar envelope use a number, or nothing.
        if not isinstance(code, str) or not code:
            return None
        return self._clear(code, _LONGEST_CODE), self._clear(message) if isinstance(message, str) else ""

    def _named(self, error: Exception) -> str:
        """Describe an error. Only errors of the connection are quoted: others quote the request."""
        name = type(error).__name__
        if not isinstance(error, httpx.TransportError) or isinstance(error, httpx.LocalProtocolError):
            return name
        return f"{name}: {self._clear(str(error))}".rstrip(": ")

    def _clear(self, text: str, limit: int = _LONGEST_MESSAGE) -> str:
        return redacted(text, self._secrets, limit)


def _unsendable(error: Exception, *, wrong_key: bool = False) -> CreateAnswer:
    """Describe a request that cannot be built. Its error is not quoted: it holds the request, with the key."""
    where = "ARK_API_KEY holds characters that no header can carry" if wrong_key else "check ARK_BASE_URL"
    message = f"the request cannot be built ({type(error).__name__}): {where}"
    return CreateAnswer("not_sent", "cannot_send", message, attention="credentials" if wrong_key else None)


def _in_between(status: int) -> CreateAnswer:
    return CreateAnswer("unknown", f"http_{status}", f"HTTP {status} from a gateway or proxy, not from the provider")


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Return the needed fields of a listed task, as far as they are plain: to clear all would block the event loop."""
    return {name: item[name] for name in _LISTED if isinstance(item.get(name), str | int | float)}
