"""Downloads of references during the create call, for whoever wants to see them made."""

import asyncio
from collections.abc import Sequence

import httpx

from .errors import ArkError

_SECONDS = 20  # for each reference


async def fetch(urls: Sequence[str]) -> None:
    """Fetches every http(s) URL once, and throws the bytes away.

    Raises:
        ArkError: 400 `InvalidParameter` for the first that cannot be had.
    """
    remote = [url for url in urls if url.startswith(("http://", "https://"))]
    async with httpx.AsyncClient(trust_env=False, timeout=_SECONDS, follow_redirects=True) as client:
        await asyncio.gather(*(_fetch_one(client, url) for url in remote))


async def _fetch_one(client: httpx.AsyncClient, url: str) -> None:
    try:
        async with client.stream("GET", url) as response:
            response.raise_for_status()
            async for _ in response.aiter_bytes():
                pass
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ArkError(
            400,
            "InvalidParameter",
            f"Failed to download a reference: {type(error).__name__}.",
            param="content",
        ) from None
