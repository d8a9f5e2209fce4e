"""A day of trouble with bucket, provider or result host, from any request of a job's life on.

Each case proves that the trouble happened. Afterwards the job is stored, or ended as it should, was paid for once, and
has no Attention; one was there within the hour, in words that name the cause.

The URL of a result lives for a day. So trouble lasts a day where nothing was paid for before, and else 23 hours; what
a longer one costs is a case of its own.
"""

from __future__ import annotations

import functools
import logging
from datetime import timedelta

import pytest

from seedance_temporal.job import Attention
from tests.faults.outages import PATHS, Job, points
from tests.faults.report import AddRow
from tests.faults.simulated import BUCKET_TROUBLE, CAUSE, Domain, Trouble
from tests.faults.stage import a_stage
from tests.model.outages import play

# What the words of an Attention must hold.
NAMED: dict[Domain, dict[str, str]] = {
    "bucket": {kind: kind for kind in BUCKET_TROUBLE} | {"nonsense": "crc32c"},
    "provider": CAUSE,
    "host": CAUSE | {"401": "HTTP 401", "403": "HTTP 403"},
}
ATTENTIONS: dict[Domain, set[Attention]] = {
    "bucket": {"storage", "video_at_risk", "unknown_create"},
    "provider": {"provider", "credentials", "account", "video_at_risk", "unknown_create"},
    "host": {"video_at_risk"},
}
# Each kind of trouble, but those that its requests cannot meet.
KINDS: dict[Domain, list[str]] = {
    "bucket": list(BUCKET_TROUBLE),
    "provider": list(CAUSE),
    "host": [kind for kind in CAUSE if kind not in {"unknown status", "200 no task"}],
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Do not keep thousands of tracebacks: they are what the test asks for."""
    for name in ("temporalio", "activities", "httpx"):
        caplog.set_level(logging.CRITICAL, name)


def check(job: Job) -> None:
    """Check all that holds for each case."""
    trouble = job.trouble
    assert trouble is not None
    assert trouble.failed, "not reached"
    job.check_spending()
    refused = trouble.kind == "404 odd" and trouble.failed[0][1].startswith("POST")
    job.check_end(refused=refused)
    job.check_callbacks()
    cause = NAMED[trouble.domain][trouble.kind]
    job.check_attention(ATTENTIONS[trouble.domain], cause)


@functools.cache
def beginnings(domain: Domain) -> list[tuple[str, str, int]]:
    """Return each kind of request: a path that has one, its label, and its number in the path's domain."""
    found: dict[str, tuple[str, str, int]] = {}
    for name, path in PATHS.items():
        healthy = play(path)
        healthy.check_spending()
        healthy.check_end()
        for label, begins in points(healthy.life.requests[domain]).items():
            found.setdefault(label, (name, label, begins))
    return list(found.values())


def outlast(domain: Domain, kinds: list[str], report: AddRow, *, single_batch: bool = False, each: int = 1) -> None:
    """Begin trouble at each kind of request, or at some; several kinds of trouble take turns."""
    problems: list[str] = []
    for number, (path, label, begins) in enumerate(beginnings(domain)[::each]):
        trouble = Trouble(domain, kinds[number % len(kinds)], begins)
        row = {"trouble": f"{domain}: {trouble.kind}", "path": path, "from": label}
        try:
            job = play(PATHS[path], trouble, single_batch=single_batch)
            check(job)
        except AssertionError as problem:
            problems.append(f"{path}, {label}, {trouble.kind}: {problem}")
            continue
        raised = ", ".join(dict.fromkeys(kind for _, kind, _ in job.raised))
        report("Outages", row | {"failed requests": len(trouble.failed), "Attention": raised, "end": job.state.phase})
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize(
    ("domain", "kind", "path", "label"),
    [
        pytest.param("bucket", "403", "called back", "create_task: create outcome", marks=pytest.mark.faults),
        ("provider", "502 html", "polled", "GET: get_task"),
    ],
)
async def test_day_of_trouble_is_outlasted_on_server(domain: Domain, kind: str, path: str, label: str) -> None:
    async with a_stage() as stage:
        healthy = await stage.play(PATHS[path])
        check(await stage.play(PATHS[path], Trouble(domain, kind, points(healthy.life.requests[domain])[label])))


@pytest.mark.parametrize("domain", ["provider", "host", pytest.param("bucket", marks=pytest.mark.faults)])
def test_days_of_trouble_are_outlasted(domain: Domain, report: AddRow) -> None:
    outlast(domain, KINDS[domain], report, each={"bucket": 6, "provider": 3, "host": 1}[domain])


@pytest.mark.faults
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("single_batch", [False, True])
@pytest.mark.parametrize(("domain", "kind"), [(domain, kind) for domain, kinds in KINDS.items() for kind in kinds])
def test_each_trouble_is_outlasted(domain: Domain, kind: str, single_batch: bool, report: AddRow) -> None:
    outlast(domain, [kind], report, single_batch=single_batch)


def test_verified_video_outlives_its_url() -> None:
    trouble = Trouble("bucket", "403", only="store_video: create record", lasts=timedelta(hours=25))
    job = play(PATHS["polled"], trouble)
    job.check_spending()
    job.check_end()
    job.check_attention({"video_at_risk"}, "403")


@pytest.mark.faults
@pytest.mark.parametrize(("domain", "only"), [("bucket", "store_video: upload"), ("host", "/v.mp4")])
def test_trouble_beyond_life_of_url_ends_lost(domain: Domain, only: str) -> None:
    job = play(PATHS["called back"], Trouble(domain, "403", only=only, lasts=timedelta(hours=25)))
    job.check_spending()
    job.check_end(lost=True)
    assert job.error is not None
    assert "A paid video was lost" in job.error.message
