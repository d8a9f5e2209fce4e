"""The JSON body of a create. ``activities/create.py`` adds ``callback_url`` and ``safety_identifier``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seedance_temporal.provider.models import KINDS, OPTIONAL
from seedance_temporal.request import VideoRequest

# Their defaults are not documented.
_ALWAYS_SENT = ("ratio", "resolution", "duration", "generate_audio", "watermark")
_SENT_OF_A_FINAL = ("resolution", "watermark")


def body_of(request: VideoRequest, urls: Sequence[str], draft_task: str | None = None) -> dict[str, Any]:
    """Return the JSON body of a valid request.

    Args:
        request: What to generate.
        urls: The URL by which the provider reads each reference.
        draft_task: Of a final: the id of its draft's task.
    """
    content: list[dict[str, Any]] = []
    if draft_task is not None:
        content.append({"type": "draft_task", "draft_task": {"id": draft_task}})
    if request.prompt is not None:
        content.append({"type": "text", "text": request.prompt})
    for reference, url in zip(request.references, urls, strict=True):
        kind = f"{KINDS[reference.role]}_url"
        content.append({"type": kind, kind: {"url": url}, "role": reference.role})
    body: dict[str, Any] = {"model": request.model, "content": content}
    # A final takes the rest from its draft, and the provider refuses it.
    body |= {name: getattr(request, name) for name in _ALWAYS_SENT if draft_task is None or name in _SENT_OF_A_FINAL}
    if request.return_last_frame:
        body["return_last_frame"] = True
    for name in OPTIONAL:
        value = getattr(request, name)
        if value is not None and name != "web_search":  # which is sent as a tool
            body[name] = value
    if request.web_search:
        body["tools"] = [{"type": "web_search"}]
    return body
