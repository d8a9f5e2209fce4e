"""Write the report as one page: without network or script, accessible, in light and dark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import median, quantiles
from xml.etree.ElementTree import Element

import pygal
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pygal.etree import etree
from pygal.style import Style

from seedance_temporal.cli.report_table import columns, named, remarks
from seedance_temporal.provider.billing import BilledTask
from seedance_temporal.reports.figures import OUTCOMES, Account, Figures, Key, figures, rows

# So many models have a colour of their own; the others, the least expensive ones, share the last.
_MODELS = 7
# More days than this are drawn as months: their labels would not be readable.
_MOST_DAYS = 62
_MINUTES = (0, 1, 2, 3, 5, 10, 20, 60)
_TEMPLATES = Environment(
    loader=PackageLoader("seedance_temporal.cli", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="var(--ink)",
    foreground_strong="var(--ink)",
    foreground_subtle="var(--soft)",
    guide_stroke_color="var(--line)",
    major_guide_stroke_color="var(--line)",
    colors=tuple(f"var(--colour-{number})" for number in range(_MODELS + 1)),
    value_colors=("var(--ink)",) * (_MODELS + 1),
    font_family="system-ui, sans-serif",
    opacity="1",
    stroke_opacity="1",
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=13,
    value_font_size=13,
    no_data_font_size=18,
)

_LOOK = {"style": _STYLE, "js": [], "width": 900, "margin": 12, "max_scale": 6, "no_data_text": "nothing to draw"}


def page(
    accounts: Sequence[Account], by: Sequence[Key], *, source: str, made_at: datetime, cny_per_usd: float | None
) -> str:
    """Return the page's HTML.

    Args:
        accounts: The jobs.
        by: The keys of the table's groups.
        source: Where the jobs come from, in a few words.
        made_at: When they were read.
        cny_per_usd: The rate for one sum of both currencies, if there is one.
    """
    days = [account.day for account in accounts]
    total = figures(accounts)
    heads = columns(total)
    return _TEMPLATES.get_template("report_page.html").render(
        source=source,
        made_at=made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        first=min(days, default=None),
        last=max(days, default=None),
        remarks=remarks(total, cny_per_usd),
        totals=[(head, shown(total)) for head, shown in heads],
        plots=[_spend(accounts, total, cny_per_usd), _times(accounts), _outcomes(total)],
        by=by,
        heads=[head for head, _ in heads],
        rows=[
            ([named(value) for value in group], [shown(of) for _, shown in heads])
            for group, of in rows(accounts, by).items()
        ],
    )


def _spend(accounts: Sequence[Account], total: Figures, cny_per_usd: float | None) -> dict[str, object]:
    """Plot spend by day, or month, and model: in money, or in tokens where no one currency says it."""
    in_usd = bool(total.cost_usd) or (bool(total.cost_cny) and cny_per_usd is not None)
    in_both = in_usd and bool(total.cost_cny)
    priced = bool(total.cost_usd or total.cost_cny) and not (in_both and cny_per_usd is None)
    unit = "USD" if in_usd else "CNY"
    if in_both and priced:
        unit = f"USD, with CNY at {cny_per_usd:g} for a USD"
    elif not priced:
        unit = "tokens, as USD and CNY have no rate" if in_both else "tokens, as no price is known"

    def amount(task: BilledTask) -> float:
        if not priced:
            return task.tokens or 0
        return (task.cost.usd or 0) + (task.cost.cny or 0) / (cny_per_usd if in_usd and cny_per_usd else 1)

    days = [date.fromisoformat(account.day) for account in accounts]
    span = (max(days) - min(days)).days + 1 if days else 0
    period, length = ("month", len("2026-11")) if span > _MOST_DAYS else ("day", len("2026-11-22"))
    every_day = (min(days) + timedelta(days=number) for number in range(span))
    labels = list(dict.fromkeys(day.isoformat()[:length] for day in every_day))
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for account in accounts:
        for task in account.tasks:
            spent[named(account.model)][account.day[:length]] += amount(task)
    shown = _with_others(spent)
    # One below the other: the library leaves no room for a last row that is not full.
    legend = {"legend_at_bottom": True, "legend_at_bottom_columns": 1, "truncate_legend": -1}
    chart = pygal.StackedBar(**_LOOK, **legend, height=300 + 22 * len(shown), x_title=period)
    chart.x_labels = labels
    chart.value_formatter = (lambda value: f"{value:,.2f}") if priced else (lambda value: f"{value:,.0f}")
    if len(labels) > 10:
        chart.x_label_rotation = 45
    for model, by_label in shown.items():
        chart.add(model, [round(by_label.get(label, 0), 6) for label in labels])
    return _plot(chart, f"Spend by {period} and model", f"In {unit}; by the day of the job's start, in UTC.")


def _with_others(spent: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    dearest = sorted(spent, key=lambda model: sum(spent[model].values()), reverse=True)
    if len(dearest) <= _MODELS + 1:
        return {model: spent[model] for model in dearest}
    others: dict[str, float] = defaultdict(float)
    for model in dearest[_MODELS:]:
        for label, amount in spent[model].items():
            others[label] += amount
    return {model: spent[model] for model in dearest[:_MODELS]} | {"other models": others}


def _times(accounts: Sequence[Account]) -> dict[str, object]:
    """Plot the time that stored jobs took."""
    minutes = [
        (account.ended_at - account.started_at).total_seconds() / 60
        for account in accounts
        if account.outcome == "stored" and account.ended_at is not None
    ]
    spans = [*pairwise(_MINUTES), (_MINUTES[-1], float("inf"))]
    labels = [f"{least} to {most}" for least, most in spans[:-1]] + [f"over {_MINUTES[-1]}"]
    caption = "No job is stored."
    if len(minutes) > 1:
        most = quantiles(minutes, n=20, method="inclusive")[-1]
        caption = f"Half of the jobs within {median(minutes):.1f} minutes, 95 of 100 within {most:.1f}."
    elif minutes:
        caption = f"One job, in {minutes[0]:.1f} minutes."
    counts = [sum(least <= one < most for one in minutes) for least, most in spans]
    return _counted("Time from submission to stored", labels, counts, caption, "minutes")


def _outcomes(total: Figures) -> dict[str, object]:
    counts = [total.outcomes.get(outcome, 0) for outcome in OUTCOMES]
    return _counted("Outcomes", OUTCOMES, counts, "Jobs by how they ended; open ones have not.")


def _counted(
    title: str, labels: Sequence[str], counts: Sequence[int], caption: str, unit: str | None = None
) -> dict[str, object]:
    values = {"print_values": True, "print_values_position": "top", "print_zeroes": False}
    chart = pygal.Bar(**_LOOK, **values, height=300, show_legend=False, x_title=unit)
    chart.x_labels = labels
    chart.value_formatter = lambda value: f"{value:,.0f}"
    chart.add("jobs", counts)
    return _plot(chart, title, caption)


def _plot(chart: pygal.Graph, title: str, caption: str) -> dict[str, object]:
    """Render a plot without the library's script and comments; its tooltips become titles."""
    root: Element = chart.render_tree()
    root.set("role", "img")
    root.set("aria-label", title)
    for parent in list(root.iter()):
        for child in list(parent):
            is_comment = not isinstance(child.tag, str)
            if is_comment or child.tag == "script" or (child.tag == "desc" and child.get("class") != "value"):
                parent.remove(child)
            elif child.tag == "desc":
                child.tag = "title"
    svg = Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 - a tree that was serialised is escaped
    return {"title": title, "svg": svg, "caption": caption}
