"""Gateways between the worker and the local Ark, which change every text of every answer."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seedance_temporal.provider.task import LONGEST_TASK_ID
from tests.support.served import served

# Their truth is needed to follow a task at all.
_TRUE = frozenset({"id", "status", "safety_identifier", "video_url", "last_frame_url"})
_FORWARDED = ("authorization", "content-type")
# Four bytes in UTF-8, and twelve in JSON and in URLs.
WIDE = "😀"
_WIDE_TEXT = WIDE * 5_000
_QUOTED = quote(WIDE)


@dataclass
class Gateway(ABC):
    """Forwards requests to a provider, and changes its answers.

    Attributes:
        provider: The root URL of the provider.
        refuses: Answers to creates, by a word of their prompt: the HTTP status, and the provider's code.
        stumbles: How many of the next GETs of a task are answered by a page of the gateway's own.
        changed: How many texts were changed.
    """

    provider: str
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    stumbles: int = 3
    changed: int = 0

    @abstractmethod
    def text(self, text: str) -> str:
        """Return what a text of the provider becomes."""

    def task_id(self, task_id: str) -> str:
        """Return what the id of a task becomes."""
        return task_id

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        if request.method == "GET" and "/tasks/" in request.url.path and self.stumbles:
            self.stumbles -= 1
            return self._page()
        for word, (status, code) in self.refuses.items():
            if request.method == "POST" and word in body.decode():
                error = {"code": self._changed(code), "message": self._changed("no"), "param": self._changed("it")}
                return Response(json.dumps({"error": error}), status)
        async with httpx.AsyncClient(trust_env=False) as http:
            path = request.scope["raw_path"].decode()
            url = f"{self.provider}{path}?{request.url.query}".replace(_QUOTED, "")
            headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
            try:
                answer = await http.request(request.method, url, content=body, headers=headers)
            except httpx.HTTPError:
                return self._page()
        content = json.dumps(self._told(answer.json())).encode() if answer.content else b""
        header = self._changed("x")[:4_000].encode("ascii", "replace").decode()
        return Response(content, answer.status_code, {"X-Request": header})

    def _page(self) -> Response:
        return Response(f"<p>Bad gateway: {self._changed('')}</p>", 502, media_type="text/html")

    def _changed(self, text: str) -> str:
        self.changed += 1
        return self.text(text)

    def _told(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            told = {each: self._told(inner, each) for each, inner in value.items()}
            more = {self._changed(""): 1, "note": [{"a": self._changed("")}]}
            return told if name == "content" else told | more
        if isinstance(value, list):
            return [self._told(inner) for inner in value]
        if name == "id":
            return self.task_id(value)
        return self._changed(value) if isinstance(value, str) and name not in _TRUE else value


@dataclass
class Quoting(Gateway):
    """Quotes the worker's own secrets in every text."""

    _secrets: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        self._secrets |= {"key": authorization.removeprefix("Bearer "), "header": authorization}
        if request.method == "POST":
            self._secrets["callback"] = json.loads(await request.body()).get("callback_url", "")
        return await super().answer(request)

    def text(self, text: str) -> str:
        signed = "https://cdn.example.com/v.mp4?X-Tos-Signature=5ec4e7&X-Tos-Expires=1"
        return " ".join([text, *self._secrets.values(), json.dumps(self._secrets), repr(self._secrets), signed])


@dataclass
class Wide(Gateway):
    """Makes every text long, of the widest characters, and every id as long as one may be."""

    def text(self, text: str) -> str:
        return text + _WIDE_TEXT

    def task_id(self, task_id: str) -> str:
        return task_id + WIDE * ((LONGEST_TASK_ID - len(task_id)) // len(_QUOTED))


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[str]:
    """Run a gateway on a free port of loopback; yield its root URL."""
    app = Starlette(routes=[Route("/{path:path}", gateway.answer, methods=["GET", "POST", "DELETE"])])
    async with served(app) as base:
        yield base
