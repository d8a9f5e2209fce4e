"""Count events of activities in metrics: looks at tasks, videos that are stored, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from temporalio import activity

from seedance_temporal.job import VideoResult
from seedance_temporal.metrics import COST, LOOKS, STORE_DELAY, STORED_BYTES, TOKENS
from seedance_temporal.provider.billing import tokens
from seedance_temporal.provider.models import ENDPOINT
from seedance_temporal.provider.prices import Cost, cost_in
from seedance_temporal.provider.task import Task, Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings


def count_look(request: VideoRequest, result: Literal["known", "unknown_status", "gone", "failed"]) -> None:
    """Count a GET of a task."""
    LOOKS.add(activity.metric_meter(), route=request.route, result=result)


def count_stored(request: VideoRequest, task: Task, video: VideoResult, settings: Settings) -> None:
    """Count a video whose record was just written."""
    meter = activity.metric_meter()
    STORED_BYTES.add(meter, video.size, route=request.route)
    if task.updated_at is not None:
        STORE_DELAY.record(meter, max(0.0, datetime.now(UTC).timestamp() - task.updated_at), route=request.route)
    count_billed(request, video.usage, cost_in(video), settings)


def count_billed(request: VideoRequest, usage: Usage | None, cost: Cost, settings: Settings) -> None:
    """Count the tokens and the cost of a task that is billed, as far as they are known."""
    meter = activity.metric_meter()
    model = settings.rules.behind(request.model)
    labels = {"route": request.route, "model": "endpoint" if ENDPOINT.fullmatch(model) else model}
    if (used := tokens(usage)) is not None:
        TOKENS.add(meter, used, **labels)
    for currency, amount in (("usd", cost.usd), ("cny", cost.cny)):
        if amount is not None:
            COST.record(meter, amount, currency=currency, **labels)
