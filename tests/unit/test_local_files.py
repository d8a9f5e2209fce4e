"""References that are files on the machine of the command line: found, refused, and brought into the bucket once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from activities.bucket import StoredObject
from commands.bucket import BucketRefused
from commands.requests import RequestReader, folder_of
from commands.uploads import Uploads, spinner
from seedance_temporal.errors import InvalidRequest, InvalidSettings
from seedance_temporal.identity import request_hash
from seedance_temporal.models import MEDIA
from seedance_temporal.request import VideoRequest
from tests.unit.jobs import some_settings
from tests.unit.memory_bucket import MemoryBucket

CONTENT = b"what a picture holds"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"seedance/media/{SHA256}.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shot.png").write_bytes(CONTENT)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "Same.PNG").write_bytes(CONTENT)
    (tmp_path / "pictures" / "other.webp").write_bytes(b"another")
    (tmp_path / "empty.png").touch()
    return tmp_path


def a_reader(**settings: Any) -> RequestReader:
    return RequestReader(some_settings(**{"seedance_bucket": "videos"} | settings))


def with_urls(*urls: object, **changes: Any) -> bytes:
    references = [{"role": "reference_image", "url": url} for url in urls]
    fields = {"user_id": "u", "route": "byteplus", "model": "dreamina-seedance-2-0-260128", "references": references}
    return json.dumps(fields | changes).encode()


def problems(reader: RequestReader, text: bytes, folder: Path) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        reader.read(text, folder)
    return {problem.at: problem.problem for problem in refused.value.problems}


async def uploaded(bucket: MemoryBucket, reader: RequestReader, *requests: VideoRequest) -> list[VideoRequest]:
    with spinner() as progress:
        uploads = Uploads(bucket, reader.files, progress)
        return [*await asyncio.gather(*map(uploads.uploaded, requests))]


# Found


@pytest.mark.parametrize("path", ["shot.png", "./shot.png", "pictures/../shot.png", "pictures/Same.PNG"])
def test_a_path_stands_for_its_content(folder: Path, path: str) -> None:
    reader = a_reader()
    (reference,) = reader.read(with_urls(path), folder).references
    assert reference.url == f"gs://videos/{NAME}#1"
    assert reference.asset_id == f"sha256:{SHA256}"
    assert reader.files[reference.url].size == len(CONTENT)


def test_an_absolute_path(folder: Path, tmp_path: Path) -> None:
    (reference,) = a_reader().read(with_urls(str(tmp_path / "shot.png")), Path("/")).references
    assert reference.asset_id == f"sha256:{SHA256}"


def test_the_prefix_is_that_of_the_settings(folder: Path) -> None:
    (reference,) = a_reader(seedance_prefix="staging").read(with_urls("shot.png"), folder).references
    assert reference.url == f"gs://videos/staging/media/{SHA256}.png#1"


def test_an_asset_id_that_was_given_is_kept(folder: Path) -> None:
    text = with_urls()[:-3] + b'[{"role": "reference_image", "url": "shot.png", "asset_id": "sku-7"}]}'
    (reference,) = a_reader().read(text, folder).references
    assert reference.asset_id == "sku-7"


def test_the_job_depends_on_the_content_and_not_on_where_it_stands(folder: Path) -> None:
    reader = a_reader()
    hashes = [request_hash(reader.read(with_urls(path), folder)) for path in ("shot.png", "pictures/Same.PNG")]
    elsewhere = a_reader(seedance_bucket="other", seedance_prefix="other").read(with_urls("shot.png"), folder)
    assert {*hashes, request_hash(elsewhere)} == {hashes[0]}
    assert request_hash(reader.read(with_urls("pictures/other.webp"), folder)) != hashes[0]


def test_what_has_a_scheme_is_no_path(folder: Path) -> None:
    urls = ["https://cdn.example.com/a.png", "asset://a", "gs://b-1/a.png#7"]
    reader = a_reader(seedance_bucket=None)
    assert [one.url for one in reader.read(with_urls(*urls), folder).references] == urls
    assert reader.files == {}


def test_paths_are_relative_to_the_request_or_to_where_the_command_runs(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path / "request.json")) == tmp_path
    assert folder_of("-") == Path.cwd()


# Refused


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("none.png", "No such file"),
        ("pictures", "is a directory"),
        ("empty.png", "is empty"),
        ("shot.png/more", "Not a directory"),
        ("a\0b", "cannot be read"),
        ("file:///shot.png", "give the plain path"),
        ("FILE:shot.png", "give the plain path"),
        ("ftp://example.com/a.png", "not an https URL"),
        ("", "not an https URL"),
        ("~nobody/shot.png", "No such file"),
    ],
)
def test_a_path_that_leads_to_no_content(folder: Path, url: str, says: str) -> None:
    found = problems(a_reader(), with_urls("shot.png", url), folder)
    assert found.keys() == {"references[1].url"}
    assert says in found["references[1].url"]


def test_a_file_that_is_too_large_is_not_even_read(folder: Path) -> None:
    with (folder / "large.png").open("wb") as file:
        file.truncate(MEDIA["image"].max_bytes + 1)
    found = problems(a_reader(), with_urls("large.png"), folder)
    assert f"{MEDIA['image'].max_bytes} are allowed" in found["references[0].url"]


def test_everything_that_is_wrong_is_said_at_once(folder: Path) -> None:
    text = with_urls("none.png", "data:x", duration=99, colour="red")
    assert problems(a_reader(), text, folder).keys() == {"references[0].url", "references[1].url", "duration", "colour"}


@pytest.mark.parametrize("references", ["shot.png", ["shot.png"], [None], [{"url": 7}], {"url": "shot.png"}])
def test_any_json_becomes_an_error_and_no_traceback(folder: Path, references: object) -> None:
    assert any(at.startswith("references") for at in problems(a_reader(), with_urls(references=references), folder))
    assert problems(a_reader(), json.dumps([references]).encode(), folder) == {"": "the request must be a JSON object"}


def test_a_name_that_stands_twice_is_still_noticed(folder: Path) -> None:
    text = with_urls()[:-3] + b'[{"role": "reference_image", "url": "shot.png", "url": "shot.png"}]}'
    assert "more than once" in problems(a_reader(), text, folder)["references[0].url"]


def test_without_a_bucket_nothing_else_is_said(folder: Path) -> None:
    with pytest.raises(InvalidSettings, match="SEEDANCE_BUCKET"):
        a_reader(seedance_bucket=None).read(with_urls("shot.png", duration=99), folder)


def test_limits_of_the_environment_hold_before_anything_is_submitted(folder: Path) -> None:
    reader = a_reader(seedance_max_usd_per_request=0.01)
    assert "SEEDANCE_MAX_USD_PER_REQUEST" in problems(reader, with_urls("shot.png"), folder)[""]


# Uploaded


async def test_a_file_goes_into_the_bucket_once(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    requests = [reader.read(with_urls("shot.png", "pictures/other.webp", take=take), folder) for take in range(1, 9)]
    sent = await uploaded(bucket, reader, *requests)
    assert bucket.contents[NAME] == CONTENT
    assert len(bucket.writes) == 2
    for before, after in zip(requests, sent, strict=True):
        assert request_hash(after) == request_hash(before)
        assert after.references[0].url == f"gs://videos/{NAME}#{bucket.stored[NAME].generation}"
    # Another day, by another process.
    (again,) = await uploaded(bucket, reader, requests[0])
    assert again == sent[0]
    assert len(bucket.writes) == 2


async def test_an_object_that_was_lost_is_uploaded_again_and_stays_the_same_job(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    request = reader.read(with_urls("shot.png"), folder)
    (first,) = await uploaded(bucket, reader, request)
    del bucket.stored[NAME]
    (second,) = await uploaded(bucket, reader, request)
    assert first.references[0].url != second.references[0].url
    assert request_hash(first) == request_hash(second)


async def test_what_is_no_file_is_left_alone(folder: Path) -> None:
    reader = a_reader()
    request = reader.read(with_urls("https://cdn.example.com/a.png"), folder)
    bucket = MemoryBucket()
    assert await uploaded(bucket, reader, request) == [request]
    assert bucket.writes == []


async def test_an_object_with_other_content_is_not_taken(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    await bucket.create(NAME, b"not what its name says")
    with pytest.raises(BucketRefused, match="does not hold what"):
        await uploaded(bucket, reader, reader.read(with_urls("shot.png"), folder))


async def test_a_file_that_was_changed_since_is_not_uploaded_under_the_old_name(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    request = reader.read(with_urls("shot.png"), folder)
    (folder / "shot.png").write_bytes(CONTENT[::-1])
    with pytest.raises(BucketRefused, match="was changed"):
        await uploaded(bucket, reader, request)
    assert bucket.writes == []


class Raced(MemoryBucket):
    """Somebody else's upload stands there when ours arrives."""

    async def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        await super().upload(name, path, content_type)
        return None


async def test_somebody_elses_upload_of_the_same_content_is_taken(folder: Path) -> None:
    bucket, reader = Raced(), a_reader()
    (sent,) = await uploaded(bucket, reader, reader.read(with_urls("shot.png"), folder))
    assert sent.references[0].url == f"gs://videos/{NAME}#1"


async def test_a_bucket_that_breaks_is_one_clear_error_without_signatures(folder: Path) -> None:
    reader = a_reader()
    bucket = MemoryBucket(broken=ConnectionError("no route to https://storage.example.com/o?upload_id=secret"))
    with pytest.raises(BucketRefused, match=r"shot.png cannot be uploaded to gs://videos/.*no route") as refused:
        await uploaded(bucket, reader, reader.read(with_urls("shot.png"), folder))
    assert "secret" not in str(refused.value)
