"""``check``: what a request would send, cost and use, and everything that is wrong with it, without Temporal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from seedance_temporal.identity import job_id_of, request_hash
from seedance_temporal.ledger.asset_ids import Assets
from seedance_temporal.provider.rules import Rules
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import GoogleBucket
from tests.support.command_line import CommandResult, run_command
from tests.support.jobs import a_request
from tests.support.media_files import FPS, clip, picture
from tests.support.result_host import Answer, ResultHost

KEYS = {
    *("job_id", "request_hash", "scene", "warnings", "sends", "media"),
    *("estimated_tokens", "estimated_usd", "estimated_cny", "least_tokens", "least_usd", "least_cny"),
}
REQUEST: dict[str, Any] = {
    "user_id": "user-42",
    "route": "byteplus",
    "model": "dreamina-seedance-2-0-260128",
    "prompt": "a cat",
    "rights": {"depicts_real_person": False},
}


@pytest.fixture
def host(host: ResultHost) -> ResultHost:
    files = {"/a.png": picture(), "/v.mp4": clip(), "/small.png": picture(9, 9)}
    host.answers = {path: [Answer(content)] for path, content in files.items()}
    return host


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    path = tmp_path / "shot.png"
    path.write_bytes(picture())
    return path


async def check(
    *urls: str,
    as_json: bool = True,
    options: tuple[str, ...] = (),
    changes: dict[str, Any] | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> CommandResult:
    """Check a request with pictures, videos and sounds at these URLs."""
    roles = {"mp4": "reference_video", "wav": "reference_audio"}
    references = [
        {"role": roles.get(url.partition("?")[0].partition("#")[0][-3:], "reference_image"), "url": url} for url in urls
    ]
    text = json.dumps(REQUEST | {"references": references} | (changes or {}))
    options += ("--json",) if as_json else ()
    return await run_command(None, "check", "-", *options, stdin=text, SEEDANCE_INSECURE_HOSTS="127.0.0.1", **variables)


def problems(said: CommandResult) -> dict[str, str]:
    assert said.code == 2, said.err
    assert said.document["error"]["code"] == "invalid_request"
    return {problem["at"]: problem["problem"] for problem in said.document["error"]["problems"]}


async def test_emoji_codes_stay_text() -> None:
    said = await run_command(None, "check", "-", stdin=a_request(prompt="A sign that reads :fire:").model_dump_json())
    assert ":fire:" in said.out, said.err


async def test_check_of_a_text() -> None:
    said = await check(changes={"ratio": "16:9"})
    assert said.code == 0, said.err
    found = said.document
    request = VideoRequest.model_validate(REQUEST)
    assert found.keys() == KEYS
    assert (found["job_id"], found["request_hash"]) == (job_id_of(request), request_hash(request))
    assert found["scene"] == "text_to_video"
    estimated = Rules().estimate(request)
    assert (found["estimated_tokens"], found["estimated_usd"]) == (estimated.tokens, estimated.usd)
    assert (found["media"], found["warnings"]) == ([], [])
    assert found["sends"] == {
        "model": request.model,
        "content": [{"type": "text", "text": "a cat"}],
        "ratio": "16:9",
        "resolution": "720p",
        "duration": 5,
        "generate_audio": False,
        "watermark": False,
    }


async def test_each_medium_is_probed(host: ResultHost) -> None:
    said = await check(host.url("/a.png?signature=s3cret"), host.url("/v.mp4"), "asset://known")
    assert said.code == 0, said.err
    assert [one["text"] for one in said.document["sends"]["content"] if one["type"] == "text"] == ["a cat"]
    sent = [one[one["type"]]["url"] for one in said.document["sends"]["content"][1:]]
    assert sent == [host.url("/a.png"), host.url("/v.mp4"), "asset://known"]
    first, second = [Medium.model_validate(medium) for medium in said.document["media"]]
    assert (first.reference, first.format, first.width, first.height) == (0, "png", 640, 480)
    assert first.sha256 == hashlib.sha256(picture()).hexdigest()
    assert (second.reference, second.format, second.seconds) == (1, "mp4", 3.0)
    assert "looks signed" in said.document["warnings"][0]
    assert "s3cret" not in said.out + said.err


async def test_text_says_the_same(host: ResultHost) -> None:
    said = await check(host.url("/a.png?signature=s3cret"), as_json=False)
    assert said.code == 0
    figures = ("seedance-", "references", "adaptive", "a cat", "/a.png", "png 640x480", "USD at most")
    for words in (*figures, "looks signed", "Nothing was submitted"):
        assert words in said.out
    assert "s3cret" not in said.out + said.err


async def test_all_problems_are_reported_at_once(host: ResultHost, tmp_path: Path, bucket_env: dict[str, str]) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    urls = [
        *(host.url("/small.png"), host.url("/gone.png"), str(text), str(tmp_path / "none.png")),
        *("http://192.168.7.7/a.png", host.url("/a.png"), "file:///a.png"),
    ]
    changes = {"duration": 99, "prompt": "a cat --dur 15", "seed": 7, "rights": {"depicts_real_person": True}}
    said = await check(*urls, options=("--allow-any-path",), changes=changes, variables=bucket_env)
    found = problems(said)
    assert found.keys() == {
        *("duration", "prompt", "seed", "rights.consent_reference"),
        *("references[0]", "references[1]", "references[2].url", "references[3].url"),
        *("references[4].url", "references[6].url"),
    }
    assert "each side must have" in found["references[0]"]
    assert "404" in found["references[1]"]
    assert len(host.asked("/a.png")) == 1, "a good one is probed as well"


async def test_local_file_is_probed_not_uploaded(shot: Path, bucket_env: dict[str, str], google: GoogleBucket) -> None:
    before = await google.list("")
    said = await check(str(shot), options=("--allow-any-path",), variables=bucket_env)
    assert said.code == 0, said.err
    (medium,) = said.document["media"]
    (sent,) = [one["image_url"]["url"] for one in said.document["sends"]["content"][1:]]
    assert sent == f"gs://videos/seedance/media/{medium['sha256']}.png"
    assert await google.list("") == before


async def test_allowed_paths_of_stdin_use_current_folder(shot: Path, bucket_env: dict[str, str]) -> None:
    for path in (str(shot), "tests/none.png"):
        found = problems(await check(path, variables=bucket_env))["references[0].url"]
        assert "from standard input" in found
        assert "--allow-any-path" in found
    found = problems(await check("tests/none.png", options=("--allow-any-path",), variables=bucket_env))[
        "references[0].url"
    ]
    assert "No such file" in found


async def test_lengths_of_all_files_are_added(host: ResultHost, tmp_path: Path, bucket_env: dict[str, str]) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(clip(frames=13 * FPS))
    said = await check(str(path), host.url("/v.mp4"), options=("--allow-any-path",), variables=bucket_env)
    assert "16.00 s of video in all" in problems(said)["references"]


async def test_private_object_is_probed(tmp_path: Path, bucket_env: dict[str, str], google: GoogleBucket) -> None:
    path = tmp_path / "shot.png"
    path.write_bytes(picture(700, 500))
    stored = await google.upload("private/shot.png", path, "image/png")
    assert stored is not None
    said = await check(f"gs://videos/private/shot.png#{stored.generation}", variables=bucket_env)
    assert said.code == 0, said.err
    assert said.document["media"][0]["width"] == 700


async def test_private_object_without_bucket_is_warned_of() -> None:
    said = await check("gs://videos/private/shot.png#7")
    assert said.code == 0
    assert said.document["media"] == []
    assert said.document["warnings"] == ["references[0] was not checked here: SEEDANCE_BUCKET is not set."]


async def test_asset_id_of_other_content_is_warned_of(
    host: ResultHost, bucket_env: dict[str, str], google: GoogleBucket
) -> None:
    references = [{"role": "reference_image", "url": host.url("/a.png"), "asset_id": "sku-7"}]
    request = VideoRequest.model_validate(REQUEST | {"references": references})
    other = Medium(reference=0, kind="image", format="png", size=1, sha256="0" * 64)
    await Assets(google, "seedance").note(request, [other])
    said = await check(changes={"references": references}, variables=bucket_env)
    assert said.code == 0, said.err
    assert ["other content" in warning for warning in said.document["warnings"]] == [True]


async def test_passing_problem_advises_another_try(host: ResultHost) -> None:
    host.answers["/busy.png"] = [Answer(b"", 503)]
    found = problems(await check(host.url("/busy.png")))
    assert "try again later" in found["references[0]"]


async def test_unusable_bucket_is_one_clear_error(shot: Path, bucket_env: dict[str, str]) -> None:
    said = await check(str(shot), options=("--allow-any-path",), variables=bucket_env | {"SEEDANCE_BUCKET": "missing"})
    assert said.code == 1
    assert said.document["error"]["code"] == "bucket"
    assert "The bucket missing cannot be used" in said.err
    said = await check(str(shot))
    assert (said.code, said.document["error"]["code"]) == (2, "invalid_settings")
    assert "SEEDANCE_BUCKET" in said.err


async def test_limits_of_the_environment() -> None:
    found = problems(await check(variables={"SEEDANCE_MAX_USD_PER_REQUEST": "0.1"}))
    assert "allows 0.1000 USD" in found[""]
    found = problems(await check(variables={"SEEDANCE_MAX_USD_PER_REQUEST": "9"}, changes={"model": "ep-1"}))
    assert "SEEDANCE_ENDPOINTS" in found[""]


@pytest.mark.parametrize("text", ["{", "[]", "7", '"text"', "null", "", "\ud800"])
async def test_any_text_becomes_a_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert problems(await run_command(None, "check", str(file), "--json")).keys() == {""}
