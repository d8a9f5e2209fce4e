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
from seedance_temporal.provider.prices import UNKNOWN, Cost, Estimate, cost
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
        return Problem(at="model", problem=f"{named} ended on {model.ends}; use {successor}")

    def warnings(self, request: VideoRequest) -> list[str]:
        """List what is allowed and still likely to disappoint, in sentences. The request need not be valid."""
        return warnings_of(request, self)

    def estimate(self, request: VideoRequest) -> Estimate:
        """Estimate the most, and the least, that one attempt should cost. The request need not be valid.

        Where provider or draft choose (``duration`` -1, ``ratio`` adaptive, ``draft_of``), the longest and the largest
        video is counted, or the shortest and the smallest. The seconds of reference videos are billed as well; they are
        bounded by what the model takes. The formula was measured on 2.0 and 2.5 (section "pixels and tokens"), and is
        used for the other models too. Savings by ``draft`` or ``flex`` are not counted. A final has the references of
        its draft, which the request does not show, so both prices count: without and with a reference video.
        """
        model = self.model_of(request.model)
        sizes = self._sizes(request, model)
        seconds = {request.duration}
        is_final = request.draft_of is not None
        if (request.duration == MODEL_CHOOSES or is_final) and model is not None:
            seconds = {model.durations[0], model.durations[-1]}
        if not sizes or min(seconds) < 1:
            return Estimate()
        pixels = [width * height for width, height in sizes.values()]
        most, least = list[tuple[int, Cost]](), list[tuple[int, Cost]]()
        for with_video in (False, True) if is_final else (_has_reference_video(request),):
            of_references = (SHORTEST_REFERENCE_SECONDS, model.reference_seconds) if model and with_video else (0, 0)
            at_least = _tokens(min(pixels), min(seconds) + of_references[0])
            at_most = _tokens(max(pixels), max(seconds) + of_references[1])
            least.append((at_least, cost(model, request.resolution, with_video, at_least) if model else UNKNOWN))
            most.append((at_most, cost(model, request.resolution, with_video, at_most) if model else UNKNOWN))
        return Estimate(
            max(tokens for tokens, _ in most),
            _of_all(max, [of.usd for _, of in most]),
            _of_all(max, [of.cny for _, of in most]),
            min(tokens for tokens, _ in least),
            _of_all(min, [of.usd for _, of in least]),
            _of_all(min, [of.cny for _, of in least]),
        )

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

        An inference endpoint is priced by the model behind it, which the task names. Whether the draft of a final had
        a reference video is told from the tokens, as the seconds of such a video are billed.
        """
        if task.usage is None or task.usage.total_tokens is None:
            return UNKNOWN
        model = self.model_of(task.model or request.model) or self.model_of(request.model)
        if model is None:
            return UNKNOWN
        tokens, resolution = task.usage.total_tokens, task.resolution or request.resolution
        if request.draft_of is None:
            return cost(model, resolution, _has_reference_video(request), tokens)
        size = model.sizes.get(resolution, {}).get(task.ratio or request.ratio)
        if size is None or task.duration is None:
            return UNKNOWN
        with_video = tokens >= _tokens(size[0] * size[1], round(task.duration) + SHORTEST_REFERENCE_SECONDS)
        return cost(model, resolution, with_video, tokens)

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


def _of_all(choose: Callable[[list[float]], float], amounts: list[float | None]) -> float | None:
    """Choose one of the amounts; None where one is not known."""
    known = [amount for amount in amounts if amount is not None]
    return choose(known) if len(known) == len(amounts) else None


def _tokens(pixels: int, seconds: int) -> int:
    return pixels * (FPS * seconds + 1) // 1024
