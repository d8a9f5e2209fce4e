"""The provider's billing rule: it bills a task that succeeded, and nothing else. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seedance_temporal.job import Phase, Shape
from seedance_temporal.provider.prices import UNKNOWN, Cost
from seedance_temporal.provider.task import Usage


class Charge(Shape):
    """The expected and the actual charge for an attempt or a job.

    Attributes:
        estimated_tokens, estimated_usd, estimated_cny: The most that was expected before the create.
        tokens, usd, cny: Counted by the provider, and priced by the price table in the currency of the route.
        billed: As all of these, None where it is not known, or still open.
    """

    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    estimated_cny: float | None = None
    tokens: int | None = None
    usd: float | None = None
    cny: float | None = None
    billed: bool | None = None


@dataclass(frozen=True)
class BilledTask:
    """A task that is, or may be, billed. ``tokens`` is None where it is not known."""

    task_id: str | None
    tokens: int | None = None
    cost: Cost = UNKNOWN


NOT_BILLED = Charge(tokens=0, usd=0.0, billed=False)


def is_billed(phase: Phase | str) -> bool | None:
    """Return whether a task is billed, by the phase of its job.

    A task is billed if its video is stored, or was lost: both mean that it succeeded, or may have. None while the
    job is open.
    """
    if phase in {"stored", "lost"}:
        return True
    return False if phase in {"refused", "failed", "expired", "cancelled"} else None


def charge(phase: Phase, usage: Usage | None, cost: Cost) -> Charge:
    """Return the charge for an attempt, without an estimate, by the phase of the job if this attempt decides it."""
    match is_billed(phase):
        case False:
            return NOT_BILLED
        case True if phase == "stored" or usage is not None:
            return Charge(tokens=tokens(usage), usd=cost.usd, cny=cost.cny, billed=True)
        case _:
            # A task that was given up may have succeeded, or may not exist.
            return Charge()


def total(charges: Sequence[Charge]) -> Charge:
    """Add charges. The estimate of an attempt that is not billed does not count."""
    paid = [charge for charge in charges if charge.billed is not False]
    return Charge(
        estimated_tokens=_sum(charge.estimated_tokens for charge in paid),
        estimated_usd=_sum(charge.estimated_usd for charge in paid),
        estimated_cny=_sum(charge.estimated_cny for charge in paid),
        tokens=_sum(charge.tokens for charge in paid),
        usd=_sum(charge.usd for charge in paid),
        cny=_sum(charge.cny for charge in paid),
        billed=None if any(charge.billed is None for charge in paid) else bool(paid),
    )


def once(tasks: Iterable[BilledTask]) -> tuple[BilledTask, ...]:
    """Keep one entry for each task, with tokens where any entry has them: several runs or objects may name a task."""
    by_id: dict[str | None, BilledTask] = {}
    for task in tasks:
        known = by_id.get(task.task_id)
        if known is None or known.tokens is None:
            by_id[task.task_id] = task
    return tuple(by_id.values())


def tokens(usage: Usage | None) -> int | None:
    """Return the tokens that the provider bills, where it counted them."""
    return usage.total_tokens if usage is not None else None


def _sum(numbers: Iterable[Any]) -> Any:
    """Add numbers; None where one of them is not known."""
    known = list(numbers)
    return None if None in known else round(sum(known), 6)
