"""Write the report as one page: without network or script, accessible, in light and dark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import median, quantiles
from xml.etree.ElementTree import Element

import pygal
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pygal.etree import etree
from pygal.style import Style

from seedance_temporal.cli.report_table import columns, named, remarks
from seedance_temporal.reports.figures import OUTCOMES, Account, Figures, Key, Row

# So many models have a colour of their own; the others, the least expensive ones, share the last.
_MODELS = 7
# More days than this are drawn as months: their labels would not be readable.
_MOST_DAYS = 62
_MINUTES = (0, 1, 2, 3, 5, 10, 20, 60)
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


def page(
    accounts: Sequence[Account],
    by: Sequence[Key],
    groups: Sequence[Row],
    total: Figures,
    *,
    source: str,
    made_at: datetime,
) -> str:
    """Return the page's HTML.

    Args:
        accounts: The jobs, for the plots.
        by: The keys of the groups.
        groups: The rows of the table.
        total: All of it.
        source: Where it comes from, in a few words.
        made_at: When it was read.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    days = [account.day for account in accounts]
    return environment.from_string(_PAGE).render(
        source=source,
        made_at=made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        first=min(days, default=None),
        last=max(days, default=None),
        remarks=remarks(total),
        totals=[(head, shown(total)) for head, shown in columns(total)],
        plots=[_spend(accounts), _times(accounts), _outcomes(total)],
        by=by,
        heads=[head for head, _ in columns(total)],
        rows=[
            ([named(value) for value in row.group], [shown(row.figures) for _, shown in columns(total)])
            for row in groups
        ],
    )


def _spend(accounts: Sequence[Account]) -> dict[str, object]:
    """Plot spend by day, or month, and model: in USD, or in tokens where no price is known."""
    priced = any(task.usd for account in accounts for task in account.tasks)
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    days = sorted({date.fromisoformat(account.day) for account in accounts})
    by_month = bool(days) and (days[-1] - days[0]).days >= _MOST_DAYS
    for account in accounts:
        when = account.day[:7] if by_month else account.day
        for task in account.tasks:
            spent[named(account.model)][when] += (task.usd if priced else task.tokens) or 0
    labels = _without_gaps(days, by_month)
    shown = _with_others(spent)
    # One below the other: the library leaves no room for a last row that is not full.
    chart = pygal.StackedBar(
        **_LOOK,
        height=300 + 22 * len(shown),
        legend_at_bottom=True,
        legend_at_bottom_columns=1,
        truncate_legend=-1,
        x_title="month" if by_month else "day",
    )
    chart.x_labels = labels
    chart.value_formatter = (lambda value: f"{value:,.2f}") if priced else (lambda value: f"{value:,.0f}")
    if len(labels) > 10:
        chart.x_label_rotation = 45
    for model, by_label in shown.items():
        chart.add(model, [round(by_label.get(label, 0), 6) for label in labels])
    unit = "USD" if priced else "tokens, as no price is known"
    title = f"Spend by {'month' if by_month else 'day'} and model"
    return {"title": title, "svg": _svg(chart, title), "caption": f"In {unit}; by the day of the job's start, in UTC."}


def _without_gaps(days: Sequence[date], by_month: bool) -> list[str]:
    """Return every day, or month, from the first to the last."""
    if not days:
        return []
    every = [days[0] + timedelta(days=number) for number in range((days[-1] - days[0]).days + 1)]
    return list(dict.fromkeys(day.isoformat()[: 7 if by_month else 10] for day in every))


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
    chart = pygal.Bar(
        **_LOOK,
        height=300,
        show_legend=False,
        print_values=True,
        print_values_position="top",
        print_zeroes=False,
        x_title=unit,
    )
    chart.x_labels = labels
    chart.value_formatter = lambda value: f"{value:,.0f}"
    chart.add("jobs", counts)
    return {"title": title, "svg": _svg(chart, title), "caption": caption}


_LOOK = {
    "style": _STYLE,
    "js": [],
    "width": 900,
    "margin": 12,
    "max_scale": 6,
    "no_data_text": "nothing to draw",
}


def _svg(chart: pygal.Graph, title: str) -> Markup:
    """Render a plot without the library's script and comments; its tooltips become titles."""
    root: Element = chart.render_tree()
    root.set("role", "img")
    root.set("aria-label", title)
    for parent in list(root.iter()):
        for child in list(parent):
            kind = child.get("class", "")
            is_comment = not isinstance(child.tag, str)
            if is_comment or child.tag == "script" or (child.tag == "desc" and kind != "value"):
                parent.remove(child)
            elif child.tag == "desc":
                child.tag = "title"
    return Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 - a tree that was serialised is escaped


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Seedance report{% if first %}, {{ first }} to {{ last }}{% endif %}</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2330; --soft: #5b6472; --line: #d5dae1; --card: #f4f6f8;
  --colour-0: #2f6fc4; --colour-1: #d9772b; --colour-2: #2f8f5b; --colour-3: #8a5bc0;
  --colour-4: #b8434f; --colour-5: #2a8c99; --colour-6: #a08324; --colour-7: #7b8594;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --ink: #e6e9ee; --soft: #a3adba; --line: #39424f; --card: #1d232c;
    --colour-0: #6aa5f0; --colour-1: #f0a05f; --colour-2: #63c08d; --colour-3: #b692e6;
    --colour-4: #e57c86; --colour-5: #5fc0cd; --colour-6: #d0b457; --colour-7: #98a2b0;
  }
}
body { margin: 2rem auto; max-width: 74rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1, h2 { font-weight: 600; line-height: 1.2; }
p, figcaption, caption { color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: .75rem; }
dl div { background: var(--card); border-radius: .5rem; padding: .5rem 1rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
figure { margin: 2rem 0; }
svg { display: block; height: auto; max-width: 54rem; width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: start; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .5rem; text-align: start; vertical-align: top; }
th { white-space: nowrap; }
.number { text-align: end; white-space: nowrap; }
</style>
</head>
<body>
<main>
<h1>Seedance report</h1>
<p>From {{ source }}, read {{ made_at }}.
{%- if first %} Jobs started {{ first }} to {{ last }} (UTC).{% else %} There are no jobs.{% endif %}</p>
<dl>
{% for head, shown in totals %}
<div><dt>{{ head }}</dt><dd>{{ shown or "–" }}</dd></div>
{% endfor %}
</dl>
{% for remark in remarks %}
<p>{{ remark }}</p>
{% endfor %}
{% for plot in plots %}
<figure>
<h2>{{ plot.title }}</h2>
{{ plot.svg }}
<figcaption>{{ plot.caption }}</figcaption>
</figure>
{% endfor %}
<h2>By {{ by | join(", ") }}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="The figures by {{ by | join(", ") }}">
<table>
<caption>Tokens and USD are of tasks that were billed; a day is that of the job's start, in UTC.</caption>
<thead><tr>
{% for key in by %}
<th scope="col">{{ key }}</th>
{% endfor %}
{% for head in heads %}
<th scope="col" class="number">{{ head }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for group, cells in rows %}
<tr>
{% for value in group %}
<th scope="row">{{ value }}</th>
{% endfor %}
{% for cell in cells %}
<td class="number">{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
</main>
</body>
</html>
"""
