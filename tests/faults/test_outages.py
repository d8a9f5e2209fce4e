"""A day of trouble with bucket, provider or result host, from any request of a job's life on.

Each case proves that the trouble happened. Afterwards the job is stored, or ended as it should, was paid for once, and
has no Attention; one was there within the hour, in words that name the cause.

The URL of a result lives for a day. So trouble lasts a day where nothing was paid for before, and else 23 hours; what
a longer one costs is a case of its own.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from seedance_temporal.job import Attention
from tests.faults.outages import PATHS, Job, Stage, a_stage, points
from tests.faults.report import AddRow
from tests.faults.simulated import BUCKET_TROUBLE, CAUSE, Domain, Trouble

BUCKET_CAUSE = {kind: kind for kind in ("403", "404", "400", "503")} | {"refused": "refused", "nonsense": "crc32c"}
ATTENTIONS: dict[Domain, set[Attention]] = {
    "bucket": {"storage", "video_at_risk", "unknown_create"},
    "provider": {"provider", "credentials", "account", "video_at_risk", "unknown_create"},
    "host": {"video_at_risk"},
}
# Each kind of trouble, but those that the kind of request cannot meet.
FULL: list[tuple[Domain, list[str]]] = [
    ("bucket", ["403"]),
    ("bucket", [kind for kind in BUCKET_TROUBLE if kind != "403"]),
    *[("provider", [kind]) for kind in CAUSE],
    *[("host", [kind]) for kind in CAUSE if kind not in {"unknown status", "200 no task"}],
]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Do not keep thousands of tracebacks: they are what the test asks for."""
    for name in ("temporalio.activity", "activities", "httpx"):
        caplog.set_level(logging.CRITICAL, name)


async def play(stage: Stage, path: str, trouble: Trouble) -> Job:
    """Play a case, and check all that holds for each."""
    job = await stage.play(PATHS[path], trouble)
    assert trouble.failed, "not reached"
    job.check_spending()
    refused = trouble.kind == "404 odd" and trouble.failed[0][1].startswith("POST")
    job.check_end(refused=refused)
    job.check_callbacks()
    cause = BUCKET_CAUSE[trouble.kind] if trouble.domain == "bucket" else CAUSE[trouble.kind]
    job.check_attention(ATTENTIONS[trouble.domain], cause)
    return job


@pytest.mark.parametrize(
    ("domain", "kind", "path", "label"),
    [
        ("bucket", "403", "called back", "create_task: create outcome"),
        ("provider", "502 html", "polled", "GET: get_task"),
    ],
)
async def test_day_of_trouble_is_outlasted(domain: Domain, kind: str, path: str, label: str) -> None:
    async with a_stage() as stage:
        healthy = await stage.play(PATHS[path])
        await play(stage, path, Trouble(domain, kind, points(healthy.life.requests[domain])[label]))


@pytest.mark.faults
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("domain", "kinds"), FULL, ids=lambda value: value if isinstance(value, str) else value[0])
async def test_trouble_from_any_request_on_is_outlasted(domain: Domain, kinds: list[str], report: AddRow) -> None:
    """Begin at the first request of each kind, on the first path that has one; several kinds of trouble take turns."""
    problems: list[str] = []
    tried: set[str] = set()
    for path in PATHS:
        async with a_stage() as stage:
            healthy = await stage.play(PATHS[path])
            healthy.check_spending()
            healthy.check_end()
            for label, begins in points(healthy.life.requests[domain]).items():
                if label in tried:
                    continue
                kind = kinds[len(tried) % len(kinds)]
                tried.add(label)
                trouble = Trouble(domain, kind, begins)
                row = {"trouble": f"{domain}: {kind}", "path": path, "from": label}
                try:
                    job = await play(stage, path, trouble)
                except AssertionError as problem:
                    problems.append(f"{path}, {label}, {kind}: {problem}")
                    outcome = {"failed requests": len(trouble.failed), "Attention": "FAILED", "end": ""}
                else:
                    raised = ", ".join(dict.fromkeys(kind for _, kind, _ in job.raised))
                    outcome = {"failed requests": len(trouble.failed), "Attention": raised, "end": job.state.phase}
                report("Outages", row | outcome)
    assert not problems, "\n\n".join(problems)


@pytest.mark.faults
async def test_trouble_beyond_life_of_url_ends_lost() -> None:
    async with a_stage() as stage:
        for domain in ("bucket", "host"):
            trouble = Trouble(domain, "403", only="store_video: upload" if domain == "bucket" else "/v.mp4")
            trouble.lasts = timedelta(hours=25)
            job = await stage.play(PATHS["called back"], trouble)
            job.check_spending()
            job.check_end(lost=True)
            assert job.error is not None
            assert "A paid video was lost" in job.error.message
