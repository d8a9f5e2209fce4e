"""The metrics of worker and relay: one table of them, and the runtime that exposes them to Prometheus.

No label holds a user, a prompt, a job, a task or a URL: each would make a series of its own, and be read by everybody
who can read metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from temporalio.common import MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from seedance_temporal.errors import InvalidSettings

Source = Literal["workflow", "activity", "relay", "collector"]
# From a copy that follows a callback at once to the end of a URL's life.
_DELAY_BUCKETS = (10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0)
# The price of a video, in USD or CNY.
_COST_BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As Prometheus shows it; a histogram has its series under this name as well.
        meaning: One sentence.
        labels: Those of its own. Temporal's meters add ``namespace``, ``task_queue`` and a type.
        source: The part of the product that has it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...]
    source: Source
    buckets: tuple[float, ...] = ()

    @cached_property
    def _given_name(self) -> str:
        # The exporter adds these endings.
        return self.name.removesuffix("_total")

    def add(self, meter: MetricMeter, value: int = 1, /, **labels: str) -> None:
        """Increase a counter."""
        meter.create_counter(self._given_name, self.meaning).add(value, self._checked(labels))

    def set(self, meter: MetricMeter, value: float, **labels: str) -> None:
        """Set a gauge."""
        meter.create_gauge_float(self._given_name, self.meaning).set(value, self._checked(labels))

    def record(self, meter: MetricMeter, value: float, **labels: str) -> None:
        """Record a value in a histogram."""
        meter.create_histogram_float(self._given_name, self.meaning).record(value, self._checked(labels))

    def _checked(self, labels: dict[str, str]) -> dict[str, str]:
        assert labels.keys() == set(self.labels), f"{self.name} has the labels {self.labels}"
        return labels


# Where the thing happens

CREATES = Metric(
    "seedance_creates_total",
    "counter",
    "Creates by outcome: `created`, `refused`, `not_sent`, `unknown` (a task may exist), `conflict` (another "
    "run has the attempt), `impossible` (nothing could be sent).",
    ("route", "class", "outcome"),
    "workflow",
)
ATTENTIONS_RAISED = Metric(
    "seedance_attentions_raised_total", "counter", "Attentions that jobs raised.", ("route", "kind"), "workflow"
)
LOOKS = Metric(
    "seedance_looks_total",
    "counter",
    "GETs of tasks that jobs follow: `known`, `unknown_status`, `gone` (the provider knows no such task), `failed` (no "
    "usable answer).",
    ("route", "result"),
    "activity",
)
STORE_DELAY = Metric(
    "seedance_store_delay_seconds",
    "histogram",
    "Seconds from the success of a task, by the provider's clock, to its record in the bucket.",
    ("route",),
    "activity",
    _DELAY_BUCKETS,
)
STORED_BYTES = Metric(
    "seedance_stored_bytes_total", "counter", "Bytes of videos that were stored.", ("route",), "activity"
)
TOKENS = Metric(
    "seedance_tokens_total",
    "counter",
    "Tokens that the provider billed, by its answers.",
    ("route", "model"),
    "activity",
)
COST = Metric(
    "seedance_cost",
    "histogram",
    "Cost of each billed task, in `usd` or `cny`, by the price table; `seedance_cost_sum` is the money spent.",
    ("route", "model", "currency"),
    "activity",
    _COST_BUCKETS,
)
CALLBACKS = Metric(
    "seedance_callbacks_total",
    "counter",
    "Callbacks: `passed_on`, `not_ours` (a wrong URL), `no_task` (a wrong or a cut body), `too_large`, `too_many`, "
    "`unavailable` (Temporal did not take it in time; the provider sends it again).",
    ("result",),
    "relay",
)

# By the collector of the worker

OPEN_JOBS = Metric(
    "seedance_open_jobs",
    "gauge",
    "Jobs that have an Attention or can have a task, by phase.",
    ("route", "phase"),
    "collector",
)
ATTENTIONS = Metric("seedance_attentions", "gauge", "Open jobs with an Attention.", ("route", "kind"), "collector")
ATTENTION_AGE = Metric(
    "seedance_attention_age_seconds",
    "gauge",
    "Age of the oldest Attention of a kind; 0 where there is none.",
    ("route", "kind"),
    "collector",
)
UNKNOWN_CREATES = Metric(
    "seedance_unknown_creates",
    "gauge",
    "Open jobs of whose create nobody knows whether the provider made a task.",
    ("route",),
    "collector",
)
EXPOSED_JOBS = Metric(
    "seedance_exposed_jobs",
    "gauge",
    "Open jobs that have a task, may have one, or are about to: from the create to the record.",
    ("route",),
    "collector",
)
EXPOSURE = Metric(
    "seedance_exposure",
    "gauge",
    "The most that these can cost by estimate, in `usd` and `cny`.",
    ("route", "currency"),
    "collector",
)
UNSTORED_JOBS = Metric(
    "seedance_unstored_jobs",
    "gauge",
    "Open jobs whose task is known to have succeeded, and whose video is not stored yet.",
    ("route",),
    "collector",
)
UNSTORED_AGE = Metric(
    "seedance_unstored_age_seconds",
    "gauge",
    "Seconds since the oldest of these was known to have succeeded; 0 where there is none.",
    ("route",),
    "collector",
)
URL_LEFT = Metric(
    "seedance_url_left_seconds",
    "gauge",
    "Seconds that the URL of the oldest of these is valid for, counted from when the success was known; 86400 where "
    "there is none.",
    ("route",),
    "collector",
)
BUDGET = Metric(
    "seedance_budget_usd", "gauge", "The budgets of the settings.", ("route", "payer", "period"), "collector"
)
BUDGET_LEFT = Metric(
    "seedance_budget_left_usd",
    "gauge",
    "The part of each that is neither used nor reserved.",
    ("route", "payer", "period"),
    "collector",
)
GATE = Metric(
    "seedance_gate_held",
    "gauge",
    "1 where creates are `paused`, `closed` or `ramping`, else 0.",
    ("route", "class", "kind"),
    "collector",
)
GATE_AGE = Metric(
    "seedance_gate_held_seconds",
    "gauge",
    "Seconds since when creates are paused or closed; 0 where they are not.",
    ("route", "class"),
    "collector",
)
PLACES = Metric(
    "seedance_places",
    "gauge",
    "With a running limit: places that are `taken`, and their `limit`; and jobs that are `waiting` for one.",
    ("route", "class", "state"),
    "collector",
)
COLLECTED = Metric(
    "seedance_collected_timestamp_seconds",
    "gauge",
    "Unix time of the collector's last look in which all parts were read.",
    ("route",),
    "collector",
)
COLLECTOR_ERRORS = Metric(
    "seedance_collector_errors_total",
    "counter",
    "Looks of the collector in which a part could not be read: `jobs`, `gate`, `places`, `budgets`.",
    ("route", "part"),
    "collector",
)

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


def class_of(resolution: str) -> str:
    """Return the provider's class of creates, by which it limits and queues them."""
    return "4k" if resolution == "4k" else "ordinary"


def metrics_runtime(address: str) -> Runtime:
    """Make a runtime of Temporal's SDK that exposes its metrics, and ours, at ``http://<address>/metrics``.

    Raises:
        InvalidSettings: Nothing can listen there.
    """
    buckets = {metric.name: metric.buckets for metric in METRICS if metric.buckets}
    exporter = PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=buckets,
    )
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=exporter, attach_service_name=False))
    except ValueError as error:
        raise InvalidSettings(
            f"SEEDANCE_METRICS_ADDRESS: nothing can listen on {address} ({error}); name a free port of this host"
        ) from None
