"""HTTP connections that no answer can keep the event loop busy with.

An answer can be a thousand times as much work as its bytes: "100 Continue" for ever, or a body in pieces of one byte.
So each read is small, lets other tasks run, and counts what came; what comes before the answer is bounded.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpcore
import httpx

# A read of this size in pieces of one byte takes some ten milliseconds.
READ_BYTES = 8 * 1024
# Status lines and headers: the usual servers allow 32 kB at most.
_MOST_HEAD_BYTES = 256 * 1024
# Beside as many bytes as the body has: a few for each piece of it.
_MOST_BESIDE_BODY = 64 * 1024


class PacedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over paced connections.

    Args:
        read_bytes: The most bytes of one read. Larger reads are quicker, and for hosts that are trusted.
        options: Those of :class:`httpx.AsyncHTTPTransport`.
    """

    def __init__(self, read_bytes: int = READ_BYTES, **options: Any) -> None:
        super().__init__(**options)
        # The library passes its network backend on to nobody: there is no public way to give it one.
        pool: Any = self._pool
        pool._network_backend = _Backend(pool._network_backend, read_bytes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.TransportError: No answer, or none after more bytes than a server's headers have.
        """
        response = await super().handle_async_request(request)
        stream = response.extensions.get("network_stream")
        if isinstance(stream, _Stream):
            # From here on it counts the body, and the head's last read.
            stream.most, stream.received = None, 0
        return response


def is_padded(response: httpx.Response, body_bytes: int) -> bool:
    """Return whether an answer is far longer on the wire than its body: its pieces are made to be work."""
    stream = response.extensions.get("network_stream")
    return isinstance(stream, _Stream) and stream.received > 2 * body_bytes + _MOST_BESIDE_BODY


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, inner: httpcore.AsyncNetworkBackend, read_bytes: int) -> None:
        self._inner = inner
        self._read_bytes = read_bytes

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(*args, **options), self._read_bytes)

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_unix_socket(*args, **options), self._read_bytes)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection. ``received`` counts its bytes; over ``most`` of them, it is given up."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, read_bytes: int) -> None:
        self._inner = inner
        self._read_bytes = read_bytes
        self.received = 0
        self.most: int | None = _MOST_HEAD_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._inner.read(min(max_bytes, self._read_bytes), timeout)
        self.received += len(data)
        if self.most is not None and self.received > self.most:
            raise httpcore.RemoteProtocolError(f"more than {self.most} bytes came before the answer")
        # A read whose bytes are there already does not let other tasks run.
        await asyncio.sleep(0)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(*args, **options), self._read_bytes)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
