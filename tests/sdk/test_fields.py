"""docs/internals/provider-fields.md compares every field of a create: its last three columns are held to the code."""

from __future__ import annotations

import inspect
from contextlib import suppress
from datetime import date
from typing import Any

from volcenginesdkarkruntime.resources.content_generation.tasks import AsyncTasks

from dev.ark.errors import ArkError
from dev.ark.settings import Settings
from dev.ark.validate import read_request
from seedance_temporal.provider.known_models import MODELS
from seedance_temporal.provider.models import DECIDED_BY_DRAFT, OPTIONAL
from seedance_temporal.provider.payload import _ALWAYS_SENT
from tests.docs.pages import ROOT, rows

PAGE = ROOT / "docs" / "internals" / "provider-fields.md"
OURS_IN_ITS_WORDS = {"web_search": "tools"}
SAMPLES: dict[str, Any] = {
    "ratio": "adaptive",
    "resolution": "480p",
    "duration": 5,
    "generate_audio": True,
    "watermark": True,
    "return_last_frame": True,
    "seed": 7,
    "camera_fixed": True,
    "service_tier": "default",
    "priority": 1,
    "execution_expires_after": 3600,
    "draft": False,
    "output_format": "mov",
    "omni_reference_task_type": "auto",
    "tools": [{"type": "web_search"}],
    "callback_url": "https://relay.example.com",
    "safety_identifier": "a",
    "frames": 29,
}
BYTEPLUS = {model.name.removeprefix("Seedance "): model for model in MODELS if model.route == "byteplus"}


def of_the_sdk() -> set[str]:
    """Return the parameters of the SDK's create, which a check of the key wraps."""
    (create,) = (cell.cell_contents for cell in AsyncTasks.create.__closure__ or ())
    return set(inspect.signature(create).parameters)


def families(taken: list[str]) -> str:
    if len(taken) == len(BYTEPLUS):
        return "all"
    return ", ".join(taken) or "none"


def by_us(field: str) -> str:
    """Return when our client sends a field."""
    if field in {"callback_url", "safety_identifier"}:
        return "the worker's own"
    if field in _ALWAYS_SENT:
        return "always"
    if field == "return_last_frame":
        return "when true"
    optional = {OURS_IN_ITS_WORDS.get(name, name): name for name in OPTIONAL}
    if field not in optional:
        return "never"
    taken = [name for name, model in BYTEPLUS.items() if optional[field] in model.optional]
    return f"when given: {families(taken)}"


def by_the_local_ark(field: str) -> str:
    """Return which families of the local Ark take a field."""
    taken = []
    for name, model in BYTEPLUS.items():
        body = {"model": model.id, "content": [{"type": "text", "text": "a cat"}]} | {field: SAMPLES[field]}
        if field == "resolution":
            body[field] = model.resolutions[0]
        elif "720p" not in model.resolutions:
            body["resolution"] = model.resolutions[0]
        with suppress(ArkError):
            read_request("byteplus", body, Settings(today=date(2026, 11, 1)))
            taken.append(name)
    return families(taken)


def test_table_equals_the_code() -> None:
    documented = {cells[0].strip("`"): cells[2:] for cells in rows(PAGE, "## Fields of a create")}
    of_sdk = of_the_sdk()
    expected = {field: ["yes" if field in of_sdk else "no", by_us(field), by_the_local_ark(field)] for field in SAMPLES}
    assert {field: [*cells] for field, cells in documented.items()} == expected


def test_every_field_of_the_sdk_is_in_the_table() -> None:
    general = {"self", "model", "content", "extra_headers", "extra_query", "extra_body", "timeout"}
    assert of_the_sdk() - general == set(SAMPLES)
    assert {OURS_IN_ITS_WORDS.get(name, name) for name in OPTIONAL} <= SAMPLES.keys()
    assert set(DECIDED_BY_DRAFT) >= {"ratio", "duration", "generate_audio"}
