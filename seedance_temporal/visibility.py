"""Which runs Temporal's visibility store is asked for, in its own language."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TypedDict, Unpack

from seedance_temporal import job as contract
from seedance_temporal.job import Queues

# A question names so many jobs at most: a server answers one of some kilobytes at once.
_IDS_IN_A_QUERY = 50


class Wanted(TypedDict, total=False):
    """Which runs are wanted; what is absent or None does not matter.

    Attributes:
        user: Of this user.
        phase: In this phase.
        attention: With this Attention.
        model: Of this model or inference endpoint, as the request names it.
        route: Of this route.
        since: Started then or later; with a time zone, as ``until``.
        until: Started before it.
        is_open: True: has not ended.
        job_ids: Of these jobs.
    """

    user: str | None
    phase: str | None
    attention: str | None
    model: str | None
    route: str | None
    since: datetime | None
    until: datetime | None
    is_open: bool
    job_ids: Collection[str] | None


def queries(*further: str, **wanted: Unpack[Wanted]) -> Iterator[str]:
    """The questions that together ask for what is wanted: one, unless there are many job ids.

    Args:
        further: Terms of the query language that hold as well.
        wanted: The filters.

    Raises:
        ValueError: A time has no time zone.
    """
    attributes = {
        contract.SEEDANCE_USER: wanted.get("user"),
        contract.SEEDANCE_PHASE: wanted.get("phase"),
        contract.SEEDANCE_ATTENTION: wanted.get("attention"),
        contract.SEEDANCE_MODEL: wanted.get("model"),
    }
    terms = [f"WorkflowType = {_quoted(contract.WORKFLOW)}", *further]
    terms += [f"{key.name} = {_quoted(value)}" for key, value in attributes.items() if value is not None]
    if (route := wanted.get("route")) is not None:
        # Every run has its queue, also where the search attributes are missing, or no worker has begun with it.
        terms.append(f"TaskQueue = {_quoted(Queues(route).workflows)}")
    if (since := wanted.get("since")) is not None:
        terms.append(f"StartTime >= {_time(since)}")
    if (until := wanted.get("until")) is not None:
        terms.append(f"StartTime < {_time(until)}")
    if wanted.get("is_open"):
        terms.append("ExecutionStatus = 'Running'")
    if (job_ids := wanted.get("job_ids")) is None:
        yield " AND ".join(terms)
        return
    ids = sorted(set(job_ids))
    for start in range(0, len(ids), _IDS_IN_A_QUERY):
        some = ", ".join(map(_quoted, ids[start : start + _IDS_IN_A_QUERY]))
        yield " AND ".join([*terms, f"WorkflowId IN ({some})"])


def _time(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone")
    return _quoted(at.isoformat())


def _quoted(value: str) -> str:
    """A text as a literal of a query."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
