"""A forward proxy, as companies have: it relays requests and tunnels, or refuses to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.raw_host import serving


@dataclass
class ForwardProxy:
    """Takes every host to be 127.0.0.1, and resolves no name.

    Attributes:
        asked: The first line of each request to it.
        refuses: Its answer to every request, where it relays none.
    """

    port: int = 0
    asked: list[str] = field(default_factory=list)
    refuses: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._relay(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, _, rest = head.decode().partition("\r\n")
        self.asked.append(first)
        method, target, version = first.split(" ")
        if self.refuses:
            writer.write(self.refuses)
            await writer.drain()
            return
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        from_host, to_host = await asyncio.open_connection("127.0.0.1", url.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = url.path + (f"?{url.query}" if url.query else "")
            to_host.write(f"{method} {path} {version}\r\nConnection: close\r\n{rest}".encode())
        there = asyncio.create_task(_copy(reader, to_host))
        await _copy(from_host, writer)
        there.cancel()
        to_host.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(64 * 1024):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardProxy]:
    """Run a proxy on a free port of 127.0.0.1."""
    proxy = ForwardProxy()
    async with serving(proxy.serve) as proxy.port:
        yield proxy
