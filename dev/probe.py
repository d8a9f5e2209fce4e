"""``make probe``: find out on a real account what the provider's documents leave open, for the price of a short video.

It creates one task: the cheapest model at 480p, as short as it takes. It never sends a second POST: where the answer is
lost, it searches for the task. Nothing is stored, and Temporal is not needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.identity import safety_identifier
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.provider.models import Model
from seedance_temporal.provider.payload import body_of
from seedance_temporal.provider.prices import Cost
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import SUCCEEDED, TERMINAL, parse_task
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.urls import printable

MOST_USD = 0.30
# A listing that lags behind is waited for, and a lost task searched for.
_LISTED_WITHIN_SECONDS = 120.0
_ENDED_WITHIN_SECONDS = 45 * 60.0
_POLL_SECONDS = 10.0
_MOST_PAGES = 20

console = Console(emoji=False, highlight=False)
# Progress, beside the answer.
aside = Console(stderr=True, emoji=False, highlight=False)


@dataclass(frozen=True)
class Finding:
    """An answer to an open question.

    Attributes:
        consequence: What it means for a deployment, and which setting follows from it.
    """

    question: str
    found: str
    consequence: str = ""


class Stopped(Exception):
    """The probe cannot go on. The message says why, and what was spent."""


@dataclass
class Probe:
    """The probe of one account.

    Attributes:
        poll_seconds: The pause between two GETs.
        listed_within: Seconds that the task may take to be listed.
    """

    ark: Ark
    settings: Settings
    request: VideoRequest
    poll_seconds: float = _POLL_SECONDS
    listed_within: float = _LISTED_WITHIN_SECONDS

    def __post_init__(self) -> None:
        self.findings: list[Finding] = []
        self.identifier = safety_identifier(self.request.user_id, secrets.token_hex(16))
        self.task_id: str | None = None
        self.is_sent = False
        self._needs_model = False

    async def run(self) -> None:
        """Ask everything.

        Raises:
            Stopped: The account cannot be used, or the task did not come to an end.
        """
        await self._key()
        await self._create()
        await self._listed()
        await self._ended()
        await self._urls()

    def _find(self, question: str, found: str, consequence: str = "") -> None:
        self.findings.append(Finding(question, found, consequence))

    async def _key(self) -> None:
        try:
            await self.ark.list(1, 1)
            self._find("permission of the key", "All", "one listing serves all models")
        except ArkError as error:
            if not error.needs_model:
                raise Stopped(f"LIST is refused, and nothing was spent: {error}") from None
            self._needs_model = True
            self._find("permission of the key", "Custom", "each model is listed by itself; the worker does so")
        except httpx.HTTPError as error:
            raise Stopped(f"The provider cannot be reached, and nothing was spent: {error}") from None

    async def _create(self) -> None:
        body = body_of(self.request, []) | {"safety_identifier": self.identifier}
        # By it the task can be found in the console, even if this process dies during the create.
        aside.print(f"[dim]safety_identifier[/] {self.identifier}")
        self.is_sent = True
        answer = await self.ark.create(body, self.settings.seedance_create_timeout_seconds)
        if answer.kind in {"refused", "not_sent"}:
            raise Stopped(f"The create is refused, and nothing was spent: {answer.code}: {answer.message}")
        self.task_id = answer.task_id
        aside.print(f"[dim]task[/] {printable(self.task_id or 'not known yet')}")
        found = "answered with a task id" if self.task_id is not None else f"{answer.code}: {answer.message}"
        self._find("answer to the create", found)

    async def _listed(self) -> None:
        began = time.monotonic()
        model = self.request.model if self._needs_model else ""
        item: dict[str, Any] | None = None
        while item is None and time.monotonic() - began < self.listed_within:
            items = await self._list(model)
            item = next(filter(self._is_ours, items), None)
        if item is None:
            raise Stopped(f"LIST does not show the task within {self.listed_within:.0f} s. {self.whereabouts()}")
        times = [each["created_at"] for each in items if isinstance(each.get("created_at"), int | float)]
        self.task_id = self.task_id or str(item["id"])
        seconds = time.monotonic() - began
        late = "SEEDANCE_RECOVERY_SECONDS must be longer" if seconds > 60 else "far below SEEDANCE_RECOVERY_SECONDS"
        self._find("delay of LIST", f"the task is listed after {seconds:.0f} s at most", late)
        shows = item.get("safety_identifier") == self.identifier
        self._find(
            "does LIST show safety_identifier?",
            "yes" if shows else "no",
            "" if shows else "an unknown create needs an operator: absence cannot be proven",
        )
        in_order = times == sorted(times, reverse=True)
        self._find("order of LIST", "newest first" if in_order else "another one", "none: every page is read")
        if not self._needs_model:
            shown = any(map(self._is_ours, await self._list(self.request.model)))
            self._find("filter.model with a model id", "shows the task" if shown else "hides the task")

    def whereabouts(self) -> str:
        """Return what may have been spent, in a sentence."""
        if not self.is_sent:
            return "Nothing was spent."
        named = f"task {self.task_id}" if self.task_id is not None else f"the safety_identifier {self.identifier}"
        return f"It may be billed: look in the console for {named}."

    def _is_ours(self, item: dict[str, Any]) -> bool:
        is_named = self.task_id is not None and item.get("id") == self.task_id
        return is_named or item.get("safety_identifier") == self.identifier

    async def _list(self, model: str) -> list[dict[str, Any]]:
        """Read all pages, as far as they are plausible."""
        items: list[dict[str, Any]] = []
        for number in range(1, _MOST_PAGES + 1):
            page = await self._answered(partial(self.ark.list, number, 500, model=model))
            items += page.items
            if not page.items or len(items) >= page.total:
                break
        return items

    async def _ended(self) -> None:
        began, seen = time.monotonic(), dict[str, float]()
        assert self.task_id is not None
        while time.monotonic() - began < _ENDED_WITHIN_SECONDS:
            payload = await self._answered(lambda: self.ark.get(str(self.task_id)))
            status = parse_task(payload).status if payload is not None else "not shown"
            if status not in seen:
                seen[status] = time.monotonic() - began
                aside.print(f"[dim]{seen[status]:6.0f} s[/] {printable(status)}")
            if status in TERMINAL:
                break
            await asyncio.sleep(self.poll_seconds)
        else:
            raise Stopped(f"Task {self.task_id} has not ended. It goes on, and is billed if it succeeds.")
        self._find("statuses", ", ".join(f"{status} after {at:.0f} s" for status, at in seen.items()))
        if status != SUCCEEDED:
            raise Stopped(f"Task {self.task_id} ended {status}, which is not billed. The rest is not known.")

    async def _urls(self) -> None:
        first, second = [await self._answered(lambda: self.ark.get(str(self.task_id))) for _ in range(2)]
        assert first is not None
        assert second is not None
        task, again = parse_task(first), parse_task(second)
        if task.content is None or task.content.video_url is None or again.content is None:
            raise Stopped(f"Task {self.task_id} succeeded, and shows no URL.")
        url = task.content.video_url
        signed_anew = url != again.content.video_url
        renewed = "a URL that is dead is renewed" if signed_anew else ""
        self._find("does GET sign URLs anew?", "yes" if signed_anew else "no", renewed)
        self._find("does GET show safety_identifier?", "yes" if task.safety_identifier == self.identifier else "no")
        rules, tokens = self.settings.rules, task.usage.total_tokens if task.usage is not None else None
        expected = rules.estimate(self.request).tokens
        priced = str(rules.cost_of(self.request, task)) or "its price is not known"
        other = "" if tokens == expected else "estimates differ from the bill"
        self._find("tokens", f"{tokens}, expected {expected}; {priced}", other)
        unread = sorted(printable(name) for name in first if name not in type(task).model_fields)
        self._find("fields that are not read", ", ".join(unread) or "none")
        async with httpx.AsyncClient(timeout=60) as client:
            try:
                head = await client.head(url)
                self._find("HEAD of a result", f"HTTP {head.status_code}")
                async with client.stream("GET", url, headers={"Range": "bytes=0-99"}) as part:
                    resumes = part.status_code == httpx.codes.PARTIAL_CONTENT
                self._find(
                    "Range of a result", f"HTTP {part.status_code}", "" if resumes else "broken downloads start over"
                )
            except httpx.HTTPError as error:
                self._find(
                    "host of the result", f"not reachable: {type(error).__name__}", "no worker here could copy it"
                )

    async def _answered(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask for something that costs nothing, some times."""
        for tries_left in reversed(range(10)):
            try:
                return await ask()
            except (ArkError, httpx.HTTPError) as error:
                if not tries_left:
                    raise Stopped(f"{error}. The task {self.task_id or self.identifier} may be billed.") from None
            await asyncio.sleep(self.poll_seconds)
        raise AssertionError


def cheapest(rules: Rules, route: str) -> Model:
    """Return the model of a route whose shortest video at 480p costs least.

    Raises:
        Stopped: No price is known.
    """
    priced = [
        (price.plain * model.durations[0], model.id)
        for model in rules.models.values()
        if model.route == route
        and "480p" in model.resolutions
        and (price := model.prices.get("480p")) is not None
        and price.plain is not None
        if model.ends is None or rules.today() < model.ends
    ]
    if not priced:
        raise Stopped(f"No price of a model on {route} is known; SEEDANCE_PRICES sets them. Nothing was spent.")
    return rules.models[min(priced)[1]]


def _chosen(settings: Settings, model_id: str | None) -> Model:
    """Return the model to ask.

    Raises:
        Stopped: It is not known, or of the other route.
    """
    if model_id is None:
        return cheapest(settings.rules, settings.ark_route)
    model = settings.rules.models.get(model_id)
    if model is None or model.route != settings.ark_route:
        raise Stopped(
            f"{model_id} is no known model on {settings.ark_route}; SEEDANCE_MODELS adds it. Nothing was spent."
        )
    return model


def request_for(model: Model) -> VideoRequest:
    """Return the request for the shortest video of a model. Its words are new each time."""
    return VideoRequest(
        user_id="probe",
        route=model.route,
        model=model.id,
        prompt=f"A paper boat on a pond, {secrets.token_hex(4)}",
        resolution="480p",
        duration=model.durations[0],
    )


def main(
    most_usd: Annotated[
        float | None, typer.Option(help="The most that it may cost, in USD; asked for by default.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Spend it without asking.")] = False,
    model: Annotated[str | None, typer.Option(help="The model to ask; the cheapest by default.")] = None,
    poll_seconds: Annotated[float, typer.Option(hidden=True)] = _POLL_SECONDS,
    listed_within: Annotated[float, typer.Option(hidden=True)] = _LISTED_WITHIN_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Find out what the provider's documents leave open. It spends money: one short video."""
    try:
        settings = Settings.from_environment("ARK_API_KEY")
        assert settings.ark_api_key is not None
        ark = Ark(settings.base_url, settings.ark_api_key.get_secret_value(), settings.secrets)
        request = request_for(_chosen(settings, model))
        if problems := settings.rules.check_new(request):
            raise Stopped(f"{'; '.join(map(str, problems))}. Nothing was spent.")
        cost = settings.rules.estimate(request).most
        _agree(settings, request, cost, most_usd, yes)
        probe = Probe(ark, settings, request, poll_seconds, listed_within)
    except (InvalidSettings, Stopped) as error:
        sys.stderr.write(f"probe: {error}\n")
        raise typer.Exit(2) from None
    stopped = ""
    try:
        asyncio.run(probe.run())
    except Stopped as error:
        stopped = str(error)
    except BaseException as error:
        stopped = f"{type(error).__name__}. {probe.whereabouts()}"
        if not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        _show(probe, stopped, as_json)
    raise typer.Exit(1 if stopped else 0)


def _agree(settings: Settings, request: VideoRequest, cost: Cost, most_usd: float | None, yes: bool) -> None:
    """Have the cost agreed upon.

    Raises:
        Stopped: It is over the cap, or not agreed.
    """
    usd = settings.in_usd(cost)
    if usd is None:
        raise Stopped("The price is not known in USD: set SEEDANCE_CNY_PER_USD, or SEEDANCE_PRICES. Nothing was spent.")
    aside.print(f"{request.model}, 480p, {request.duration} s at {settings.base_url}: {cost} by price table")
    if most_usd is None and not yes:
        most_usd = typer.prompt("The most that it may cost, in USD", default=MOST_USD, type=float)
    # NaN is no cap.
    if not usd <= (MOST_USD if most_usd is None else most_usd):
        raise Stopped(f"It would cost {usd:.4f} USD, which is over the cap. Nothing was spent.")
    if not yes and not typer.confirm("Spend it?", default=False):
        raise Stopped("Nothing was spent.")


def _show(probe: Probe, stopped: str, as_json: bool) -> None:
    """Print what was found; on stderr where stdout takes no more, as it was paid for."""
    try:
        _print(probe, stopped, as_json)
        sys.stdout.flush()
    except OSError as error:
        aside.print(f"The findings cannot be written ({error.strerror}):")
        for finding in probe.findings:
            aside.print(printable(f"{finding.question}: {finding.found}"), markup=False)
        # What is left in the stream would fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(probe: Probe, stopped: str, as_json: bool) -> None:
    if as_json:
        findings = [asdict(finding) for finding in probe.findings]
        print(json.dumps({"task_id": probe.task_id, "findings": findings, "stopped": stopped or None}, indent=2))
        return
    table = Table("question", "found", "consequence")
    for finding in probe.findings:
        table.add_row(finding.question, printable(finding.found), finding.consequence)
    console.print(table)
    if stopped:
        console.print(printable(stopped), markup=False)


if __name__ == "__main__":
    typer.run(main)
