"""The provider's own SDK, pointed at the local Ark; and a request that no other test makes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from volcenginesdkarkruntime import AsyncArk

from dev.ark.catalog import Route
from dev.ark.control import ArkControl
from dev.ark.ledger import CreateEntry

KEYS: dict[Route, str] = {"byteplus": "local-ark-key", "volcengine": "local-ark-key-cn"}
MODELS: dict[Route, str] = {"byteplus": "dreamina-seedance-2-0-260128", "volcengine": "doubao-seedance-2-0-260128"}


@asynccontextmanager
async def sdk(
    ark: ArkControl, route: Route = "byteplus", *, key: str | None = None, **arguments: Any
) -> AsyncIterator[Any]:
    """The tasks resource of a client, which retries unless ``max_retries`` is 0."""
    async with AsyncArk(base_url=ark.base_url(route), api_key=key or KEYS[route], **arguments) as client:
        yield client.content_generation.tasks


def an_input(route: Route = "byteplus", **fields: Any) -> dict[str, Any]:
    """Arguments of the SDK's create, with a prompt like no other."""
    return {"model": MODELS[route], "content": [text(a_prompt())]} | fields


def a_prompt() -> str:
    return f"A paper boat on a pond, {uuid.uuid4().hex}"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


async def posts(ark: ArkControl, prompt: str) -> list[CreateEntry]:
    """Every POST that the provider got for a prompt."""
    return [entry for entry in await ark.ledger() if prompt in str(entry.body)]
