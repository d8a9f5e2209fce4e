"""Files of the machine of the command line as references, through the whole stack."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dev.stack import Stack
from seedance_temporal.identity import ObjectNames
from tests.e2e.command import starter
from tests.e2e.requests import a_request
from tests.support.media_files import picture

SIZES = iter(range(400, 500))


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    """A picture that no other test has."""
    path = tmp_path / "shot.png"
    path.write_bytes(picture(640, next(SIZES)))
    return path


def with_reference(path: Path | str, **changes: Any) -> dict[str, Any]:
    references = [{"role": "reference_image", "url": str(path)}]
    return a_request(ratio="adaptive", **changes).model_dump(mode="json") | {"references": references}


async def media(stack: Stack, path: Path) -> list[str]:
    """Return the objects with a file's content, with their generations."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = await stack.bucket.list(f"seedance/media/{sha256}")
    return [f"gs://{stack.bucket.name}/{one.name}#{one.generation}" for one in stored]


async def test_local_file_is_uploaded_and_paid_once(stack: Stack, shot: Path) -> None:
    file = shot.parent / "request.json"
    file.write_text(json.dumps(with_reference("shot.png")))
    code, checked, err = await starter(stack, "check", str(file))
    assert code == 0, err
    assert checked["media"][0]["format"] == "png"
    assert await media(stack, shot) == []

    code, job, err = await starter(stack, "submit", str(file), "--wait")
    assert code == 0, err
    assert job["job_id"] == checked["job_id"]
    (uri,) = await media(stack, shot)
    record = json.loads(await stack.bucket.read(ObjectNames("seedance", job["request_hash"]).record) or b"")
    assert record["request"]["references"][0]["url"] == uri
    (create,) = [
        entry for entry in await stack.ark.ledger() if checked["sends"]["content"][0]["text"] in str(entry.body)
    ]
    assert f"generation={uri.rpartition('#')[2]}" in str(create.body), "the provider got a signed URL of the object"

    # After the object was deleted, it is uploaded again, as another generation of the same content.
    await asyncio.to_thread(
        stack.bucket._bucket.delete_blob, uri.partition("#")[0].removeprefix(f"gs://{stack.bucket.name}/")
    )
    code, again, err = await starter(stack, "submit", str(file))
    assert code == 0, err
    assert (again["job_id"], again["existing"], again["phase"]) == (job["job_id"], True, "stored")
    (other,) = await media(stack, shot)
    assert other != uri


async def test_batch_lines_share_a_file(stack: Stack, shot: Path) -> None:
    file = shot.parent / "requests.jsonl"
    file.write_text("\n".join(json.dumps(with_reference("shot.png", take=take)) for take in range(1, 4)))
    code, summary, err = await starter(stack, "batch", str(file), "--yes", "--wait")
    assert code == 0, err
    assert summary["phases"] == {"stored": 3}
    assert len(await media(stack, shot)) == 1


async def test_file_without_picture_is_not_uploaded(stack: Stack, shot: Path) -> None:
    shot.write_text("no picture at all")
    file = shot.parent / "request.json"
    file.write_text(json.dumps(with_reference(shot)))
    for command in ("check", "submit"):
        code, refused, _ = await starter(stack, command, str(file))
        assert code == 2
        assert [problem["at"] for problem in refused["error"]["problems"]] == ["references[0].url"]
    assert await media(stack, shot) == []
