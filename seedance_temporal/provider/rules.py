"""The rules of one deployment: what may be asked for, what it should cost, and what a task did cost.

The client checks a request at submission, and the worker again before a POST. Nothing in here needs a network. What a
model allows and costs is in known_models.py, with its sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from seedance_temporal.errors import Problem
from seedance_temporal.provider.checks import problems_of
from seedance_temporal.provider.known_models import KNOWN, UNKNOWN_ENDPOINT
from seedance_temporal.provider.models import (
    ENDPOINT,
    FPS,
    KINDS,
    MODEL_CHOOSES,
    PIXELS,
    SHORTEST_REFERENCE_SECONDS,
    Model,
    Sizes,
)
from seedance_temporal.provider.prices import Cost, Estimate, cost
from seedance_temporal.provider.task import Task
from seedance_temporal.provider.warnings import warnings_of
from seedance_temporal.request import VideoRequest


def _today() -> date:
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class Rules:
    """The rules that a deployment's settings make; client and workers must share them.

    ``Settings.from_environment().rules`` builds them; without arguments, nothing is overridden.

    Attributes:
        models: What is known of each model, by its id.
        endpoints: The model id behind each inference endpoint (``ep-…``) that is known.
        insecure_hosts: Hosts, in lower case, for which plain http and private addresses are allowed.
        reference_buckets: Buckets, or buckets and prefixes, of ``gs://`` references, each with a closing slash; empty:
            any that the worker can read.
        own_objects: Bucket and prefix of the jobs' own objects, with a closing slash; empty where they are not known.
        today: Returns the day, in UTC: models end.
    """

    models: Mapping[str, Model] = field(default_factory=lambda: KNOWN)
    endpoints: Mapping[str, str] = field(default_factory=dict)
    insecure_hosts: frozenset[str] = frozenset()
    reference_buckets: tuple[str, ...] = ()
    own_objects: str = ""
    today: Callable[[], date] = _today

    def check(self, request: VideoRequest) -> list[Problem]:
        """List everything that is wrong with a request, as far as it shows without a network; empty if nothing is."""
        return problems_of(request, self)

    def check_new(self, request: VideoRequest) -> list[Problem]:
        """List what is wrong with a request that is to be paid for: as :meth:`check`, and the end of its model."""
        ended = self.end_of_model(request)
        return [*self.check(request), *([ended] if ended is not None else [])]

    def end_of_model(self, request: VideoRequest) -> Problem | None:
        """Return that the request's model has ended, or None: then nothing new can be made of the request.

        :meth:`check` leaves this out: a job that was submitted in time is found by its request for ever.
        """
        model = self.model_of(request.model)
        if model is None or model.ends is None or self.today() < model.ends:
            return None
        named = request.model if model.id == request.model else f"{model.id}, behind {request.model},"
        successor = model.successor or "another model"
        return Problem(at="model", problem=f"{named} has ended on {model.ends}; use {successor}")

    def warnings(self, request: VideoRequest) -> list[str]:
        """List what is allowed and still likely to disappoint, in sentences. The request need not be valid."""
        return warnings_of(request, self)

    def estimate(self, request: VideoRequest) -> Estimate:
        """Estimate the most, and the least, that one attempt should cost. The request need not be valid.

        Where provider or draft choose (``duration`` -1, ``ratio`` adaptive, ``draft_of``), the longest and the largest
        video is counted, or the shortest and the smallest. The seconds of reference videos are billed as well; they are
        bounded by what the model takes. The formula was measured on 2.0 and 2.5 (section "pixels and tokens"), and is
        used for the other models too. Savings by ``draft`` or ``flex`` are not counted.
        """
        model = self.model_of(request.model)
        sizes = self._sizes(request, model)
        seconds = {request.duration}
        is_final = request.draft_of is not None
        if (request.duration == MODEL_CHOOSES or is_final) and model is not None:
            seconds = {model.durations[0], model.durations[-1]}
        if not sizes or min(seconds) < 1:
            return Estimate()
        least, most = min(seconds), max(seconds)
        if model is not None and _has_reference_video(request):
            least += SHORTEST_REFERENCE_SECONDS
            most += model.reference_seconds
        pixels = [width * height for width, height in sizes.values()]
        most_tokens, least_tokens = _tokens(max(pixels), most), _tokens(min(pixels), least)
        at_most = self._cost(request, request.model, request.resolution, most_tokens)
        at_least = self._cost(request, request.model, request.resolution, least_tokens)
        return Estimate(most_tokens, at_most.usd, at_most.cny, least_tokens, at_least.usd, at_least.cny)

    @staticmethod
    def _sizes(request: VideoRequest, model: Model | None) -> Mapping[str, tuple[int, int]]:
        """Return the sizes that the video can have; empty where they are not known."""
        all_sizes: Sizes = model.sizes if model is not None else PIXELS
        sizes = all_sizes.get(request.resolution, {})
        if request.ratio != "adaptive" and request.draft_of is None:
            return {ratio: size for ratio, size in sizes.items() if ratio == request.ratio}
        # A ratio whose pixels are not documented could be the largest one.
        return sizes if sizes.keys() == PIXELS["720p"].keys() else {}

    def cost_of(self, request: VideoRequest, task: Task) -> Cost:
        """Price the tokens that the provider counted, in the currency that it bills, as far as that is known.

        An inference endpoint is priced by the model behind it, which the task names.
        """
        if task.usage is None or task.usage.total_tokens is None:
            return Cost()
        model, resolution = task.model or request.model, task.resolution or request.resolution
        return self._cost(request, model, resolution, task.usage.total_tokens)

    def _cost(self, request: VideoRequest, model_id: str, resolution: str, tokens: int) -> Cost:
        model = self.model_of(model_id)
        return cost(model, resolution, _has_reference_video(request), tokens) if model is not None else Cost()

    def behind(self, model_id: str) -> str:
        """Return the model id behind an inference endpoint; any other id, and an unknown endpoint, as it is."""
        return self.endpoints.get(model_id, model_id)

    def model_of(self, model_id: str) -> Model | None:
        """Return the model of an id, on either route; None if it is not known.

        An endpoint that is not in ``endpoints`` has the rules of Seedance 2.0.
        """
        behind = self.behind(model_id)
        if ENDPOINT.fullmatch(behind):
            return UNKNOWN_ENDPOINT
        return self.models.get(behind)

    def is_unknown_endpoint(self, model_id: str) -> bool:
        """Return whether an id is an inference endpoint that is not in ``endpoints``."""
        return model_id not in self.endpoints and ENDPOINT.fullmatch(model_id) is not None


def _has_reference_video(request: VideoRequest) -> bool:
    return any(KINDS.get(reference.role) == "video" for reference in request.references)


def _tokens(pixels: int, seconds: int) -> int:
    return pixels * (FPS * seconds + 1) // 1024
