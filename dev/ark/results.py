"""Result URLs, signed, short-lived and GET only, and the object store behind them."""

import asyncio
import hashlib
import re
import secrets
import time
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from . import media
from .errors import ArkError
from .faults import DOWNLOAD, Armed, Faults, act
from .ledger import Ledger
from .provider import Provider, Task
from .settings import Settings
from .wire import Cut, Drip

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
TYPES = {"video.mp4": "video/mp4", "last_frame.png": "image/png", "last_frame.jpeg": "image/jpeg"}
_ON_BODY = ("truncate", "drip", "wrong_length")


@dataclass
class _Signature:
    value: str
    downloads: int = 0


@dataclass
class Results:
    """The object store. A task's objects outlive its record, and die with their URLs."""

    settings: Settings
    _signatures: dict[tuple[str, str], list[_Signature]] = field(default_factory=dict)

    def urls(self, task: Task) -> dict[str, str]:
        """Return the `content` of a task that has succeeded; {} for any other."""
        if task.status != "succeeded":
            return {}
        urls = {"video_url": self._url(task, "video.mp4")}
        if task.request.return_last_frame:
            urls["last_frame_url"] = self._url(task, f"last_frame.{self.settings.last_frame}")
        return urls

    def redeem(self, task: Task | None, file: str, signature: str) -> Task:
        """Count a download.

        Raises:
            ArkError: 403: wrong signature, too late, or too often.
        """
        known = self._signatures.get((task.id, file), []) if task else []
        match = next((known for known in known if secrets.compare_digest(known.value, signature)), None)
        if task is None or match is None:
            raise ArkError(403, "SignatureDoesNotMatch", "The signature of the URL does not fit.")
        if task.ended is None or time.monotonic() - task.ended >= self.settings.url_seconds:
            raise ArkError(403, "AccessDenied", "The URL has expired.")
        if match.downloads >= self.settings.downloads_per_url:
            raise ArkError(403, "AccessDenied", "The URL has been used too often.")
        match.downloads += 1
        return task

    def _url(self, task: Task, file: str) -> str:
        signatures = self._signatures.setdefault((task.id, file), [])
        if not signatures or self.settings.resign_urls:
            signatures.append(_Signature(secrets.token_hex(16)))
        query = (
            "X-Tos-Algorithm=TOS4-HMAC-SHA256"
            f"&X-Tos-Expires={max(1, round(self.settings.url_seconds))}"
            f"&X-Tos-Signature={signatures[-1].value}"
        )
        return f"{self.settings.public_url}/results/{task.id}/{file}?{query}"


async def read_object(task: Task, file: str) -> bytes:
    """Make the bytes of a task's file, the same every time.

    Raises:
        ArkError: 404: the task has no such file.
    """
    if task.status != "succeeded" or file not in TYPES or (file != "video.mp4" and not task.request.return_last_frame):
        raise ArkError(404, "NoSuchKey", "The object does not exist.")
    if file == "video.mp4":
        return await asyncio.to_thread(media.video, task.request.clip, task.id)
    make = media.last_frame_jpeg if file.endswith("jpeg") else media.last_frame
    return await asyncio.to_thread(make, task.request.clip, task.id)


@dataclass
class Downloads:
    """`GET /results/{task_id}/{file}`."""

    provider: Provider
    results: Results
    faults: Faults
    ledger: Ledger

    async def get(self, request: Request) -> Response:
        """Answer one download, with the faults that are armed for it."""
        task_id, file = request.path_params["task_id"], request.path_params["file"]
        if "authorization" in request.headers:
            self.ledger.leaked(request.url.path, request.headers["authorization"])
        self.ledger.asked("download", task_id)
        try:
            return await self._get(request, task_id, file)
        except ArkError as error:
            return _refusal(error)

    async def _get(self, request: Request, task_id: str, file: str) -> Response:
        if request.method != "GET":
            raise ArkError(403, "SignatureDoesNotMatch", "The URL is signed for GET.")
        if file not in TYPES:
            raise ArkError(404, "NoSuchKey", "The object does not exist.")
        early = self.faults.take("download", set(DOWNLOAD) - set(_ON_BODY), task_id=task_id)
        if early is not None:
            return await _instead(early, request)
        task = self.results.redeem(
            self.provider.tasks.get(task_id), file, request.query_params.get("X-Tos-Signature", "")
        )
        response = serve_bytes(request, await read_object(task, file), TYPES[file])
        late = self.faults.take("download", _ON_BODY, task_id=task_id)
        return response if late is None else _spoilt(late, response)


def serve_bytes(request: Request, data: bytes, media_type: str) -> Response:
    """Return the whole, or the one `Range` that is requested."""
    etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag}
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or asked[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return Response(data, 200, headers, media_type)
    first, last = asked[1], asked[2]
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if start > end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, headers, media_type)


def _refusal(error: ArkError) -> Response:
    """An object store's refusal: XML, not the API's envelope."""
    text = f"<Error><Code>{error.code}</Code><Message>{error.message}</Message></Error>"
    return Response(text, error.status, media_type="application/xml")


async def _instead(fault: Armed, request: Request) -> Response:
    """Return the answer of a fault in place of the object."""
    match fault.fault:
        case "refuse":
            raise ArkError(403, fault.code or "AccessDenied", fault.message or "Refused.")
        case "not_ready":
            raise ArkError(400, "video_not_ready", "The video is not ready yet.")
        case "404":
            raise ArkError(404, "NoSuchKey", "The object does not exist.")
        case "html":
            return HTMLResponse("<html><body>Please log in to this network.</body></html>")
        case _:
            response = await act(fault, request)
            assert response is not None, "slow is no fault of a download"
            return response


def _spoilt(fault: Armed, whole: Response) -> Response:
    """Return the object, or the requested part, spoilt by a fault."""
    data = bytes(whole.body)
    half = data[: len(data) // 2]
    spoilt: Response
    match fault.fault:
        case "truncate":
            spoilt = Cut(half, len(data), whole.media_type or "", whole.status_code)
        case "wrong_length":
            # A complete and well-formed answer; only that half of the object is missing.
            spoilt = Response(half, whole.status_code, media_type=whole.media_type)
        case _:
            seconds = 10 if fault.seconds is None else fault.seconds
            spoilt = Drip(data, seconds, whole.media_type or "", whole.status_code)
    for name in ("accept-ranges", "etag", "content-range"):
        if name in whole.headers:
            spoilt.headers[name] = whole.headers[name]
    return spoilt
