"""The columns and the remarks of a report, for table and page."""

from __future__ import annotations

from collections.abc import Callable

from seedance_temporal.reports.figures import OUTCOMES, Figures, JobEnd
from seedance_temporal.urls import printable


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
        *([("CNY", lambda of: f"{of.cost_cny:,.4f}")] if total.cost_cny else []),
        ("of estimate", of_estimate),
    ]


def of_estimate(of: Figures) -> str:
    """Return the actual cost as a share of the most that was expected; by tokens where no one currency says it."""
    of_currency = [(of.compared_usd, of.estimated_usd), (of.compared_cny, of.estimated_cny)]
    known = [(actual, most) for actual, most in of_currency if most]
    actual, most = known[0] if len(known) == 1 else (of.compared_tokens, of.estimated_tokens)
    return f"{actual / most:.0%}" if most else ""


def named(value: str | None) -> str:
    """Name the value that the jobs of a group share."""
    return "not known" if value is None else printable(value)


def exposure(of: Figures) -> str:
    """Say how much the open jobs can still cost; empty where none can."""
    if not of.exposed_jobs:
        return ""
    usd = f"{of.exposed_usd:,.2f} USD" if of.exposed_usd else ""
    cny = f"{of.exposed_cny:,.2f} CNY" if of.exposed_cny else ""
    known = " and ".join(filter(None, [usd, cny]))
    without = f", {of.exposed_unpriced:,} of them without an estimate" if of.exposed_unpriced else ""
    return (
        f"{of.exposed_jobs:,} can still be billed" + (f", with at most {known} by estimate" if known else "") + without
    )


def remarks(total: Figures, cny_per_usd: float | None) -> list[str]:
    """Say in sentences which amounts the sums do not include, and what both currencies make together."""
    sentences = [f"Of the open jobs, {exposure(total)}."] if total.exposed_jobs else []
    if total.cost_cny and cny_per_usd is not None:
        sentences.append(
            f"Both currencies together: {total.total_usd(cny_per_usd):,.4f} USD, at {cny_per_usd:g} CNY for a USD, by "
            "SEEDANCE_CNY_PER_USD."
        )
    elif total.cost_cny:
        sentences.append("USD and CNY are not added up: SEEDANCE_CNY_PER_USD sets a rate for that.")
    if total.unpriced_tokens:
        sentences.append(f"{total.unpriced_tokens:,} of the tokens have no known price, and are not in the cost.")
    if total.uncounted_tasks:
        sentences.append(
            f"Tasks that are, or may be, billed, and whose tokens are not known: {total.uncounted_tasks:,}. "
            "The provider's invoice shows them."
        )
    return sentences
