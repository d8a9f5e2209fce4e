"""A worker process that suffers faults: ``python -m tests.faults.worker``.

It builds the same workers as ``worker.py``, and gives them a bucket and transports that can fail. Variables of the
environment choose the faults:

- ``FAULT_POINT``, ``FAULT_SIGNAL``: at this point, once, the process sends itself this signal. The points are those of
  :data:`POINTS`.
- ``FAULT_HOLD``: at the point, wait first until ``<marker>.go`` exists.
- ``FAULT_WEATHER``: how the bucket fails, as JSON: ``{"kind": "503" | "lost" | "away", "names": …, "times": …}``.
- ``FAULT_SPOIL``: the first download has its second half zeroed; its length stays.
- ``FAULT_HASH``, ``FAULT_PROMPT``: the only job that suffers them.
- ``FAULT_MARKER``: a file that gets a line for each fault that happened.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import requests
from google.cloud import storage
from requests.adapters import HTTPAdapter

from seedance_temporal.media.public_http import PublicTransport
from seedance_temporal.provider.ark import Ark
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import GoogleBucket
from tests.support import coming_sdk
from workers.serve import serve

POINTS = {
    "before the claim": "create of …claim.json, before",
    "after the claim": "create of …claim.json, after",
    "before the POST left": "its head is sent, its body is not",
    "after the POST left": "the body is sent, no answer yet",
    "after its answer": "the answer's head is there, nothing is written",
    "after the outcome": "create of …outcome.json, after; the activity has not completed",
    "mid-download": "half of a piece of the video is on disk",
    "mid-upload": "half of the upload's body is sent",
    "before the record": "create of record.json, before",
    "after the record": "create of record.json, after",
}
# With the slash it is the object: the ``verified-…`` object holds the file's name alone.
_VIDEO = "/output.mp4"


@dataclass
class Faults:
    """The chosen fault, and the file that shows that it happened."""

    marker: Path
    point: str
    signal: signal.Signals | None
    hold: bool
    hash: str
    prompt: str
    faults: dict[str, Any]
    spoil: bool

    @classmethod
    def from_environment(cls) -> Faults:
        name = os.environ.get("FAULT_SIGNAL")
        return cls(
            marker=Path(os.environ["FAULT_MARKER"]),
            point=os.environ.get("FAULT_POINT", ""),
            signal=signal.Signals[name] if name else None,
            hold=bool(os.environ.get("FAULT_HOLD")),
            hash=os.environ["FAULT_HASH"],
            prompt=os.environ["FAULT_PROMPT"],
            faults=json.loads(os.environ.get("FAULT_WEATHER", "{}")),
            spoil=bool(os.environ.get("FAULT_SPOIL")),
        )

    def at(self, point: str, name: str = "") -> None:
        """Note that the process is at a point; name: of an object, which must be the job's."""
        if point != self.point or self.signal is None or (name and self.hash not in name) or self.marker.exists():
            return
        self.happened(f"{self.signal.name} {point}")
        while self.hold and not self.marker.with_suffix(".go").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), self.signal)

    def happened(self, fault: str) -> None:
        with self.marker.open("a") as file:
            file.write(fault + "\n")

    def times(self) -> int:
        return len(self.marker.read_text().splitlines()) if self.marker.exists() else 0


class FaultyBucket(GoogleBucket):
    """The real bucket, with points before and after the objects that matter."""

    def __init__(self, name: str, client: storage.Client, faults: Faults) -> None:
        super().__init__(name, client)
        self._faults = faults

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        written = next((what for what in ("claim", "outcome", "record") if name.endswith(f"{what}.json")), "")
        self._faults.at(f"before the {written}", name)
        created = await super().create(name, content, kind=kind, seconds=seconds)
        self._faults.at(f"after the {written}", name)
        return created


class FaultyStorage(HTTPAdapter):
    """A transport under the storage library: half an upload, answers 503, lost answers, an unreachable bucket."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        body = request.body.encode() if isinstance(request.body, str) else request.body
        body = body if isinstance(body, bytes) else b""
        url = unquote(request.url or "")
        # An upload names its object in the body's metadata, everything else in the URL.
        names = url + body[:2000].decode(errors="replace")
        if self._faults.hash in names or self._is_away():
            self._refuse(names, request.method or "")
            if self._faults.point == "mid-upload" and _VIDEO in names and "/upload/" in url:
                request.body = self._halves(body)  # an iterator is accepted as well
            if self._answer_is(names, "503", request.method or ""):
                answer = requests.Response()
                answer.status_code, answer.url, answer.request = 503, request.url or "", request
                answer.raw = None
                answer._content = b'{"error": {"code": 503, "message": "the bucket is unavailable"}}'
                return answer
            if self._answer_is(names, "lost", request.method or ""):
                super().send(request, *args, **kwargs).close()
                raise requests.ConnectionError("the answer was lost on the way")
        return super().send(request, *args, **kwargs)

    def _halves(self, body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        self._faults.at("mid-upload")
        yield body[len(body) // 2 :]

    def _answer_is(self, names: str, kind: str, method: str) -> bool:
        faults = self._faults.faults
        if faults.get("kind") != kind or not self._is_meant(names, method):
            return False
        if self._faults.times() >= faults["times"]:
            return False
        self._faults.happened(f"{kind}: {faults['names']}")
        return True

    def _is_meant(self, names: str, method: str) -> bool:
        return self._faults.faults["names"] in names and method in {"POST", "PUT"}

    def _is_away(self) -> bool:
        is_away = self._faults.faults.get("kind") == "away" and self._faults.marker.exists()
        return is_away and not self._faults.marker.with_suffix(".back").exists()

    def _refuse(self, names: str, method: str) -> None:
        faults = self._faults.faults
        if faults.get("kind") != "away" or self._faults.marker.with_suffix(".back").exists():
            return
        if self._faults.marker.exists() or self._is_meant(names, method):
            self._faults.happened("away")
            raise requests.ConnectionError("the bucket is away")


class FaultyPost(httpx.AsyncHTTPTransport):
    """A transport under the provider client: points around the paid POST."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        is_meant = request.method == "POST" and self._faults.prompt.encode() in await request.aread()
        if not is_meant:
            return await super().handle_async_request(request)

        async def trace(event: str, _: dict[str, Any]) -> None:
            if event == "http11.send_request_body.started":
                self._faults.at("before the POST left")
            if event == "http11.receive_response_headers.started":
                self._faults.at("after the POST left")

        request.extensions = {**request.extensions, "trace": trace}
        response = await super().handle_async_request(request)
        self._faults.at("after its answer")
        return response


class FaultyDownload(PublicTransport):
    """A transport of result downloads. A URL does not name its job: the job is alone in its namespace."""

    def __init__(self, faults: Faults, insecure_hosts: frozenset[str]) -> None:
        super().__init__(insecure_hosts)
        self._faults = faults

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Pieces(response.stream, self._faults)
        return response


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._faults.spoil and not self._faults.marker.exists():
            whole = b"".join([piece async for piece in self._inner])
            self._faults.happened("the second half is zeroed")
            yield whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
            return
        async for piece in self._inner:
            yield piece[: len(piece) // 2]
            self._faults.at("mid-download")
            yield piece[len(piece) // 2 :]

    async def aclose(self) -> None:
        await self._inner.aclose()


def main() -> None:
    """Serve, as ``worker.py`` does, until the fault happens."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if coming_sdk.is_wanted():
        coming_sdk.switch_on_everywhere()
    faults = Faults.from_environment()
    settings = Settings.from_environment("ARK_API_KEY", "SEEDANCE_BUCKET")
    assert settings.ark_api_key is not None
    assert settings.seedance_bucket is not None
    client = storage.Client()
    client._http.mount("http://", FaultyStorage(faults))
    bucket = FaultyBucket(settings.seedance_bucket, client, faults)
    ark = Ark(
        settings.base_url,
        settings.ark_api_key.get_secret_value(),
        settings.secrets,
        transport=lambda: FaultyPost(faults),
    )
    asyncio.run(
        serve(settings, bucket, ark, result_transport=lambda: FaultyDownload(faults, settings.seedance_insecure_hosts))
    )


if __name__ == "__main__":
    main()
