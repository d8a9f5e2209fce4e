"""The report: one account for each job, sums that count each task once, and each output form."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import pytest_asyncio
from temporalio.client import Client

from seedance_temporal.cli.options import moment
from seedance_temporal.cli.report import _print_csv
from seedance_temporal.cli.report_page import page
from seedance_temporal.cli.report_table import named, remarks
from seedance_temporal.client import VideoJobs
from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import job_id_of, user_hash
from seedance_temporal.job import JobState
from seedance_temporal.ledger.facts import End
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.billing import BilledTask
from seedance_temporal.provider.prices import Cost
from seedance_temporal.provider.task import Usage
from seedance_temporal.reports.figures import KEYS, Account, accounts_of, figures, rows
from seedance_temporal.reports.from_bucket import read_accounts
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import as_json
from tests.support.command_line import run_command
from tests.support.jobs import a_claim, a_request, absent, an_end, created, names, not_sent, refused, some_settings
from tests.support.memory_bucket import MemoryBucket
from tests.support.polling import until
from tests.support.temporal_stub import request

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HASH = "0" * 64
BY_USER = {"user": "user-1", "model": "mini", "route": "byteplus"}


def a_run(phase: str = "stored", minutes: float = 0, **given: Any) -> JobState:
    """A run that started so many minutes after noon, and took one."""
    started = NOON + timedelta(minutes=minutes)
    fields = {"job_id": f"seedance-{HASH}", "request_hash": HASH, "phase": phase, "started_at": started, **BY_USER}
    closed = None if phase == "running" else started + timedelta(minutes=1)
    return JobState.model_validate(fields | {"closed_at": closed} | given)


def an_account(**given: Any) -> Account:
    fields: dict[str, Any] = {
        "job_id": f"seedance-{HASH}",
        **BY_USER,
        "started_at": NOON,
        "ended_at": NOON + timedelta(minutes=3),
        "outcome": "stored",
        "attempts": 1,
        "tasks": (BilledTask("cgt-1", 100, Cost(0.5)),),
        "estimated_tokens": 200,
        "estimate": Cost(1.0),
    }
    return Account(**fields | given)


# By Temporal's runs


def test_task_of_several_runs_counts_once() -> None:
    paid: dict[str, Any] = {"task_id": "cgt-1", "tokens": 42, "cost_usd": 0.25, "attempt": 1}
    (account,) = accounts_of([a_run(minutes=5, **paid), a_run(minutes=0, **paid)])
    assert account.tasks == (BilledTask("cgt-1", 42, Cost(0.25)),)
    assert (account.started_at, account.ended_at) == (NOON, NOON + timedelta(minutes=1)), "stored by the first run"
    assert (account.outcome, account.attempts) == ("stored", 1)


def test_charge_of_an_earlier_run_counts() -> None:
    lost = a_run("lost", 0, task_id="cgt-1", tokens=42, cost_usd=0.25, attempt=1)
    stored = a_run("stored", 5, task_id="cgt-2", tokens=43, cost_usd=0.26, attempt=2)
    (account,) = accounts_of([stored, lost])
    assert set(account.tasks) == {BilledTask("cgt-1", 42, Cost(0.25)), BilledTask("cgt-2", 43, Cost(0.26))}
    assert (account.outcome, account.attempts) == ("stored", 2)


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        (["failed", "stored"], "stored"),
        (["stored", "checking"], "stored"),
        (["failed", "running"], "open"),
        (["failed", "checking"], "open"),
        (["expired", "refused"], "refused"),
        (["checking"], "open"),
        (["lost"], "lost"),
    ],
    ids=" then ".join,
)
def test_newest_run_decides_unless_stored(phases: list[str], outcome: str) -> None:
    runs = [a_run(phase, 10 * number, task_id=f"cgt-{number}") for number, phase in enumerate(phases)]
    (account,) = accounts_of(runs)
    assert account.outcome == outcome
    assert (account.ended_at is None) == (outcome == "open")


def test_only_succeeded_tasks_are_billed() -> None:
    assert accounts_of([a_run("failed", task_id="cgt-1", tokens=42, cost_usd=0.25)])[0].tasks == ()
    assert accounts_of([a_run("lost", task_id=None)])[0].tasks == (BilledTask(None),)
    second = accounts_of([a_run(task_id="cgt-1", tokens=42, attention="second_task")])[0]
    assert second.tasks == (BilledTask("cgt-1", 42), BilledTask(None))
    assert figures([second]).uncounted_tasks == 1


def test_jobs_without_search_attributes_count() -> None:
    unknown: dict[str, Any] = dict.fromkeys(("user", "model"))
    runs = [a_run(job_id=f"seedance-{number:064x}", **unknown) for number in range(3)]
    ((group, of),) = rows(accounts_of(runs), ["user"]).items()
    assert (group, of.jobs) == ((None,), 3)


# By the objects


async def _a_ledger(bucket: MemoryBucket, of: VideoRequest, attempts: int = 1) -> Ledger:
    ledger = Ledger(bucket, "seedance")
    for attempt in range(1, attempts + 1):
        claim = a_claim(of, attempt).model_copy(update={"estimated_tokens": 200, "estimated_usd": 1.0})
        assert await ledger.claim(claim)
    return ledger


def _record(task_id: str, tokens: int | None, usd: float | None) -> bytes:
    video = {"name": f"seedance/x/{task_id}/output.mp4", "generation": 1, "size": 3, "crc32c": "AAAAAA=="}
    usage = {"total_tokens": tokens} if tokens is not None else None
    fields = {"task_id": task_id, "objects": {"video": video}, "usage": usage, "cost_usd": usd}
    return as_json(fields | {"stored_at": NOON.isoformat()})


def _lost(attempt: int, task_id: str | None, tokens: int | None) -> End:
    usage = Usage(total_tokens=tokens) if tokens is not None else None
    return an_end(attempt, task_id, "lost").model_copy(update={"usage": usage, "cost_usd": 0.25 if tokens else None})


async def test_accounts_from_the_bucket() -> None:
    bucket, of = MemoryBucket(), {kind: a_request(user_id=f"user {kind}") for kind in "abcdefgh"}
    for kind, attempts in zip("abcdefgh", (2, 1, 1, 1, 1, 1, 2, 2), strict=True):
        await _a_ledger(bucket, of[kind], attempts)
    ledger = Ledger(bucket, "seedance")
    job = {kind: a_claim(of[kind]).job_id for kind in of}
    # a: lost, asked for again with a second charge, and stored
    await ledger.write_outcome(job["a"], 1, created("cgt-a1"))
    await ledger.end(job["a"], 1, _lost(1, "cgt-a1", 42))
    await ledger.grant_resubmit(job["a"], Resubmit(attempt=1, accept_second_charge=True))
    await ledger.write_outcome(job["a"], 2, created("cgt-a2"))
    await bucket.create(names(of["a"]).record, _record("cgt-a2", 43, 0.5))
    # b: failed, with a usage that is not billed; c: refused; d: goes on; e: given up; f: not sent; g: a second task
    failed = an_end(1, "cgt-b", "provider").model_copy(update={"usage": Usage(total_tokens=9), "cost_usd": 9.0})
    await ledger.write_outcome(job["b"], 1, created("cgt-b"))
    await ledger.end(job["b"], 1, failed)
    await ledger.write_outcome(job["c"], 1, refused())
    await ledger.write_outcome(job["d"], 1, created("cgt-d"))
    await ledger.end(job["e"], 1, _lost(1, None, None))
    await ledger.write_outcome(job["f"], 1, not_sent())
    await ledger.write_outcome(job["g"], 1, absent())
    await ledger.write_outcome(job["g"], 1, created("cgt-late"))
    await ledger.write_outcome(job["g"], 2, created("cgt-g"))
    await bucket.create(names(of["g"]).record, _record("cgt-g", 44, None))
    # h: given up, asked for again, and stored; then its first task came to light
    await ledger.end(job["h"], 1, _lost(1, None, None))
    await ledger.grant_resubmit(job["h"], Resubmit(attempt=1, accept_second_charge=True))
    await ledger.write_outcome(job["h"], 2, created("cgt-h"))
    await bucket.create(names(of["h"]).record, _record("cgt-h", 45, None))
    await ledger.write_outcome(job["h"], 1, created("cgt-found"))
    # Neither of these is a job.
    await bucket.create("seedance/media/" + HASH + ".png", b"")
    await bucket.create("seedance/echo-byteplus.json", b"{}")

    accounts = {str(account.user)[-1]: account for account in (await read_accounts(bucket, some_settings()))[0]}
    said = {kind: (account.outcome, account.attempts, set(account.tasks)) for kind, account in accounts.items()}
    assert said == {
        "a": ("stored", 2, {BilledTask("cgt-a1", 42, Cost(0.25)), BilledTask("cgt-a2", 43, Cost(0.5))}),
        "b": ("failed", 1, set()),
        "c": ("refused", 1, set()),
        "d": ("open", 1, set()),
        "e": ("lost", 1, {BilledTask(None)}),
        "f": ("open", 1, set()),
        "g": ("stored", 2, {BilledTask("cgt-g", 44), BilledTask("cgt-late")}),
        "h": ("stored", 2, {BilledTask("cgt-h", 45), BilledTask("cgt-found")}),
    }
    assert (accounts["a"].ended_at, accounts["d"].ended_at) == (NOON, None)
    assert (accounts["a"].estimated_tokens, accounts["a"].route) == (200, "byteplus")


async def test_bucket_report_hashes_users_and_skips_old_jobs() -> None:
    bucket = MemoryBucket()
    await _a_ledger(bucket, a_request(user_id="someone"))
    (account,), _ = await read_accounts(bucket, some_settings(seedance_hash_users=True))
    assert account.user == user_hash("someone")
    assert await read_accounts(bucket, some_settings(), since=datetime.now(UTC) + timedelta(minutes=1)) == ([], [])


async def test_damaged_object_hides_no_other_job() -> None:
    bucket = MemoryBucket()
    await _a_ledger(bucket, a_request(user_id="a"))
    damaged = a_request(user_id="b")
    await _a_ledger(bucket, damaged)
    bucket.contents[names(damaged).attempt(1, "claim")] = b"{"
    accounts, left_out = await read_accounts(bucket, some_settings())
    assert [account.user for account in accounts] == ["a"]
    assert left_out == [job_id_of(damaged)]


def test_csv_holds_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    users = ["=1+1", "+1", "-1", "@sum", "\t=1", " =1", "\u00a0=1", "\uff1d1", "\uff20sum", "user-42"]
    _print_csv(["user"], rows([an_account(user=user) for user in users], ["user"]))
    shown = {line["user"] for line in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert shown == {f"'{user}" for user in users[:-1]} | {"user-42"}


def test_csv_holds_no_formula_with_another_separator(capsys: pytest.CaptureFixture[str]) -> None:
    """Much of Europe reads cells between semicolons."""
    _print_csv(["user"], rows([an_account(user="x;=cmd|'/c calc'!A1")], ["user"]))
    _, line = csv.reader(io.StringIO(capsys.readouterr().out), delimiter=";")
    assert not [cell for cell in line if cell.startswith("=")]


def test_table_keeps_the_order_of_letters() -> None:
    assert named("bob\u202e") == r"bob\u202e"
    assert named("bob\u200b") == r"bob\u200b"


# Sums


def test_sums_name_unknown_amounts() -> None:
    accounts = [
        an_account(),
        an_account(tasks=(BilledTask("cgt-2", 50),), estimate=Cost()),
        an_account(outcome="lost", tasks=(BilledTask(None),)),
        an_account(outcome="failed", tasks=(), attempts=None),
        an_account(tasks=(BilledTask("cgt-3", 30, Cost(0.1)),), estimated_tokens=None, estimate=Cost(), attempts=3),
    ]
    total = figures(accounts)
    assert (total.jobs, total.attempts) == (5, 6)
    assert total.outcomes == {"stored": 3, "failed": 1, "lost": 1}
    assert (total.tokens, total.cost_usd) == (180, 0.6)
    assert (total.unpriced_tokens, total.uncounted_tasks) == (50, 1)
    assert (total.estimated_tokens, total.compared_tokens) == (400, 150)
    assert (total.estimated_usd, total.compared_usd) == (1.0, 0.5)


def test_open_exposure_is_what_can_still_be_billed() -> None:
    phases = ("checking", "waiting", "creating", "recovering", "queued", "running", "storing", "stored")
    estimates: list[tuple[str, dict[str, float]]] = [(phase, {"estimated_usd": 0.5}) for phase in phases]
    estimates += [("running", {}), ("running", {"estimated_cny": 3})]
    runs = [
        a_run(phase, job_id=f"seedance-{number:064}", **estimate) for number, (phase, estimate) in enumerate(estimates)
    ]
    total = figures(accounts_of(runs))
    assert (total.exposed_jobs, total.exposed_usd, total.exposed_cny, total.exposed_unpriced) == (7, 2.5, 3.0, 1)
    shown = remarks(total, None)[0]
    assert "7 can still be billed, with at most 2.50 USD and 3.00 CNY by estimate, 1 of them without" in shown
    assert not [text for text in remarks(figures([an_account()]), None) if "can still be billed" in text]


async def test_open_exposure_by_the_ledger() -> None:
    """An attempt that has not ended can be billed, also where its outcome is unknown."""
    bucket = MemoryBucket()
    for outcome, end in (
        (None, None),
        (created("cgt-1"), None),
        (created("cgt-2"), an_end(1, "cgt-2")),
        (refused(), None),
        (not_sent(), None),
    ):
        ledger, claim = Ledger(bucket, "seedance"), a_claim(a_request())
        await ledger.claim(claim)
        if outcome is not None:
            await ledger.write_outcome(claim.job_id, 1, outcome)
        if end is not None:
            await ledger.end(claim.job_id, 1, end)
    accounts, _ = await read_accounts(bucket, some_settings())
    assert figures(accounts).exposed_jobs == 2


def test_groups_add_up_in_order() -> None:
    days = [NOON, NOON + timedelta(hours=12), NOON - timedelta(days=1)]
    accounts = [an_account(user=user, started_at=day) for user in ("b", "a", None) for day in days]
    groups = rows(accounts, ["day", "user"])
    assert list(groups) == [
        (day, user) for day in ("2026-11-21", "2026-11-22", "2026-11-23") for user in (None, "a", "b")
    ]
    assert sum(of.tokens for of in groups.values()) == figures(accounts).tokens == 900
    assert figures([]).jobs == 0
    assert rows([], KEYS) == {}


def test_span_of_time_excludes_its_end() -> None:
    assert an_account().has_started(NOON, None)
    assert not an_account().has_started(None, NOON)
    assert an_account().has_started(moment("2026-11-22"), moment("2026-11-22T12:00:01Z"))
    assert moment("2026-11-22T13:00+01:00") == NOON


# The page


def _page(accounts: list[Account], by: Any = ("user", "model")) -> str:
    return page(accounts, by, source="Temporal", made_at=NOON, cny_per_usd=None)


def test_user_text_is_escaped_in_the_page() -> None:
    hostile = "</title><script>alert('1')</script><img src=x onerror=alert(1)>&\"'"
    text = _page([an_account(user=hostile, model=hostile)])
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_page_loads_nothing() -> None:
    text = _page([an_account()])
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"<]+", text)) <= namespaces
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|<link|src=", text)


@pytest.mark.parametrize("count", [0, 1, 200])
def test_plots_of_few_and_many_jobs(count: int) -> None:
    accounts = [
        an_account(
            model=f"model {number % 12}",
            started_at=NOON + timedelta(days=number),
            ended_at=NOON + timedelta(days=number, minutes=number),
        )
        for number in range(count)
    ]
    text = _page(accounts)
    drawn = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]  # noqa: S314
    assert [svg.get("role") for svg in drawn] == ["img"] * 3
    spoken = " ".join(drawn[0].itertext())
    assert ("other models" in spoken) == (count == 200), "only so many colours can be told apart"
    assert ("2027-01" in spoken) == (count == 200), "months, where days would be too many"
    assert ("2026-11-22" in spoken) == (count == 1)
    if count == 200:
        assert "Half of the jobs within 99.5 minutes" in text


def test_spend_without_prices_is_in_tokens() -> None:
    assert "In tokens, as no price is known" in _page([an_account(tasks=(BilledTask("cgt-1", 100),))])
    assert "In USD" in _page([an_account()])


# The command


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reported(temporal: Client) -> list[str]:
    """A job that is stored, one that failed and one that goes on, of a user with a name that markup could be."""
    jobs, user = VideoJobs(temporal), "[bold]reported[/]"
    ids = [(await jobs.submit(request(user, prompt))).id for prompt in ("stored", "failed", "hold")]

    async def seen() -> bool:
        found = await jobs.list(user=user)
        return len(found) == 3 and sum(job.closed_at is None for job in found) == 1

    await until(seen)
    return ids


async def test_report_forms_agree(temporal: Client, reported: list[str], tmp_path: Path) -> None:
    said = await run_command(temporal, "report", "--user", "[bold]reported[/]", "--by", "model,user", "--json")
    assert said.code == 0
    assert said.document["by"] == ["model", "user"]
    (row,) = said.document["rows"]
    assert (row["user"], row["jobs"]) == ("[bold]reported[/]", 3)
    assert row["outcomes"] == {"stored": 1, "failed": 1, "open": 1}
    assert (row["cost_usd"], row["uncounted_tasks"]) == (0, 1), "the stand-in shows no tokens"
    assert said.document["total"] == {name: row[name] for name in said.document["total"]}

    (line,) = csv.DictReader(io.StringIO((await run_command(temporal, "report", "--csv", "--by", "user")).out))
    assert (line["user"], line["stored"], line["refused"], line["jobs"]) == ("[bold]reported[/]", "1", "0", "3")

    table = await run_command(temporal, "report")
    assert "[bold]reported[/]" in table.out, "in full, and not as markup"
    assert "whose tokens are not known: 1" in table.err

    file = tmp_path / "report.html"
    assert (await run_command(temporal, "report", "--html", str(file))).out.strip() == str(file)
    assert "[bold]reported[/]" in file.read_text(encoding="utf-8")


async def test_report_filters(temporal: Client, reported: list[str]) -> None:
    async def jobs(*options: str) -> int:
        count: int = (await run_command(temporal, "report", "--json", *options)).document["total"]["jobs"]
        return count

    assert await jobs("--user", "nobody") == 0
    assert await jobs("--route", "byteplus", "--since", "2026-01-01") == 3
    assert await jobs("--until", "2026-01-01") == 0
    assert await jobs("--model", "none' OR WorkflowType = 'GenerateVideo") == 0


async def test_report_from_bucket_shows_budgets(bucket_env: dict[str, str]) -> None:
    budgets = {"SEEDANCE_LABEL_BUDGETS": '{"project=alpha": {"usd_per_month": 300}}', "SEEDANCE_MAX_USD_PER_DAY": "20"}
    said = await run_command(None, "report", "--from-bucket", "--json", **bucket_env, **budgets)
    shown = [(use["of"], use["period"], use["usd"], use["used_usd"]) for use in said.document["budgets"]]
    assert shown == [("account:byteplus", "day", 20, 0), ("label:project=alpha", "month", 300, 0)]
    said = await run_command(None, "report", "--from-bucket", **bucket_env, **budgets)
    assert "0.0000 USD of 20.0000 USD today: the day's budget of the account byteplus" in said.err
    assert "0.0000 USD of 300.0000 USD this month: the month's budget of the label project=alpha" in said.err


WRONG_OPTIONS = [
    *(["--by", "colour"], ["--json", "--csv"], ["--csv", "--html", "x.html"]),
    *(["--since", "yesterday"], ["--html", "/nowhere/x.html"], ["--from-bucket"]),
]


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=" ".join)
async def test_wrong_usage_is_2(temporal: Client, options: list[str]) -> None:
    said = await run_command(temporal, "report", *options, SEEDANCE_BUCKET="")
    assert said.code == 2, said
    assert "Traceback" not in said.err


async def test_unreachable_bucket_is_one_error() -> None:
    nowhere = {"SEEDANCE_BUCKET": "videos", "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"}
    said = await run_command(None, "report", "--from-bucket", "--json", **nowhere)
    assert said.code == 1
    assert "videos" in json.loads(said.out)["error"]["message"]
