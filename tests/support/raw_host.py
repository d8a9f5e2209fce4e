"""A host that answers every request with the same bytes: answers that a provider would never give, but a gateway
in front of it can.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_ENOUGH = 100 * 1024 * 1024


@dataclass
class RawHost:
    """``answer`` is sent as it is, and the connection closed; ``requests`` holds the first lines of the requests.

    With ``repeats``, that follows over and over, until the reader stops; ``repeated`` counts its bytes.
    """

    port: int = 0
    answer: bytes = b""
    repeats: bytes = b""
    repeated: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v3"

    def answers(self, status: int, body: str | bytes, *headers: str, length: int | None = None) -> None:
        content = body.encode() if isinstance(body, str) else body
        head = [f"HTTP/1.1 {status} Status", *headers]
        if "Transfer-Encoding: chunked" not in headers:
            head.append(f"Content-Length: {len(content) if length is None else length}")
        self.answer = "\r\n".join([*head, "Connection: close", "", ""]).encode() + content

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if not first.isalpha():
                return  # a TLS greeting
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            length = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
            await reader.readexactly(int(length[0].partition(":")[2]) if length else 0)
            self.requests.append(head.splitlines()[0])
            writer.write(self.answer)
            await writer.drain()
            while self.repeats and self.repeated < _ENOUGH:
                writer.write(self.repeats)
                await writer.drain()
                self.repeated += len(self.repeats)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Run a TCP server on a free port of 127.0.0.1, and yield the port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def raw_host() -> AsyncIterator[RawHost]:
    """Run a host on a free port of 127.0.0.1."""
    host = RawHost()
    async with serving(host.serve) as host.port:
        yield host
