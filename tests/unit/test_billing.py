"""The billing rule: a task that succeeded is billed, and nothing else."""

from __future__ import annotations

from typing import get_args

import pytest

from seedance_temporal.job import Phase
from seedance_temporal.provider.billing import NOT_BILLED, BilledTask, Charge, charge, is_billed, once, tokens, total
from seedance_temporal.provider.prices import Cost
from seedance_temporal.provider.task import Usage

USAGE = Usage(total_tokens=42)


def test_phases_that_are_billed() -> None:
    billed = {phase: is_billed(phase) for phase in get_args(Phase)}
    assert {phase for phase, is_so in billed.items() if is_so} == {"stored", "lost"}
    assert {phase for phase, is_so in billed.items() if is_so is False} == {"refused", "failed", "expired", "cancelled"}


@pytest.mark.parametrize(
    ("phase", "usage", "expected"),
    [
        ("stored", USAGE, Charge(tokens=42, usd=0.5, billed=True)),
        ("stored", None, Charge(usd=0.5, billed=True)),
        ("lost", USAGE, Charge(tokens=42, usd=0.5, billed=True)),
        ("lost", None, Charge()),
        ("failed", USAGE, NOT_BILLED),
        ("refused", None, NOT_BILLED),
        ("running", USAGE, Charge()),
    ],
)
def test_charge_of_an_attempt(phase: Phase, usage: Usage | None, expected: Charge) -> None:
    assert charge(phase, usage, Cost(0.5)) == expected


def test_total_leaves_out_unbilled_attempts() -> None:
    unpaid = NOT_BILLED.model_copy(update={"estimated_tokens": 50, "estimated_usd": 1.0})
    paid = Charge(estimated_tokens=50, estimated_usd=1.0, tokens=42, usd=0.5, billed=True)
    assert total([unpaid, paid]) == paid
    assert total([unpaid]) == Charge(
        estimated_tokens=0, estimated_usd=0, estimated_cny=0, tokens=0, usd=0, cny=0, billed=False
    )


def test_total_with_an_open_attempt_is_unknown() -> None:
    paid = Charge(tokens=42, usd=0.5, billed=True)
    assert total([paid, Charge(estimated_tokens=50)]) == Charge()


def test_total_without_a_price_keeps_tokens() -> None:
    paid = Charge(tokens=42, usd=0.5, billed=True)
    found = total([paid, Charge(tokens=8, billed=True)])
    assert (found.tokens, found.usd, found.billed) == (50, None, True)


def test_task_counts_once() -> None:
    counted = BilledTask("cgt-1", 42, Cost(0.5))
    for order in ([BilledTask("cgt-1"), counted], [counted, BilledTask("cgt-1")]):
        assert once([*order, BilledTask(None)]) == (counted, BilledTask(None))


def test_tokens_of_usage() -> None:
    assert (tokens(USAGE), tokens(Usage()), tokens(None)) == (42, None, None)
