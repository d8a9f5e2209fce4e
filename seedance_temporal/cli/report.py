"""``report``: the results and the cost of jobs, as a table, JSON, CSV or a page."""

from __future__ import annotations

import csv
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text
from typer import Option

from seedance_temporal.cli.options import (
    JsonOption,
    ModelOption,
    RouteOption,
    SinceOption,
    UntilOption,
    UserOption,
    require_order,
)
from seedance_temporal.cli.output import DONE, err, out, print_json, print_table
from seedance_temporal.cli.report_table import columns, named, remarks
from seedance_temporal.cli.runtime import BucketRefused, command, open_bucket
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.identity import user_hash
from seedance_temporal.limits import BudgetUse
from seedance_temporal.reports.figures import KEYS, OUTCOMES, Account, Figures, Group, Key, accounts_of, figures, rows
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND
from seedance_temporal.urls import redacted

ALL_KEYS = ",".join(KEYS)


def keys(text: str) -> list[Key]:
    """Parse ``--by``."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in KEYS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: a report is grouped by {', '.join(KEYS)}")
    return [key for name in dict.fromkeys(names) for key in KEYS if key == name]


@command
async def report(
    by: Annotated[Any, Option("--by", parser=keys, metavar="KEYS", help="The groups, such as user,model.")] = ALL_KEYS,
    user: UserOption = None,
    model: ModelOption = None,
    route: RouteOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    from_bucket: Annotated[
        bool, Option("--from-bucket", help="Read the objects, also of jobs that Temporal has forgotten.")
    ] = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, Option("--csv", help="Write comma separated values to stdout.")] = False,
    html: Annotated[Path | None, Option("--html", metavar="FILE", help="Write a page with plots to this file.")] = None,
) -> int:
    """Report outcomes and costs of jobs, by user, model, route and the day of their start."""
    if as_json + as_csv + (html is not None) > 1:
        raise typer.BadParameter("give at most one of --json, --csv and --html")
    require_order(since, until)
    budgets: list[BudgetUse] = []
    if from_bucket:
        found, budgets = await _from_bucket(user, model, route, since)
    else:
        # Not by time: an account needs all runs of a job, and some can be older than --since.
        runs = (await VideoJobs.connect()).runs(user=user, model=model, route=route)
        found = accounts_of([run async for run in runs])
    accounts = [account for account in found if account.has_started(since, until)]
    groups, total = rows(accounts, by), figures(accounts)
    rate = Settings.from_environment().seedance_cny_per_usd
    if as_json:
        shown = [dict(zip(by, group, strict=True)) | _document(of, rate) for group, of in groups.items()]
        used = [_budget(use) for use in budgets]
        print_json({"by": by, "rows": shown, "total": _document(total, rate), "budgets": used})
    elif as_csv:
        _print_csv(by, groups)
    elif html is not None:
        from seedance_temporal.cli.report_page import page  # a large import, for plots

        source = "the objects in the bucket" if from_bucket else "Temporal"
        _write(html, page(accounts, by, source=source, made_at=datetime.now(UTC), cny_per_usd=rate))
        out.print(str(html))
    else:
        print_table(_table(by, groups, total))
    for remark in () if as_json else [*remarks(total, rate), *map(str, budgets)]:
        err.print(remark)
    return DONE


async def _from_bucket(
    user: str | None, model: str | None, route: str | None, since: datetime | None
) -> tuple[list[Account], list[BudgetUse]]:
    """Read the accounts, and how much of each budget is used."""
    from seedance_temporal.ledger.spending import Spending
    from seedance_temporal.ledger.store import Ledger
    from seedance_temporal.reports.from_bucket import read_accounts

    settings = Settings.from_environment("SEEDANCE_BUCKET")
    bucket = await open_bucket(settings)
    try:
        accounts, damaged = await read_accounts(bucket, settings, since=since)
        spending = Spending(Ledger(bucket, settings.seedance_prefix), bucket, settings)
        budgets = await spending.figures(datetime.now(UTC))
    except Exception as error:  # the library has many
        raise BucketRefused(f"The bucket {bucket.name} could not be read: {redacted(str(error))}") from None
    for job_id in damaged:
        err.print(f"Left out, because an object is damaged: {job_id}. To see which: {COMMAND} audit {job_id} --verify")
    shown = user_hash(user) if user is not None and settings.seedance_hash_users else user
    wanted = {"user": shown, "model": model, "route": route}
    fitting = [
        account
        for account in accounts
        if all(value is None or getattr(account, key) == value for key, value in wanted.items())
    ]
    return fitting, budgets


def _budget(use: BudgetUse) -> dict[str, object]:
    budget = use.budget
    of = {"of": budget.payer, "period": budget.period, "usd": budget.usd, "setting": budget.setting}
    return of | {"used_usd": use.used, "until": use.until.isoformat()}


def _document(of: Figures, cny_per_usd: float | None) -> dict[str, object]:
    return asdict(of) | {"total_usd": of.total_usd(cny_per_usd)}


def _print_csv(by: Sequence[Key], groups: Mapping[Group, Figures]) -> None:
    numbers = [field.name for field in fields(Figures) if field.name != "outcomes"]
    table = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    table.writerow([*by, *OUTCOMES, *numbers])
    for group, of in groups.items():
        shared = [_cell(value or "") for value in group]
        outcomes = [of.outcomes.get(outcome, 0) for outcome in OUTCOMES]
        table.writerow([*shared, *outcomes, *(getattr(of, number) for number in numbers)])


def _cell(text: str) -> str:
    """Write a text of others as a cell: a spreadsheet would run one that begins like a formula.

    Some skip white space before it, and read the wide forms of its characters.
    """
    begins = unicodedata.normalize("NFKC", text.lstrip())[:1]
    return f"'{text}" if begins in {*"=+-@"} or text[:1].isspace() else text


def _table(by: Sequence[Key], groups: Mapping[Group, Figures], total: Figures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_footer=len(groups) > 1)
    for number, key in enumerate(by):
        table.add_column(key, footer="" if number else "all", overflow="fold")
    for head, shown in columns(total):
        table.add_column(head, footer=shown(total), justify="right", no_wrap=True)
    for group, of in groups.items():
        table.add_row(*(Text(named(value)) for value in group), *(shown(of) for _, shown in columns(total)))
    return table


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest([Problem(at="--html", problem=f"{file} cannot be written: {error.strerror}")]) from None
