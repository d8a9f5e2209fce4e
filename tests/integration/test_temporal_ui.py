"""The summary and the details that a run has from its start, on a real server that must accept those of any request."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from temporalio.client import Client

from seedance_temporal.client import VideoJobs
from seedance_temporal.identity import safety_identifier, user_hash
from seedance_temporal.request import VideoRequest
from tests.support.encryption import encrypting
from tests.support.jobs import some_settings

USER = "user-42@example.com"
ENDPOINT = "ep-20260701120000-abcde"


async def said(temporal: Client, jobs: VideoJobs, **given: Any) -> tuple[str, str, str]:
    """The job id of a request, and what its run says of itself."""
    fields = {"user_id": USER, "route": "byteplus", "model": "dreamina-seedance-2-0-260128", "prompt": uuid.uuid4().hex}
    job_id = (await jobs.submit(VideoRequest.model_validate(fields | given))).id
    run = await temporal.get_workflow_handle(job_id).describe()
    summary, details = await run.static_summary(), await run.static_details()
    assert summary is not None
    assert details is not None
    return job_id, summary, details


async def test_details_describe_the_request(temporal: Client) -> None:
    job_id, summary, details = await said(
        temporal,
        VideoJobs(temporal),
        prompt="A *quiet* shot",
        references=[
            {"role": "reference_image", "url": "https://cdn.example.com/p.png?X-Signature=secret", "asset_id": "sku-1"},
            {"role": "reference_image", "url": "gs://bucket/q.png#123"},
        ],
        duration=10,
        generate_audio=True,
        take=2,
    )
    assert summary == f"Seedance 2.0 720p adaptive 10 s for {USER}"
    assert details.splitlines() == [
        f"- **user**: {USER}",
        "- **model**: Seedance 2.0: dreamina-seedance-2-0-260128 on byteplus",
        "- **video**: 720p, adaptive, 10 s, with sound, take 2",
        r"- **prompt**: A \*quiet\* shot",
        r"- **1. reference\_image**: https\://cdn.example.com/p.png (sku-1)",
        r"- **2. reference\_image**: gs\://bucket/q.png\#123",
        "- **estimate**: at most 1.5279 USD, 218,266 tokens, by price table",
        f"- **current state**: `python starter.py show {job_id}`",
    ]


async def test_known_endpoint_shows_its_model(temporal: Client) -> None:
    known = VideoJobs(temporal, settings=some_settings(seedance_endpoints={ENDPOINT: "dreamina-seedance-2-5-260628"}))
    _, summary, details = await said(temporal, known, model=ENDPOINT)
    assert summary.startswith("Seedance 2.5 720p")
    assert f"Seedance 2.5: {ENDPOINT} on byteplus" in details
    _, summary, details = await said(temporal, VideoJobs(temporal), model=ENDPOINT, duration=-1)
    assert f"- **model**: {ENDPOINT} on byteplus" in details
    assert summary == f"{ENDPOINT} 720p 16:9 as long as the model chooses for {USER}"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_server_accepts_longest_details(temporal: Client, encrypted: bool) -> None:
    """It refuses a start whose summary has over 400 bytes, or whose details have over 20,000."""
    client = encrypting(temporal) if encrypted else temporal
    url = "https://cdn.example.com/" + "\U0001f3ac" * 900
    references = [
        {"role": f"reference_{kind}", "url": url + str(number), "asset_id": "\U0001f3ac" * 240 + str(number)}
        for kind, most in (("image", 30), ("video", 10), ("audio", 10))
        for number in range(most)
    ]
    for user in ("\U0001f3ac" * 100, "_" * 200):
        _, summary, details = await said(
            client,
            VideoJobs(client),
            model="dreamina-seedance-2-5-260628",
            user_id=user,
            prompt="\U0001f3ac" * 2000,
            references=references,
        )
        assert "- **more references**: " in details
        assert len(summary.encode()) < 400
        assert len(details.encode()) < 20_000


async def test_hashed_user_is_never_shown(temporal: Client) -> None:
    _, summary, details = await said(temporal, VideoJobs(temporal, settings=some_settings(seedance_hash_users=True)))
    assert summary == f"Seedance 2.0 720p 16:9 5 s for {user_hash(USER)}"
    assert f"- **user**: {user_hash(USER)}\n" in details
    assert USER not in summary + details


def test_user_hash_equals_providers() -> None:
    assert user_hash("user-42") == "6d894aa3ee802549"
    assert safety_identifier("user-42", "0" * 32).startswith(user_hash("user-42"))
