"""The service's rules for `content`: items, roles, URL forms, scenes, and flags in the prompt."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from .catalog import Model
from .errors import ArkError, invalid, missing
from .references import MediaUrl
from .request import Scene

_ROLES = {
    "image_url": ("first_frame", "last_frame", "reference_image"),
    "video_url": ("reference_video",),
    "audio_url": ("reference_audio",),
}
_DATA_URLS = {
    "image_url": re.compile(r"data:image/(jpeg|jpg|png|webp|bmp|tiff|gif|heic|heif);base64,\S+"),
    "audio_url": re.compile(r"data:audio/(wav|mp3);base64,\S+"),
}
_REMOTE_URL = re.compile(r"(https?)://[^\s/]+\S*")
_ASSET_URL = re.compile(r"asset://\S+")

_FLAG = re.compile(r"(?:^|\s)--([a-z_]+)[ \t]+([^\s-]\S*|-?\d+)", re.IGNORECASE)
_FLAG_NAMES = {
    "rs": "resolution",
    "resolution": "resolution",
    "rt": "ratio",
    "ratio": "ratio",
    "dur": "duration",
    "duration": "duration",
    "seed": "seed",
    "wm": "watermark",
    "watermark": "watermark",
    "cf": "camera_fixed",
    "camerafixed": "camera_fixed",
}


@dataclass(frozen=True)
class Content:
    """The `content` of a create request."""

    text: str
    scene: Scene
    references: tuple[MediaUrl, ...]
    videos: int  # reference videos

    @property
    def flags(self) -> dict[str, str]:
        """Parameters hidden in the prompt, by the field that they change; the last one wins."""
        found = ((name.lower(), value) for name, value in _FLAG.findall(self.text))
        return {_FLAG_NAMES[name]: value for name, value in found if name in _FLAG_NAMES}


def read_content(value: object, model: Model, *, allow_http: bool) -> Content:
    """Read and check `content`.

    Raises:
        ArkError: 400, naming the item that is wrong.
    """
    if value is None:
        raise missing("content")
    if not isinstance(value, list) or not value:
        raise invalid("content", "expected a list with at least one item")
    texts: list[str] = []
    roles: list[str] = []
    references: list[MediaUrl] = []
    for index, item in enumerate(value):
        at = f"content[{index}]"
        if not isinstance(item, dict):
            raise invalid(at, "expected an object")
        kind = item.get("type")
        if kind == "text":
            texts.append(_text(item, at))
        elif isinstance(kind, str) and kind in _ROLES:
            references.append(MediaUrl(kind, _url(item, kind, at, allow_http=allow_http)))
            roles.append(_role(item, kind, at))
        else:
            raise invalid(f"{at}.type", f"unknown type {kind!r}")
    return Content("\n".join(texts), _scene(Counter(roles), bool(texts), model), tuple(references), _videos(roles))


def _videos(roles: list[str]) -> int:
    return roles.count("reference_video")


def _text(item: dict[str, Any], at: str) -> str:
    text = item.get("text")
    if text is None:
        raise missing(f"{at}.text")
    if not isinstance(text, str) or not text.strip():
        raise invalid(f"{at}.text", "expected a text that is not blank")
    return text


def _url(item: dict[str, Any], kind: str, at: str, *, allow_http: bool) -> str:
    holder = item.get(kind)
    url = holder.get("url") if isinstance(holder, dict) else None
    if url is None:
        raise missing(f"{at}.{kind}.url")
    if not isinstance(url, str):
        raise invalid(f"{at}.{kind}.url", "expected a string")
    remote = _REMOTE_URL.fullmatch(url)
    if remote and (remote[1] == "https" or allow_http):
        return url
    data = _DATA_URLS.get(kind)
    if _ASSET_URL.fullmatch(url) or (data and data.fullmatch(url)):
        return url
    raise invalid(f"{at}.{kind}.url", "the URL has a form that is not supported here")


def _role(item: dict[str, Any], kind: str, at: str) -> str:
    """Return the role; "" for an image without one."""
    role = item.get("role")
    if role is None and kind == "image_url":
        return ""
    if role is None:
        raise missing(f"{at}.role")
    if role not in _ROLES[kind]:
        raise invalid(f"{at}.role", f"{role!r} is not a role of {kind}")
    return str(role)


def _scene(roles: Counter[str], has_text: bool, model: Model) -> Scene:
    media = set(roles)
    if not media:
        if not has_text:
            raise missing("content.text")
        return "text"
    references = {role for role in media if role.startswith("reference_")}
    if references and media - references:
        raise invalid("content", "first/last frame content cannot be mixed with reference media content")
    if references:
        _check_counts(roles, model)
        return "references"
    if roles.total() == 1 and media <= {"first_frame", ""}:
        return "first frame"
    if roles == {"first_frame": 1, "last_frame": 1}:
        return "first and last frame"
    raise invalid("content", "frames must be one first_frame, or one first_frame and one last_frame")


def _check_counts(roles: Counter[str], model: Model) -> None:
    limits = model.references
    if limits is None:
        raise invalid("content", f"reference media are not supported by {model.family}")
    for role, limit in (
        ("reference_image", limits.images),
        ("reference_video", limits.videos),
        ("reference_audio", limits.audios),
    ):
        if roles[role] > limit:
            raise invalid("content", f"at most {limit} items of role {role}")
    if set(roles) == {"reference_audio"} and not limits.audio_alone:
        raise invalid("content", "reference audio needs a reference image or video beside it")


def explain_unreadable_body() -> ArkError:
    """Return the refusal of a body that is no JSON object."""
    return ArkError(400, "InvalidParameter", "The request body is not a valid JSON object.")
