"""What a run shows of itself: in the state query, the search attributes, and the current details of the UI."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from seedance_temporal import contract
    from seedance_temporal.identity import hash_of_job, user_hash
    from seedance_temporal.job import Attention, JobDetail, JobError, JobState, Phase, TimelineEntry, VideoResult
    from seedance_temporal.provider.task import Usage
    from seedance_temporal.request import VideoRequest
    from workflows.ui_details import details

# The beginning of a story and its newest part say most; a poll that shows nothing new only counts up.
_KEPT_FIRST = 20
_KEPT_LAST = 80
# The timeline is handed to activities, whose arguments have 2 MB at most.
_LONGEST_NOTE = 2_000
# A keyword's characters on SQL, and its bytes as JSON on every server.
_LONGEST_KEYWORD = 255
_MOST_KEYWORD_BYTES = 2_000


class Progress:
    """A job's state, as callers and operators see it."""

    def __init__(self, request: VideoRequest, timeline: Collection[TimelineEntry] = ()) -> None:
        self._job_id = workflow.info().workflow_id
        self._request = request
        self._timeline = list(timeline)
        self._registered: frozenset[str] = frozenset()
        self._user: str | None = None
        self._phase: Phase = "checking"
        self._attention: Attention | None = None
        self._advice: str | None = None
        self._provider_status: str | None = None
        self._awaited: str | None = None
        self._next_poll_at: datetime | None = None
        self._billed: tuple[float | None, int | None] = (None, None)
        self._result: VideoResult | None = None
        self._error: JobError | None = None
        self._estimated_tokens: int | None = None
        self._estimated_usd: float | None = None
        self._warnings: list[str] = []
        self.folder: str | None = None
        self.task_id: str | None = None
        self.attempt: int | None = None

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def attention(self) -> Attention | None:
        return self._attention

    @property
    def timeline(self) -> tuple[TimelineEntry, ...]:
        return tuple(self._timeline)

    def register(self, search_attributes: Collection[str], *, hash_users: bool) -> None:
        """Names the search attributes that the namespace knows. Upserting any other would block the run for good.

        Args:
            search_attributes: Their names.
            hash_users: Whether the user is shown by a hash.
        """
        if self._registered == frozenset(search_attributes):
            return
        self._registered = frozenset(search_attributes)
        self._user = user_hash(self._request.user_id) if hash_users else self._request.user_id
        self._upsert(
            {
                contract.SEEDANCE_USER: self._user,
                contract.SEEDANCE_ROUTE: self._request.route,
                contract.SEEDANCE_MODEL: self._request.model,
                contract.SEEDANCE_PHASE: self._phase,
            }
        )
        # A run that was continued inherits the old one's Attention; whatever still stands is raised again.
        inherited = workflow.info().typed_search_attributes.get(contract.SEEDANCE_ATTENTION)
        if inherited is not None and self._attention is None:
            self._unset_attention()

    def expect(self, tokens: int | None, usd: float | None) -> None:
        """Keeps the most that an attempt should cost; None where that is not known."""
        if (tokens, usd) != (self._estimated_tokens, self._estimated_usd):
            self._estimated_tokens, self._estimated_usd = tokens, usd
            workflow.upsert_memo({contract.MEMO_ESTIMATED_TOKENS: tokens, contract.MEMO_ESTIMATED_USD: usd})

    def warn(self, *warnings: str) -> None:
        """Keeps what is allowed, and still likely to disappoint; once each."""
        self._warnings += [warning for warning in dict.fromkeys(warnings) if warning not in self._warnings]
        self._show()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def note(self, what: str, how: str, note: str | None = None) -> None:
        """Adds to the timeline; what was last seen already is counted instead.

        Args:
            what: What happened, in a few words.
            how: How it was learned.
            note: More, where there is more to say.
        """
        note = note[:_LONGEST_NOTE] if note is not None else None
        last = self._timeline[-1] if self._timeline else None
        if last is not None and (last.what, last.how, last.note) == (what, how, note):
            self._timeline[-1] = last.model_copy(update={"times": last.times + 1})
            return
        self._timeline.append(TimelineEntry(at=workflow.now(), what=what, how=how, note=note))
        if len(self._timeline) > _KEPT_FIRST + _KEPT_LAST:
            del self._timeline[_KEPT_FIRST]

    def enter(self, phase: Phase) -> None:
        """Goes on to a phase."""
        if phase != self._phase:
            self._phase = phase
            self._upsert({contract.SEEDANCE_PHASE: phase})
        self._show()

    def tries(self, attempt: int | None) -> None:
        """Names the attempt that this job is now about."""
        if attempt != self.attempt:
            self.attempt = attempt
            workflow.upsert_memo({contract.MEMO_ATTEMPT: attempt})

    def follows(self, attempt: int, task_id: str) -> None:
        """Names the task that this job now follows."""
        self.tries(attempt)
        self._name_task(task_id)

    def seen(self, status: str, how: str) -> None:
        """Notes what the provider says of the task."""
        self._provider_status = status
        self.note(status, how)
        self._show()

    def waits(self, what: str | None, seconds: float = 0) -> None:
        """Notes what is waited for, and when the wait ends by itself; None where nothing is waited for."""
        self._awaited = what
        self._next_poll_at = None if what is None else workflow.now() + timedelta(seconds=seconds)
        self._show()

    def need(self, attention: Attention, advice: str) -> None:
        """Raises an Attention: what a person must settle, and how."""
        self._advice = advice
        if attention != self._attention:
            self._attention = attention
            self.note(f"needs a person: {attention}", "workflow", advice)
            self._upsert({contract.SEEDANCE_ATTENTION: attention})
        self._show()

    def settle(self, *attentions: Attention) -> None:
        """Takes one of these Attentions back, should it stand."""
        if self._attention in attentions:
            self.note(f"settled: {self._attention}", "workflow")
            self._attention = self._advice = None
            self._unset_attention()
            self._show()

    def stored(self, result: VideoResult) -> None:
        """The end that was hoped for."""
        self._result = result
        self._name_task(result.task_id)
        self.waits(None)
        self.enter("stored")
        self._spent(result.usage, result.cost_usd)
        self._show()

    def ended(self, error: JobError, phase: Phase, usage: Usage | None, cost_usd: float | None) -> None:
        """Another end, and what its task was counted with."""
        self._error = error
        self.tries(error.attempt)
        self._name_task(error.task_id)
        self.waits(None)
        self.enter(phase)
        # Only a task that succeeded is billed, and a video that was lost came of one.
        if error.failure_class == "lost":
            self._spent(usage, cost_usd)
        self._show()

    def _spent(self, usage: Usage | None, cost_usd: float | None) -> None:
        spent: dict[Any, str | int | float] = {}
        self._billed = cost_usd, usage.total_tokens if usage is not None else None
        if usage is not None and usage.total_tokens is not None:
            spent[contract.SEEDANCE_TOKENS] = usage.total_tokens
        if cost_usd is not None:
            spent[contract.SEEDANCE_COST_USD] = cost_usd
        self._upsert(spent)

    def state(self) -> JobState:
        """The answer to the state query."""
        cost_usd, tokens = self._billed
        return JobState(
            job_id=self._job_id,
            request_hash=hash_of_job(self._job_id),
            phase=self._phase,
            attention=self._attention,
            task_id=self.task_id,
            attempt=self.attempt,
            result=self._result,
            error=self._error,
            user=self._user,
            route=self._request.route,
            model=self._request.model,
            started_at=workflow.info().start_time,
            tokens=tokens,
            cost_usd=cost_usd,
            estimated_tokens=self._estimated_tokens,
            estimated_usd=self._estimated_usd,
            detail=JobDetail(
                request=self._request,
                provider_status=self._provider_status,
                next_poll_at=self._next_poll_at,
                advice=self._advice,
                warnings=self.warnings,
                timeline=self.timeline,
            ),
        )

    def _show(self) -> None:
        """Renews the current details: after every change that they tell of."""
        text = details(self.state(), awaited=self._awaited, folder=self.folder, billed=self._billed)
        workflow.set_current_details(text)

    def _unset_attention(self) -> None:
        if contract.SEEDANCE_ATTENTION.name in self._registered:
            workflow.upsert_search_attributes([contract.SEEDANCE_ATTENTION.value_unset()])

    def _name_task(self, task_id: str | None) -> None:
        if task_id is not None and task_id != self.task_id:
            self.task_id = task_id
            self._upsert({contract.SEEDANCE_TASK_ID: task_id})

    def _upsert(self, values: dict[Any, str | int | float]) -> None:
        updates = [key.value_set(_fitting(value)) for key, value in values.items() if key.name in self._registered]
        if updates:
            workflow.upsert_search_attributes(updates)


def _fitting(value: str | int | float) -> str | int | float:
    """A value that every store of search attributes takes: the server ends a run over one that is too long."""
    if isinstance(value, str):
        value = value[:_LONGEST_KEYWORD]
        while len(json.dumps(value)) > _MOST_KEYWORD_BYTES:
            value = value[:-1]
    return value
