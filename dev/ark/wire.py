"""Broken answers: none at all, half a body, a connection that is torn down."""

import asyncio
import socket
import struct
import time
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

Close = Literal["rst", "fin"]
_EXTENSION = "ark.transport"


class OpenProtocol(H11Protocol):
    """uvicorn's protocol, except that the application can reach the connection itself."""

    def handle_events(self) -> None:
        super().handle_events()
        # The application's task was only scheduled above, so it sees this.
        if self.scope is not None:
            self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def wait_while_connected(request: Request, seconds: float | None) -> bool:
    """Wait after the request's body was read, for ever without `seconds`.

    Returns:
        Whether the client is still there. False comes at once when it goes, or when the server ends.
    """
    return await _still_there(request.receive, seconds)


async def _still_there(receive: Receive, seconds: float | None) -> bool:
    try:
        await asyncio.wait_for(_gone(receive), seconds)
    except TimeoutError:
        return True
    except asyncio.CancelledError:
        return False  # the server ends: a hanging request is no reason for a stack trace
    return False


async def _drop(scope: Scope, receive: Receive, close: Close) -> None:
    """End the connection without another byte, and return when it is gone."""
    transport: asyncio.Transport = scope["extensions"][_EXTENSION]["transport"]
    if close == "rst" and not transport.is_closing():  # or the client was quicker
        # Linger of zero seconds makes the kernel send RST instead of FIN.
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    await _gone(receive)  # else uvicorn would take it for a mistake of ours, and send a 500


class Drop(Response):
    """No answer: the connection ends with not one byte of HTTP, by RST or by FIN."""

    def __init__(self, close: Close = "rst") -> None:
        super().__init__()
        self.close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _drop(scope, receive, self.close)


class Cut(Response):
    """An answer that promises `length` bytes of body, sends `part`, which is shorter, and closes."""

    def __init__(self, part: bytes, length: int, media_type: str, status: int = 200) -> None:
        super().__init__(status_code=status, media_type=media_type)
        self.part = part
        self.headers["Content-Length"] = str(length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.part, "more_body": True})
        await _drop(scope, receive, "fin")  # RST could take away the bytes that were sent


class Drip(Response):
    """The whole body, but slowly: spread evenly over `seconds`."""

    _STEPS = 50

    def __init__(self, body: bytes, seconds: float, media_type: str, status: int = 200) -> None:
        super().__init__(body, status, media_type=media_type)
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = bytes(self.body)
        size = max(1, -(-len(body) // self._STEPS))
        started = time.monotonic()
        for offset in range(0, len(body), size):
            due = started + self.seconds * offset / len(body)
            if not await _still_there(receive, max(0.0, due - time.monotonic())):
                await _drop(scope, receive, "fin")
                return
            await send({"type": "http.response.body", "body": body[offset : offset + size], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
