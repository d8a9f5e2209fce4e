"""The columns and the remarks of a report, for table and page."""

from __future__ import annotations

from collections.abc import Callable

from seedance_temporal.reports.figures import OUTCOMES, Figures, JobEnd


def _outcome(outcome: JobEnd) -> tuple[str, Callable[[Figures], str]]:
    return outcome, lambda of: f"{of.outcomes.get(outcome, 0):,}"


def columns(total: Figures) -> list[tuple[str, Callable[[Figures], str]]]:
    """Return the columns of a report, each with its head and its cells. An outcome that did not occur has none."""
    return [
        ("jobs", lambda of: f"{of.jobs:,}"),
        *(_outcome(outcome) for outcome in OUTCOMES if outcome in total.outcomes),
        ("attempts", lambda of: f"{of.attempts:,}"),
        ("tokens", lambda of: f"{of.tokens:,}"),
        ("USD", lambda of: f"{of.cost_usd:,.4f}"),
        ("of estimate", of_estimate),
    ]


def of_estimate(of: Figures) -> str:
    """Return the actual cost as a share of the most that was expected; by tokens where no price is known."""
    actual, most = of.compared_usd, of.estimated_usd
    if not most:
        actual, most = of.compared_tokens, of.estimated_tokens
    return f"{actual / most:.0%}" if most else ""


def named(value: str | None) -> str:
    """Name the value that the jobs of a group share."""
    return "not known" if value is None else value


def remarks(total: Figures) -> list[str]:
    """Say in sentences which amounts the sums do not include."""
    sentences = []
    if total.unpriced_tokens:
        sentences.append(f"{total.unpriced_tokens:,} of the tokens have no known price, and are not in the cost.")
    if total.uncounted_tasks:
        sentences.append(
            f"Tasks that are, or may be, billed, and whose tokens are not known: {total.uncounted_tasks:,}. "
            "The provider's invoice shows them."
        )
    return sentences
