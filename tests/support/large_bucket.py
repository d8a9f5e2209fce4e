"""A server with the listing of a bucket of very many jobs: ``python -m tests.support.large_bucket JOBS OPEN SECONDS``.

It speaks as much of the API as a reader needs: pages of 1,000 objects, and small contents, each after so many seconds.
It prints its port. A real bucket server would need many minutes to be filled.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

from seedance_temporal.ledger.facts import Claim
from tests.support.jobs import a_request, created

PAGE = 1_000
_AT = "2026-11-22T10:00:00.000Z"
_STORED = ("cgt-1/output.mp4", "cgt-1/task.json", "cgt-1/verified-00000000.json", "record.json")
_FOLDER = "seedance/"


def _names(jobs: int, open_jobs: int) -> Iterator[str]:
    for number in range(jobs):
        root = f"{_FOLDER}{hashlib.sha256(str(number).encode()).hexdigest()}"
        yield from (f"{root}/attempts/0001.claim.json", f"{root}/attempts/0001.outcome.json")
        if number >= open_jobs:
            yield from (f"{root}/{file}" for file in _STORED)


def _item(name: str) -> dict[str, object]:
    # As long as Google's are.
    links = dict.fromkeys(("selfLink", "mediaLink", "id"), f"https://www.googleapis.com/storage/v1/b/videos/o/{name}")
    metadata = {"metadata": {"kind": "created"}} if name.endswith("outcome.json") else {}
    fields = {"kind": "storage#object", "name": name, "bucket": "videos", "generation": "1", "metageneration": "1"}
    times = dict.fromkeys(("timeCreated", "updated", "timeStorageClassUpdated"), _AT)
    sums = {"size": "1000", "crc32c": "AAAAAA==", "md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==", "etag": "CAE="}
    return {**links, **metadata, **fields, **times, **sums, "storageClass": "STANDARD", "contentType": "text/plain"}


def _content(name: str) -> bytes:
    if name.endswith("outcome.json"):
        return created("cgt-1").model_dump_json().encode()
    claim = Claim(
        job_id=f"seedance-{name.removeprefix(_FOLDER).partition('/')[0]}",
        attempt=1,
        nonce="0" * 32,
        namespace="default",
        run_id="",
        claimed_at=datetime.now(UTC),
        request=a_request(),
    )
    return claim.model_dump_json().encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    names: list[str]
    seconds: float

    def do_GET(self) -> None:
        time.sleep(self.seconds)
        url = urlparse(self.path)
        _, is_object, name = url.path.partition("/o/")
        self._answer(_content(unquote(name)) if is_object else self._page(parse_qs(url.query)))

    def _page(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        first = bisect_left(self.names, query.get("pageToken", [prefix])[0])
        most = int(query.get("maxResults", [str(PAGE)])[0])
        page = [name for name in self.names[first : first + most] if name.startswith(prefix)]
        following = self.names[first + most : first + most + 1]
        token = {"nextPageToken": following[0]} if following and following[0].startswith(prefix) else {}
        return json.dumps({"kind": "storage#objects", "items": [*map(_item, page)], **token}).encode()

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    jobs, open_jobs, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _Handler.names, _Handler.seconds = sorted(_names(jobs, open_jobs)), seconds
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
