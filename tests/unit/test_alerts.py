"""The alert rules and the dashboard of ``deploy/``: they use metrics that exist, and each alert fires by its cause."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from seedance_temporal.metrics import METRICS
from tests.docs.pages import ROOT

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
RUNBOOK = ROOT / "docs" / "how-to" / "runbook.md"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
# Of Temporal's SDK and Prometheus itself; tests/e2e/test_metrics.py sees that a worker exposes the former.
OF_OTHERS = {"up", "temporal_long_request_total", "temporal_activity_execution_failed_total"}
PROMTOOL = shutil.which("promtool")


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    without_texts = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:seedance|temporal)_\w+|\bup\b", without_texts))


def exposed() -> set[str]:
    endings = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {f"{metric.name}{ending}" for metric in METRICS for ending in endings[metric.kind]}


@pytest.mark.parametrize("expression", [rule["expr"] for rule in ALERTS.values()] + dashboard_expressions())
def test_expression_uses_known_metrics_and_labels(expression: str) -> None:
    names = names_in(expression)
    assert names
    assert names <= exposed() | OF_OTHERS
    of = {name: metric for metric in METRICS for name in names if name.startswith(metric.name)}
    for name, matchers in re.findall(r"(seedance_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= {*of[name].labels, "job", "instance"}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for expression in dashboard_expressions() for name in names_in(expression)}
    assert {metric.name for metric in METRICS if not any(name.startswith(metric.name) for name in shown)} == set()


def test_every_alert_has_its_section() -> None:
    text = RUNBOOK.read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/how-to/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
        for part in ("**Meaning.**", "1. ", "**Waiting**"):
            assert part in sections[name], f"{name} lacks {part}"


class Case(NamedTuple):
    """Series by which an alert fires at a minute, and others by which it does not."""

    fires: dict[str, str]
    minute: int
    labels: dict[str, str]
    quiet: dict[str, str]


ROUTE = 'route="byteplus"'
OF_ROUTE = {"route": "byteplus"}
WORKER = 'job="seedance-worker",instance="w1"'
CASES = {
    "SeedanceWorkerMissing": Case({f"up{{{WORKER}}}": "0x10"}, 6, {}, {f"up{{{WORKER}}}": "1x10"}),
    "SeedanceWorkerNotPolling": Case(
        {f"temporal_long_request_total{{{WORKER}}}": "7x20"},
        12,
        {"instance": "w1"},
        {f"temporal_long_request_total{{{WORKER}}}": "0+5x20"},
    ),
    "SeedanceVideoNotStored": Case(
        {f"seedance_unstored_age_seconds{{{ROUTE}}}": "3500+60x5"},
        3,
        OF_ROUTE,
        {f"seedance_unstored_age_seconds{{{ROUTE}}}": "60+60x5"},
    ),
    "SeedanceUrlAtRisk": Case(
        {f"seedance_url_left_seconds{{{ROUTE}}}": "21600-60x5"},
        1,
        OF_ROUTE,
        {f"seedance_url_left_seconds{{{ROUTE}}}": "86400x5"},
    ),
    "SeedanceAttention": Case(
        {f'seedance_attentions{{{ROUTE},kind="storage"}}': "1x10"},
        6,
        OF_ROUTE | {"kind": "storage"},
        {
            f'seedance_attentions{{{ROUTE},kind="account"}}': "1x10",
            f'seedance_attentions{{{ROUTE},kind="storage"}}': "0x10",
        },
    ),
    "SeedanceSecondTask": Case(
        {f'seedance_attentions_raised_total{{{ROUTE},kind="second_task"}}': "_x60 1x20"},
        65,
        OF_ROUTE,
        {f'seedance_attentions_raised_total{{{ROUTE},kind="second_task"}}': "3x90"},
    ),
    "SeedanceUnknownCreate": Case(
        {f'seedance_attentions{{{ROUTE},kind="unknown_create"}}': "1x10"},
        2,
        OF_ROUTE,
        {f'seedance_attentions{{{ROUTE},kind="unknown_create"}}': "0x10"},
    ),
    "SeedanceAccountClosed": Case(
        {f'seedance_attentions{{{ROUTE},kind="account"}}': "1x10"},
        3,
        OF_ROUTE | {"kind": "account"},
        {f'seedance_attentions{{{ROUTE},kind="storage"}}': "1x10"},
    ),
    "SeedanceGateHeldLong": Case(
        {f'seedance_gate_held_seconds{{{ROUTE},class="4k"}}': "3590+60x5"},
        1,
        OF_ROUTE | {"class": "4k"},
        {f'seedance_gate_held_seconds{{{ROUTE},class="4k"}}': "0+60x5"},
    ),
    "SeedancePlacesStuck": Case(
        {
            f'seedance_places{{{ROUTE},class="ordinary",state="waiting"}}': "3x80",
            f'seedance_creates_total{{{ROUTE},class="ordinary",outcome="created"}}': "9x80",
            f'seedance_gate_held_seconds{{{ROUTE},class="ordinary"}}': "0x80",
        },
        70,
        OF_ROUTE | {"class": "ordinary"},
        {
            f'seedance_places{{{ROUTE},class="ordinary",state="waiting"}}': "3x80",
            f'seedance_creates_total{{{ROUTE},class="ordinary",outcome="created"}}': "0+1x80",
            f'seedance_places{{{ROUTE},class="4k",state="waiting"}}': "3x80",
            f'seedance_gate_held_seconds{{{ROUTE},class="4k"}}': "0+60x80",
        },
    ),
    "SeedanceCallbacksFailing": Case(
        {'seedance_callbacks_total{result="unavailable"}': "0+2x15"},
        10,
        {},
        {
            'seedance_callbacks_total{result="passed_on"}': "0+50x15",
            'seedance_callbacks_total{result="unavailable"}': "2x15",
        },
    ),
    "SeedancePollErrors": Case(
        {
            f'seedance_looks_total{{{ROUTE},result="failed"}}': "0+6x30",
            f'seedance_looks_total{{{ROUTE},result="known"}}': "0+5x30",
        },
        25,
        OF_ROUTE,
        {
            f'seedance_looks_total{{{ROUTE},result="failed"}}': "0+1x30",
            f'seedance_looks_total{{{ROUTE},result="known"}}': "0+5x30",
        },
    ),
    "SeedanceBudgetNearlyUsed": Case(
        {
            f'seedance_budget_usd{{{ROUTE},payer="account:byteplus",period="day"}}': "50x5",
            f'seedance_budget_left_usd{{{ROUTE},payer="account:byteplus",period="day"}}': "10x5",
        },
        1,
        OF_ROUTE | {"payer": "account:byteplus", "period": "day"},
        {
            f'seedance_budget_usd{{{ROUTE},payer="account:byteplus",period="day"}}': "50x5",
            f'seedance_budget_left_usd{{{ROUTE},payer="account:byteplus",period="day"}}': "11x5",
        },
    ),
    "SeedanceMetricsStale": Case(
        {f"seedance_collected_timestamp_seconds{{{ROUTE}}}": "0x20"},
        11,
        OF_ROUTE,
        {f"seedance_collected_timestamp_seconds{{{ROUTE}}}": "0+60x20"},
    ),
}


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == ALERTS.keys()


def rule_tests(name: str, case: Case) -> Iterator[dict[str, Any]]:
    rule = ALERTS[name]
    summary = rule["annotations"]["summary"]
    for label, value in case.labels.items():
        summary = summary.replace(f"{{{{ $labels.{label} }}}}", value)
    fired = {
        "exp_labels": case.labels | rule["labels"],
        "exp_annotations": rule["annotations"] | {"summary": summary},
    }
    for series, alerts in ((case.fires, [fired]), (case.quiet, [])):
        yield {
            "interval": "1m",
            "input_series": [{"series": each, "values": values} for each, values in series.items()],
            "alert_rule_test": [{"eval_time": f"{case.minute}m", "alertname": name, "exp_alerts": alerts}],
        }


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine: no rule was evaluated, and no alert fired")
@pytest.mark.parametrize("name", CASES)
def test_alert_fires_by_its_cause_alone(tmp_path: Path, name: str) -> None:
    file = tmp_path / "case.yml"
    tests = list(rule_tests(name, CASES[name]))
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    run_promtool("test", "rules", str(file))


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine: the rules' syntax was not checked")
def test_rules_are_valid() -> None:
    run_promtool("check", "rules", str(RULES))


def run_promtool(*arguments: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
