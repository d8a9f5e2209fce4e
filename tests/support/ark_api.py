"""The provider's API as a plain client sees it, for tests of the local Ark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from dev.ark.catalog import Route
from dev.ark.control import ArkControl
from tests.support.jobs import BODY

PATH = "/contents/generations/tasks"
KEYS: dict[Route, str] = {"byteplus": "local-ark-key", "volcengine": "local-ark-key-cn"}


@dataclass(frozen=True)
class Api:
    """The API under one key.

    Attributes:
        http: A client that knows no key.
        body: The fields of each create.
        headers: More headers of each request.
        timeout: How long an answer may take, in seconds.
    """

    http: httpx.AsyncClient
    key: str
    body: dict[str, Any] = field(default_factory=lambda: BODY)
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 10

    def under(self, key: str) -> Api:
        """Return the same API under another key."""
        return replace(self, key=key)

    async def ask(self, method: str, path: str = PATH, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} | self.headers
        timeout = httpx.Timeout(10, read=self.timeout)
        return await self.http.request(method, path, headers=headers, timeout=timeout, **options)

    async def post(self, **fields: Any) -> httpx.Response:
        return await self.ask("POST", json=self.body | fields)

    async def get(self, task_id: str) -> httpx.Response:
        return await self.ask("GET", f"{PATH}/{task_id}")

    async def delete(self, task_id: str) -> httpx.Response:
        return await self.ask("DELETE", f"{PATH}/{task_id}")

    async def page(self, *task_ids: str, **params: Any) -> httpx.Response:
        """List tasks, or those named; a parameter ``filter_x`` is sent as ``filter.x``."""
        given: dict[str, Any] = {name.replace("filter_", "filter."): value for name, value in params.items()}
        return await self.ask("GET", params=given | ({"filter.task_ids": task_ids} if task_ids else {}))

    async def items(self, *task_ids: str, **params: Any) -> list[dict[str, Any]]:
        """Return the listed tasks, without asking whether there are more pages."""
        items: list[dict[str, Any]] = (await self.page(*task_ids, **params)).json()["items"]
        return items

    async def create(self, **fields: Any) -> str:
        answer = await self.post(**fields)
        assert answer.status_code == 200, answer.text
        task_id: str = answer.json()["id"]
        return task_id

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Return a task once it has one of these statuses."""
        async with asyncio.timeout(10):
            while True:
                task: dict[str, Any] = (await self.get(task_id)).json()
                if task["status"] in statuses:
                    return task
                await asyncio.sleep(0.02)

    async def create_until(self, status: str, **fields: Any) -> dict[str, Any]:
        return await self.until(await self.create(**fields), status)


@asynccontextmanager
async def an_api(ark: ArkControl, route: Route = "byteplus", **fields: Any) -> AsyncIterator[Api]:
    """Yield the API of a local Ark on a route, with other fields of ``Api``."""
    url = ark.base_url(route)
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as http:  # noqa: S501 - it is http
        yield replace(Api(http, KEYS[route]), **fields)
