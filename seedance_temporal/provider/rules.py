"""The rules of one deployment: what may be asked for, what it should cost, and what a task did cost.

The client checks a request at submission, and the worker again before a POST. Nothing in here needs a network. What a
model allows is in models.py, with its sources; list prices are in prices.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seedance_temporal.errors import Problem
from seedance_temporal.provider.checks import problems_of
from seedance_temporal.provider.models import ENDPOINT, KINDS, MODEL_CHOOSES, MODELS, PIXELS, SEEDANCE_2_0, Model
from seedance_temporal.provider.prices import PRICES, Estimate, PriceTable, cost_usd
from seedance_temporal.provider.task import Task
from seedance_temporal.provider.warnings import warnings_of
from seedance_temporal.request import VideoRequest


@dataclass(frozen=True)
class Rules:
    """The rules that a deployment's settings make; client and workers must share them.

    ``Settings.from_environment().rules`` builds them; without arguments, nothing is overridden.

    Attributes:
        endpoints: The model id behind each inference endpoint (``ep-…``) that is known.
        prices: USD per million tokens, by model id and resolution.
        insecure_hosts: Hosts, in lower case, for which plain http and private addresses are allowed.
        reference_buckets: Buckets, or buckets and prefixes, of ``gs://`` references, each with a closing slash; empty:
            any that the worker can read.
        own_objects: Bucket and prefix of the jobs' own objects, with a closing slash; empty where they are not known.
    """

    endpoints: Mapping[str, str] = field(default_factory=dict)
    prices: PriceTable = field(default_factory=lambda: PRICES)
    insecure_hosts: frozenset[str] = frozenset()
    reference_buckets: tuple[str, ...] = ()
    own_objects: str = ""

    def check(self, request: VideoRequest) -> list[Problem]:
        """List everything that is wrong with a request, as far as it shows without a network; empty if nothing is."""
        return problems_of(request, self)

    def warnings(self, request: VideoRequest) -> list[str]:
        """List what is allowed and still likely to disappoint, in sentences. The request need not be valid."""
        return warnings_of(request, self)

    def estimate(self, request: VideoRequest) -> Estimate:
        """Estimate the most that one attempt should cost. The request need not be valid.

        Where the provider chooses (``duration`` -1, ``ratio`` adaptive), the longest and the largest video is counted,
        and with a reference video, the most seconds that all of them may have. The formula was measured on 2.0
        (section "pixels and tokens"), and is used for the other models too. Savings by ``draft`` or ``flex`` are not
        counted.
        """
        model = self.model_of(request.model)
        seconds = request.duration
        if seconds == MODEL_CHOOSES and model is not None:
            seconds = model.durations[-1]
        sizes = PIXELS.get(request.resolution, {})
        if model is not None and request.resolution in model.unsized:
            sizes = {}
        if request.ratio != "adaptive":
            sizes = {ratio: size for ratio, size in sizes.items() if ratio == request.ratio}
        if not sizes or seconds < 1:
            return Estimate(tokens=None, usd=None)
        if model is not None and _has_reference_video(request):
            seconds += model.reference_seconds
        tokens = max(width * height for width, height in sizes.values()) * (24 * seconds + 1) // 1024
        return Estimate(tokens, self._cost_usd(request, request.model, request.resolution, tokens))

    def cost_of(self, request: VideoRequest, task: Task) -> float | None:
        """Price the tokens that the provider counted, in USD; None where tokens or price are not known.

        An inference endpoint is priced by the model behind it, which the task names.
        """
        if task.usage is None or task.usage.total_tokens is None:
            return None
        model, resolution = task.model or request.model, task.resolution or request.resolution
        return self._cost_usd(request, model, resolution, task.usage.total_tokens)

    def _cost_usd(self, request: VideoRequest, model_id: str, resolution: str, tokens: int) -> float | None:
        return cost_usd(self.behind(model_id), resolution, _has_reference_video(request), tokens, self.prices)

    def behind(self, model_id: str) -> str:
        """Return the model id behind an inference endpoint; any other id, and an unknown endpoint, as it is."""
        return self.endpoints.get(model_id, model_id)

    def model_of(self, model_id: str) -> Model | None:
        """Return the model of an id, on either route; None if it is not known.

        An endpoint that is not in ``endpoints`` has the rules of Seedance 2.0.
        """
        behind = self.behind(model_id)
        if ENDPOINT.fullmatch(behind):
            return SEEDANCE_2_0
        return next((model for model in MODELS if behind in model.ids.values()), None)

    def is_unknown_endpoint(self, model_id: str) -> bool:
        """Return whether an id is an inference endpoint that is not in ``endpoints``."""
        return model_id not in self.endpoints and ENDPOINT.fullmatch(model_id) is not None


def _has_reference_video(request: VideoRequest) -> bool:
    return any(KINDS.get(reference.role) == "video" for reference in request.references)
