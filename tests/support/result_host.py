"""A small HTTP host that can misbehave, byte by byte. It plays the host of result URLs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tests.support.raw_host import serving


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        announced: The ``Content-Length``; the real one by default.
        cut_after: The connection ends after so many bytes of the body.
        ranges: Whether ``Range`` is obeyed.
        says_range: A false ``Content-Range``.
        hangs: Whether it stops sending then, and waits for the other side to close.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    cut_after: int | None = None
    ranges: bool = True
    says_range: str | None = None
    hangs: bool = False


@dataclass(frozen=True)
class Request:
    target: str
    headers: dict[str, str]


@dataclass
class ResultHost:
    """Answers by path; the last of several answers repeats. ``requests`` holds all requests, in sequence."""

    port: int = 0
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.target.partition("?")[0] == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        request = Request(first.split(" ")[1], headers)
        self.requests.append(request)
        answers = self.answers.get(request.target.partition("?")[0], [Answer(b"not here", 404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = _in_range(answer, request) if answer.status == 200 else answer
        announced = len(answer.body) if answer.announced is None else answer.announced
        length = {} if "Transfer-Encoding" in answer.headers else {"Content-Length": str(announced)}
        fields = length | answer.headers
        writer.write(f"HTTP/1.1 {answer.status} Status\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode() + b"\r\n")
        writer.write(answer.body[: answer.cut_after])
        await writer.drain()
        if answer.hangs:
            await reader.read()
        return answer.cut_after is None and announced == len(answer.body)


def _in_range(answer: Answer, request: Request) -> Answer:
    asked = request.headers.get("range")
    same = request.headers.get("if-range") in {None, answer.headers.get("ETag"), answer.headers.get("Last-Modified")}
    if asked is None or not answer.ranges or not same:
        return answer
    start, total = int(asked.removeprefix("bytes=").rstrip("-")), len(answer.body)
    says = answer.says_range or f"bytes {start}-{total - 1}/{total}"
    return replace(answer, status=206, body=answer.body[start:], headers=answer.headers | {"Content-Range": says})


@asynccontextmanager
async def result_host(tls: ssl.SSLContext | None = None) -> AsyncIterator[ResultHost]:
    """Run a host on a free port of 127.0.0.1."""
    host = ResultHost()
    async with serving(host.serve, tls) as host.port:
        yield host


@dataclass
class Names:
    """A resolver that answers from a table, in turn where a name has several answers, and records the names."""

    table: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        answers = self.table.get(name, [[name]])
        return answers.pop(0) if len(answers) > 1 else answers[0]
