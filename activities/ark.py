"""The provider client on httpx, and the one table that says what an answer to a create means.

A create is sent at most once per call: no transport retries, no redirects, and a fresh connection each time, because
a request on a stale one looks like a lost answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

from seedance_temporal.job import Attention
from seedance_temporal.task import FailureClass, refusal_class
from seedance_temporal.urls import redacted

_TASKS = "/contents/generations/tasks"
# Connecting is free to repeat; everything after it is bounded by the caller's total time.
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
# A rate limit that looks at the arrival must not see two of our calls closer than it allows.
LIST_SPACING_SECONDS = 1.1

CreateKind = Literal["created", "refused", "not_sent", "taken", "unknown"]


@dataclass(frozen=True)
class CreateAnswer:
    """What one POST came to.

    Attributes:
        kind: ``created`` with a task id; ``refused`` for good; ``not_sent``: no task exists, it may be sent again;
            ``taken``: a task exists, its id could not be read; ``unknown``: nobody can tell.
        task_id: With ``created``.
        code: The provider's code, or ours in snake case.
        message: The provider's words, or ours; without secrets.
        failure_class: With ``refused``.
        attention: With ``not_sent``, where a person is needed.
        retry_after: Seconds, where the provider names them.
    """

    kind: CreateKind
    task_id: str | None = None
    code: str = ""
    message: str = ""
    failure_class: FailureClass | None = None
    attention: Attention | None = None
    retry_after: float | None = None


_TAKEN = CreateAnswer("taken", code="no_task_id", message="accepted, but the task id could not be read")


class ArkError(Exception):
    """The provider answered a get, list or delete with something else than what was asked for.

    Attributes:
        status: The HTTP status.
        code: The provider's code; empty where the answer had no envelope.
        attention: Set where a person is needed.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.attention = _attention(status, code, message)
        super().__init__(f"HTTP {status} {code}: {message}")


@dataclass(frozen=True)
class TaskPage:
    """One page of LIST: the payloads, how many tasks match in all, and when that was asked."""

    items: list[dict[str, Any]]
    total: int
    asked_at: datetime


class Ark:
    """The provider's task API on one route.

    Args:
        base_url: Without a closing slash.
        api_key: Sent to the base URL alone.
        secrets: Texts that the provider's messages are cleared of, should it repeat them.
        transport: Makes the transport of each request; the default one does not retry.
        list_spacing: Seconds that two calls of LIST are apart at least.
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
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._secrets = secrets
        # Made once: it reads the certificate store.
        tls = httpx.create_ssl_context()
        self._listing = asyncio.Lock()
        self._list_spacing = list_spacing
        self._listed_at = -list_spacing
        self._transport = transport or (lambda: httpx.AsyncHTTPTransport(verify=tls))

    def _client(self, read_seconds: float | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(read_seconds, connect=_CONNECT_SECONDS),
            transport=self._transport(),
            follow_redirects=False,
        )

    async def create(self, body: dict[str, Any]) -> CreateAnswer:
        """Sends the paid POST once. Has no time limit of its own but for connecting: the caller bounds the total."""
        try:
            async with (
                self._client(read_seconds=None) as client,
                client.stream("POST", self._url, json=body) as response,
            ):
                return await self._read_answer(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            return CreateAnswer("not_sent", code="not_connected", message=self._clear(f"no connection: {error!r}"))
        except httpx.HTTPError as error:
            return CreateAnswer("unknown", code="answer_lost", message=self._clear(f"the answer was lost: {error!r}"))

    async def _read_answer(self, response: httpx.Response) -> CreateAnswer:
        if response.status_code == httpx.codes.OK:
            try:
                await response.aread()
            except httpx.HTTPError:
                return _TAKEN
        else:
            await response.aread()
        return self._classify(response)

    def _classify(self, response: httpx.Response) -> CreateAnswer:
        """The one table: what an answer to a create means for the money."""
        status = response.status_code
        if status == httpx.codes.OK:
            task_id = _task_id(response)
            if task_id is not None:
                return CreateAnswer("created", task_id=task_id)
            # The provider speaks JSON, however broken; a page of something in between says nothing of a task.
            return _TAKEN if response.content.lstrip()[:1] != b"<" else _in_between(status)
        envelope = _envelope(response)
        if envelope is None:
            return _in_between(status)
        code, message = envelope["code"], self._clear(envelope["message"])
        if status in {400, 404}:
            return CreateAnswer("refused", code=code, message=message, failure_class=refusal_class(code))
        if status in {401, 403, 429}:
            return CreateAnswer(
                "not_sent",
                code=code,
                message=message,
                attention=_attention(status, code, message),
                retry_after=_retry_after(response),
            )
        return CreateAnswer("unknown", code=code, message=message)

    async def get(self, task_id: str) -> dict[str, Any] | None:
        """A task's payload as it came; None where the provider knows no such task.

        Raises:
            ArkError: Another answer.
            httpx.HTTPError: No answer.
        """
        if not _is_path_part(task_id):
            return None
        async with self._client(_READ_SECONDS) as client:
            response = await client.get(f"{self._url}/{task_id}")
        if response.status_code == httpx.codes.NOT_FOUND and (_envelope(response) or {}).get("code", "").startswith(
            "ResourceNotFound"
        ):
            return None
        payload = self._json_of(response)
        if not isinstance(payload.get("id"), str) or not isinstance(payload.get("status"), str):
            raise ArkError(response.status_code, "", "the answer is not a task")
        return payload

    async def list(self, page: int, page_size: int, service_tier: str = "default") -> TaskPage:
        """One page of the account's tasks of the last seven days.

        One call a second is allowed for the account, so calls of one process keep that distance.

        Raises:
            ArkError: Another answer.
            httpx.HTTPError: No answer.
        """
        query: dict[str, str | int] = {"page_num": page, "page_size": page_size, "filter.service_tier": service_tier}
        async with self._listing, self._client(_READ_SECONDS) as client:
            await asyncio.sleep(max(0.0, self._listed_at + self._list_spacing - time.monotonic()))
            self._listed_at = time.monotonic()
            asked_at = datetime.now(UTC)
            payload = self._json_of(await client.get(self._url, params=query))
        items = payload.get("items")
        if not isinstance(items, list) or not isinstance(payload.get("total"), int):
            raise ArkError(httpx.codes.OK, "", "the answer is not a list of tasks")
        return TaskPage([item for item in items if isinstance(item, dict)], payload["total"], asked_at)

    async def delete(self, task_id: str) -> None:
        """Cancels a queued task. On a finished one it erases the record: look first.

        Raises:
            ArkError: Refused, such as for a running task.
            httpx.HTTPError: No answer.
        """
        if not _is_path_part(task_id):
            raise ArkError(httpx.codes.NOT_FOUND, "", "that is no task id")
        async with self._client(_READ_SECONDS) as client:
            response = await client.delete(f"{self._url}/{task_id}")
        if not response.is_success:
            raise self._error(response)

    def _json_of(self, response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise self._error(response)
        try:
            payload = response.json()
        except ValueError:
            payload = None
        if not isinstance(payload, dict):
            raise ArkError(response.status_code, "", "the answer is not a JSON object")
        return payload

    def _error(self, response: httpx.Response) -> ArkError:
        envelope = _envelope(response) or {"code": "", "message": "no word from the provider"}
        return ArkError(response.status_code, envelope["code"], self._clear(envelope["message"]))

    def _clear(self, text: str) -> str:
        return redacted(text, self._secrets)[:1000]


def _in_between(status: int) -> CreateAnswer:
    message = f"HTTP {status} by something in between, not the provider"
    return CreateAnswer("unknown", code=f"http_{status}", message=message)


def _is_path_part(task_id: str) -> bool:
    """Whether a task id, which comes from outside, stays one part of the path. No task has another one."""
    return bool(task_id) and task_id not in {".", ".."} and all(c.isalnum() or c in "-_.:" for c in task_id)


def _task_id(response: httpx.Response) -> str | None:
    try:
        payload = response.json()
    except ValueError:
        return None
    task_id = payload.get("id") if isinstance(payload, dict) else None
    return task_id if isinstance(task_id, str) and task_id else None


def _envelope(response: httpx.Response) -> dict[str, str] | None:
    """The provider's own error; None where something else answered, such as a gateway."""
    try:
        error = json.loads(response.content)["error"]
        code, message = error["code"], str(error.get("message") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    # The provider's codes are names; gateways that have an envelope like this one put a number, or nothing.
    return {"code": code, "message": message} if isinstance(code, str) and code else None


def _attention(status: int, code: str, message: str) -> Attention | None:
    """Whether an answer needs a person: key and account do, load and rates pass by themselves."""
    if status == httpx.codes.UNAUTHORIZED:
        return "credentials"
    trial_used_up = code.startswith("QuotaExceeded") and "trial" in message.lower()
    if status == httpx.codes.FORBIDDEN or code.startswith("SetLimitExceeded") or trial_used_up:
        return "account"
    return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, as the provider asks, in either form that HTTP knows."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
