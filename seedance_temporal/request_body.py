"""Read the body of a request up to a limit."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

# For a body that was not read to its end: the server would read and discard the rest.
HANG_UP = {"Connection": "close"}


async def read_body(request: Request, most: int) -> bytes:
    """Read the request's body.

    Args:
        most: Its limit, in bytes.

    Raises:
        HTTPException: 413, it is longer.
    """
    if int(request.headers.get("content-length", "0")) > most:
        raise HTTPException(413, headers=HANG_UP)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, headers=HANG_UP)
    return bytes(body)
