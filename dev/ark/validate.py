"""The service's checks of a create: refusals, ignored fields, and defaults.

An unknown field is ignored, and the task is created and billed; `null` counts as absent; flags in the prompt
are obeyed. All three are what the real service does, and what a careful client has to guard against.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from .catalog import RATIOS, SELECTIVE_FIELDS, Model, Route, default_model_id, model_of, pixels
from .content import Content, explain_unreadable_body, read_content
from .errors import ArkError, invalid, missing, no_access
from .request import Doom, TaskRequest
from .settings import Settings

_MAX_BODY = 64 * 1024 * 1024
_MAX_REFERENCE_SECONDS = 15.0  # in total; longer references are refused by the real service
_MAX_SEED = 2**31 - 1
_DRAFT = "480p"
# By these and the like the model makes out that a prompt asks for an edit.
_EDITS = re.compile(r"\b(add|remove|replace)", re.IGNORECASE)
_TRUE = {"true": True, "1": True, "false": False, "0": False}


def read_body(raw: bytes) -> dict[str, Any]:
    """Read the JSON object of a create, without its nulls.

    Raises:
        ArkError: 400 for anything else.
    """
    if len(raw) > _MAX_BODY:
        raise ArkError(400, "InvalidParameter", "The request body is larger than 64 MB.")
    try:
        body = json.loads(raw)
    except ValueError:
        raise explain_unreadable_body() from None
    if not isinstance(body, dict):
        raise explain_unreadable_body()
    return {name: value for name, value in body.items() if value is not None}


def read_request(route: Route, body: Mapping[str, Any], settings: Settings) -> TaskRequest:
    """Check a create, and return its request.

    Raises:
        ArkError: 400 `MissingParameter` or `InvalidParameter`; 404 for a model that this route does not have.
    """
    model_given, model_id, model = _model(route, body, settings)
    content = read_content(body.get("content"), model, allow_http=settings.allow_http_references)
    for name in sorted(SELECTIVE_FIELDS & set(body)):
        if name not in model.fields:
            raise invalid(name, f"not supported by the model {model_id}")
    if "service_tier" in body and not model.service_tiers:
        raise invalid("service_tier", f"not supported by the model {model_id}")
    _check_rest(body, content, model)
    _check_task_type(body, content)
    is_draft = _boolean(body, "draft", False)

    flags = _flags(content, model)
    ratio = flags.get("ratio", _choice(body, "ratio", (*RATIOS, "adaptive"), "adaptive"))
    duration = flags.get("duration", _duration(body, model))
    resolution = flags.get("resolution", _choice(body, "resolution", model.resolutions, _DRAFT if is_draft else "720p"))
    if is_draft and resolution != _DRAFT:
        raise invalid("resolution", f"a draft has {_DRAFT}")
    shown_ratio = settings.adaptive_ratio if ratio == "adaptive" else ratio
    seed = flags.get("seed", _integer(body, "seed", -1, _MAX_SEED, -1))
    return TaskRequest(
        model=model_id,
        model_given=model_given,
        scene=content.scene,
        ratio=shown_ratio,
        resolution=resolution,
        size=model.pixels(resolution, shown_ratio),
        duration=min(settings.chosen_duration, model.longest) if duration in (None, -1) else duration,
        generate_audio=_boolean(body, "generate_audio", True),
        watermark=flags.get("watermark", _boolean(body, "watermark", False)),
        return_last_frame=_boolean(body, "return_last_frame", False),
        execution_expires_after=_integer(body, "execution_expires_after", 3600, 259_200, 172_800),
        priority=_integer(body, "priority", 0, 9, 0),
        service_tier=_choice(body, "service_tier", model.service_tiers, "default"),
        draft=is_draft,
        web_search=bool(body.get("tools")),
        limited_as_4k=model.family == "2.0" and resolution == "4k",
        doom=_doom(body, content, model, ratio, duration),
        seed=random.randint(0, _MAX_SEED) if seed == -1 else seed,
        callback_url=_callback_url(body),
        safety_identifier=_safety_identifier(body),
        references=content.references,
        billed_reference_seconds=min(
            content.videos * settings.reference_video_seconds, max(_MAX_REFERENCE_SECONDS, model.longest)
        ),
    )


def draft_of(body: Mapping[str, Any]) -> str | None:
    """Return the id of the draft whose final a create asks for, or None.

    Raises:
        ArkError: 400 for an item without an id.
    """
    content = body.get("content")
    items = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    item = next((item for item in items if item.get("type") == "draft_task"), None)
    if item is None:
        return None
    draft = item.get("draft_task")
    if not isinstance(draft, dict) or not isinstance(draft.get("id"), str):
        raise missing("content[0].draft_task.id")
    return str(draft["id"])


def read_final(body: Mapping[str, Any], draft: TaskRequest) -> TaskRequest:
    """Check the create of a draft's final, and return its request: that of the draft, at a higher resolution.

    Raises:
        ArkError: 400 for a field that the draft has decided.
    """
    if body.get("model") != draft.model_given:
        raise invalid("model", "a final has the model of its draft")
    if len(body["content"]) != 1:
        raise invalid("content", "a final takes nothing beside its draft")
    for name in ("ratio", "duration", "seed", "generate_audio", "draft", "omni_reference_task_type", "tools"):
        if name in body:
            raise invalid(name, "a final takes it from its draft")
    resolution = _choice(body, "resolution", ("1080p",), "1080p")
    return replace(
        draft,
        resolution=resolution,
        size=pixels(resolution, draft.ratio),
        draft=False,
        watermark=_boolean(body, "watermark", False),
        return_last_frame=_boolean(body, "return_last_frame", False),
        execution_expires_after=_integer(body, "execution_expires_after", 3600, 259_200, 172_800),
        priority=_integer(body, "priority", 0, 9, 0),
        callback_url=_callback_url(body),
        safety_identifier=_safety_identifier(body),
    )


def _model(route: Route, body: Mapping[str, Any], settings: Settings) -> tuple[str, str, Model]:
    given = body.get("model")
    if given is None:
        raise missing("model")
    if not isinstance(given, str):
        raise invalid("model", "expected a string")
    is_endpoint = given.startswith("ep-")
    model_id = settings.endpoints.get(given, default_model_id(route)) if is_endpoint else given
    model = model_of(route, model_id, settings.models)
    if model is None or (model.ends is not None and (settings.today or datetime.now(UTC).date()) >= model.ends):
        raise no_access("model", given)
    return given, model_id, model


def _check_task_type(body: Mapping[str, Any], content: Content) -> None:
    """Check the task type that a request names. What the model makes out itself is checked later, see `_doom`."""
    task_type = body.get("omni_reference_task_type")
    if task_type not in ("edit", "extend"):
        return
    if not content.videos:
        raise _unfit_type(f"{task_type} needs a reference video")
    if not content.text:
        raise _unfit_type(f"{task_type} needs a prompt")
    if body.get("ratio", "adaptive") != "adaptive":
        raise _unfit_type(f"{task_type} needs an adaptive ratio")
    if task_type == "edit" and body.get("duration", -1) != -1:
        raise _unfit_type("edit needs a duration of -1")


def _unfit_type(problem: str) -> ArkError:
    return ArkError(400, "InvalidParameter.TaskTypeConstraint", f"{problem}.", param="omni_reference_task_type")


def _doom(body: Mapping[str, Any], content: Content, model: Model, ratio: str, duration: object) -> Doom | None:
    """Return why a task will fail, unbilled, though its create is accepted: rules that are checked after it."""
    if not model.plans_tasks:
        return None
    if content.scene in ("first frame", "first and last frame") and ratio != "adaptive":
        return Doom("InvalidParameter.TaskTypeConstraint", "Tasks with frames need an adaptive ratio.")
    is_open = body.get("omni_reference_task_type", "auto") == "auto"
    if is_open and content.videos and _EDITS.search(content.text) and (ratio, duration) != ("adaptive", -1):
        return Doom("InvalidParameter.TaskTypeMismatch", "It was taken for an edit, whose rules it breaks.")
    return None


def _check_rest(body: Mapping[str, Any], content: Content, model: Model) -> None:
    """Check the fields that change nothing here."""
    _boolean(body, "camera_fixed", False)
    _choice(body, "output_format", ("mp4", "mov"), "mp4")
    _choice(body, "omni_reference_task_type", ("auto", "reference", "edit", "extend"), "auto")
    tools = body.get("tools", [])
    if not isinstance(tools, list) or any(tool != {"type": "web_search"} for tool in tools):
        raise invalid("tools", 'expected [{"type": "web_search"}]')
    if tools and content.scene != "text":
        raise invalid("tools", f"{model.family} searches the web for text-only input alone")


def _flags(content: Content, model: Model) -> dict[str, Any]:
    """Return the prompt's flags that this model obeys; the service ignores the others silently."""
    obeyed: dict[str, Any] = {}
    for name, value in content.flags.items():
        number = int(value) if value.lstrip("-").isdecimal() else None
        match name:
            case "resolution" if value in model.resolutions:
                obeyed[name] = value
            case "ratio" if value in (*RATIOS, "adaptive"):
                obeyed[name] = value
            case "duration" if number is not None and (number == -1 or 4 <= number <= model.longest):
                obeyed[name] = number
            case "seed" if number is not None and "seed" in model.fields and -1 <= number <= _MAX_SEED:
                obeyed[name] = number
            case "watermark" if value.lower() in _TRUE:
                obeyed[name] = _TRUE[value.lower()]
    return obeyed


def _duration(body: Mapping[str, Any], model: Model) -> int | None:
    if body.get("duration") == -1:
        return -1
    return _integer(body, "duration", 4, model.longest, -1)


def _boolean(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise invalid(name, "expected a boolean")
    return value


def _integer(body: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    if name not in body:
        return default
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(name, "expected an integer")
    if not low <= value <= high:
        raise invalid(name, f"expected {low}..{high}")
    return value


def _choice(body: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = body.get(name)
    if value is None:
        return default
    if value not in allowed:
        raise invalid(name, f"expected one of {', '.join(allowed)}")
    return str(value)


def _callback_url(body: Mapping[str, Any]) -> str | None:
    url = body.get("callback_url")
    if url is None:
        return None
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise invalid("callback_url", "expected an HTTP(S) URL")
    return url


def _safety_identifier(body: Mapping[str, Any]) -> str | None:
    identifier = body.get("safety_identifier")
    if identifier is None:
        return None
    if not isinstance(identifier, str) or not identifier.isascii() or len(identifier) > 64:
        raise invalid("safety_identifier", "expected at most 64 ASCII characters")
    return identifier
