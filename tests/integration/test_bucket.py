"""One contract for the bucket of Google's API (a real fake-gcs-server) and the one in memory."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from google.cloud import storage
from requests.adapters import HTTPAdapter

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.storage import bucket as storage_bucket
from seedance_temporal.storage.bucket import Bucket, BucketError, Checksums, GoogleBucket
from tests.support.fake_gcs import fake_gcs
from tests.support.memory_bucket import MemoryBucket
from tests.support.raw_host import raw_host

_numbers = count()


@pytest.fixture(params=["google", "memory"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    if request.param == "memory":
        return MemoryBucket()
    google: GoogleBucket = request.getfixturevalue("google")
    return google


@pytest.fixture
def prefix() -> str:
    return f"seedance/{next(_numbers)}/"


async def test_long_object_is_read_up_to_a_bound(
    google: GoogleBucket, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_bucket, "_MOST_READ_BYTES", 99)
    await google.create(f"{prefix}long", b"x" * 1000)
    await google.create(f"{prefix}empty", b"")
    assert await google.read(f"{prefix}long") == b"x" * 100
    assert await google.read(f"{prefix}empty") == b""
    assert await google.read(f"{prefix}none") is None


@pytest.mark.parametrize("content", ["[]", "7", "{}", "{", None])
def test_unusable_credentials_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path if content is not None else tmp_path))
    with pytest.raises(InvalidSettings):
        GoogleBucket("videos")


def test_credentials_need_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    file = tmp_path / "person.json"
    file.write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    assert GoogleBucket("videos").name == "videos"


async def test_created_object_is_read(bucket: Bucket, prefix: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    assert await bucket.create(f"{prefix}a.json", b"123456789")

    assert await bucket.read(f"{prefix}a.json") == b"123456789"
    stored = await bucket.stat(f"{prefix}a.json")
    assert stored is not None
    assert (stored.name, stored.size, stored.crc32c) == (f"{prefix}a.json", 9, "4waSgw==")
    assert stored.generation > 0
    assert before < stored.created_at < datetime.now(UTC) + timedelta(seconds=5)


async def test_missing_object_is_none(bucket: Bucket, prefix: str) -> None:
    assert await bucket.read(f"{prefix}a.json") is None
    assert await bucket.stat(f"{prefix}a.json") is None
    assert await bucket.checksums(f"{prefix}a.json") is None
    assert await bucket.list(prefix) == []


async def test_object_is_created_once(bucket: Bucket, prefix: str) -> None:
    assert await bucket.create(f"{prefix}a.json", b"first")
    assert not await bucket.create(f"{prefix}a.json", b"second")
    assert await bucket.read(f"{prefix}a.json") == b"first"


async def test_one_of_forty_creators_wins(bucket: Bucket, prefix: str) -> None:
    won = await asyncio.gather(*(bucket.create(f"{prefix}a.json", b"%d" % n) for n in range(40)))

    assert won.count(True) == 1
    assert await bucket.read(f"{prefix}a.json") == b"%d" % won.index(True)


async def test_calls_at_once_keep_their_connections(google: GoogleBucket, caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.gather(*(google.read("missing") for _ in range(100)))
    assert "Connection pool is full" not in caplog.text


async def test_list_holds_prefix_in_order(bucket: Bucket, prefix: str) -> None:
    for name in ("b.json", "a/2.json", "a/1.json"):
        await bucket.create(f"{prefix}{name}", b"{}")
    await bucket.create(f"{prefix.rstrip('/')}0/c.json", b"{}")

    listed = await bucket.list(prefix)
    assert [stored.name.removeprefix(prefix) for stored in listed] == ["a/1.json", "a/2.json", "b.json"]
    assert listed[2] == await bucket.stat(f"{prefix}b.json")


@pytest.mark.parametrize("size", [1000, 20 * 1024 * 1024 + 7], ids=["small", "in parts"])
async def test_uploaded_file_is_whole(bucket: Bucket, prefix: str, tmp_path: Path, size: int) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(os.urandom(size))

    stored = await bucket.upload(f"{prefix}output.mp4", path, "video/mp4")

    local = Checksums.of_file(path)
    assert stored is not None
    assert (stored.size, stored.crc32c, stored.md5) == (size, local.crc32c, local.md5)
    assert await bucket.stat(f"{prefix}output.mp4") == stored
    first = await bucket.read(f"{prefix}output.mp4")
    assert first is not None, "of a long one, this is only the beginning"
    assert path.read_bytes().startswith(first)
    assert await bucket.checksums(f"{prefix}output.mp4") == local


async def test_an_upload_overwrites_nothing(bucket: Bucket, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"second")
    await bucket.create(f"{prefix}output.mp4", b"first")

    assert await bucket.upload(f"{prefix}output.mp4", path, "video/mp4") is None
    assert await bucket.read(f"{prefix}output.mp4") == b"first"


async def test_odd_name_is_unchanged(bucket: Bucket, prefix: str) -> None:
    name = f"{prefix}late-cgt%2F1 ä?#.json"
    await bucket.create(name, b"{}")
    assert await bucket.read(name) == b"{}"
    assert [stored.name for stored in await bucket.list(prefix)] == [name]


async def test_kind_is_listed(bucket: Bucket, prefix: str) -> None:
    await bucket.create(f"{prefix}a.json", b"{}", kind="not_sent")
    await bucket.create(f"{prefix}b.json", b"{}")
    assert [stored.kind for stored in await bucket.list(prefix)] == ["not_sent", None]


@pytest.mark.parametrize(("metageneration", "kind"), [("1", "not_sent"), ("2", None)])
async def test_changed_metadata_is_not_believed(metageneration: str, kind: str | None) -> None:
    item = {
        "name": "a.json",
        "generation": "17",
        "metageneration": metageneration,
        "size": "2",
        "crc32c": "4waSgw==",
        "timeCreated": "2026-11-01T00:00:00Z",
        "metadata": {"kind": "not_sent"},
    }
    async with raw_host() as host:
        host.answers(200, json.dumps({"items": [item]}), "Content-Type: application/json")
        endpoint = {"api_endpoint": host.url}
        client = storage.Client("local", client_options=endpoint, use_auth_w_custom_endpoint=False)
        (stored,) = await GoogleBucket("videos", client).list("")
    assert (stored.generation, stored.kind) == (17, kind)


async def test_missing_bucket_is_an_error(google: GoogleBucket) -> None:
    missing = GoogleBucket("missing", google._client)
    with pytest.raises(Exception, match="404"):
        await missing.check()
    await google.check()


@pytest.mark.parametrize("ask", [GoogleBucket.read, GoogleBucket.stat, GoogleBucket.checksums])
async def test_missing_bucket_has_no_missing_objects(google: GoogleBucket, ask: Any) -> None:
    with pytest.raises(BucketError, match="404"):
        await ask(GoogleBucket("missing", google._client), "a.json")
    assert await ask(google, "a.json") is None


@pytest.mark.parametrize("ask", [GoogleBucket.read, GoogleBucket.stat, GoogleBucket.checksums])
@pytest.mark.parametrize("listed", ["every-answer", "questions-for-objects"])
async def test_404_of_a_gateway_is_an_error(ask: Any, listed: str) -> None:
    """It knows nothing of the object, which is there."""
    with fake_gcs("behind-a-gateway") as client:
        bucket = GoogleBucket("behind-a-gateway", client)
        await bucket.create("a.json", b"{}")
        client._http.mount("http://", _Gateway(lists=listed == "questions-for-objects"))
        with pytest.raises(BucketError, match="404"):
            await ask(bucket, "a.json")


class _Gateway(HTTPAdapter):
    """A gateway that answers 404 to questions for objects, or to all."""

    def __init__(self, *, lists: bool) -> None:
        super().__init__()
        self._lists = lists

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if self._lists and "prefix=" in (request.url or ""):
            return super().send(request, *args, **kwargs)
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = 404, request.url or "", request
        answer.raw, answer._content = None, b"<html>not here</html>"
        return answer


async def test_unreachable_bucket_is_an_error_in_time(google: GoogleBucket) -> None:
    with fake_gcs("gone") as client:
        gone = GoogleBucket("gone", client)
    with pytest.raises(Exception, match=r"Retry|Timeout|refused"):
        await gone.create("a.json", b"{}", seconds=1)


def test_checksums_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert Checksums.of_file(path) == Checksums(0, "AAAAAA==", "1B2M2Y8AsgTpgAmY7PhCfg==")


async def test_bucket_error_is_bounded_without_signature() -> None:
    """The library quotes the whole answer, which ends up in a run's history."""
    async with raw_host() as host:
        host.answers(403, "https://storage.example.com/o?X-Goog-Signature=5ec4e7 " + "x" * 3_000_000)
        endpoint = {"api_endpoint": host.url}
        client = storage.Client("local", client_options=endpoint, use_auth_w_custom_endpoint=False)
        with pytest.raises(BucketError) as caught:
            await GoogleBucket("videos", client).read("seedance/x")
    assert "Forbidden" in str(caught.value)
    assert "5ec4e7" not in str(caught.value)
    assert len(str(caught.value)) < 1000
