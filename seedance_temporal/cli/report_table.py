"""The figures of a report in words, for table and page."""

from __future__ import annotations

from collections.abc import Callable

from seedance_temporal.reports.figures import OUTCOMES, Figures, Outcome


def _outcome(outcome: Outcome) -> tuple[str, Callable[[Figures], str]]:
    return outcome, lambda of: f"{of.outcomes.get(outcome, 0):,}"


def columns(total: Figures) -> list[tuple[str, Callable[[Figures], str]]]:
    """The columns of a report: each head, and what stands below it. An outcome that nobody had has none."""
    return [
        ("jobs", lambda of: f"{of.jobs:,}"),
        *(_outcome(outcome) for outcome in OUTCOMES if outcome in total.outcomes),
        ("attempts", lambda of: f"{of.attempts:,}"),
        ("tokens", lambda of: f"{of.tokens:,}"),
        ("USD", lambda of: f"{of.cost_usd:,.4f}"),
        ("of estimate", of_estimate),
    ]


def of_estimate(of: Figures) -> str:
    """The actual cost as a share of the most that was expected; by tokens where there are no prices."""
    actual, most = of.compared_usd, of.estimated_usd
    if not most:
        actual, most = of.compared_tokens, of.estimated_tokens
    return f"{actual / most:.0%}" if most else ""


def named(value: str | None) -> str:
    """What the jobs of a group have in common."""
    return "not known" if value is None else value


def remarks(total: Figures) -> list[str]:
    """What the sums leave out, in sentences."""
    said = []
    if total.unpriced_tokens:
        said.append(f"{total.unpriced_tokens:,} of the tokens have no known price, and are not in the cost.")
    if total.uncounted_tasks:
        said.append(
            f"Tasks that were billed, or may have been, and whose tokens nobody has seen: {total.uncounted_tasks:,}. "
            "The provider's invoice tells."
        )
    return said
