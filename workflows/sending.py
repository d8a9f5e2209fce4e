"""Have a create sent, and wait before the next one."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.create import CreateResult
    from activities.ledger import OutcomeInput
    from seedance_temporal.contract import Carried
    from seedance_temporal.reference_media import Medium
    from workflows import messages, policies
    from workflows.behind_gate import BehindGate
    from workflows.inbox import Inbox
    from workflows.progress import Progress
    from workflows.steps import Steps
    from workflows.waits import patience_ends, until


class Sending:
    """Have the paid POST sent, and show the outcome.

    Attributes:
        gate: What the job knows of the gate of its queue.
    """

    def __init__(self, steps: Steps, inbox: Inbox, progress: Progress, carried: Carried) -> None:
        self._steps = steps
        self._inbox = inbox
        self._progress = progress
        self._not_sent = carried.not_sent
        self._not_sent_since = carried.not_sent_since
        self._withdrawn = 0
        self._passing = 0
        self.gate = BehindGate(steps, progress, carried)

    async def send(self, attempt: int, media: tuple[Medium, ...], *, placed: bool) -> CreateResult:
        """Have the create sent, unless a cancel or a task of the job comes before a worker starts with it."""
        is_probe = self.gate.begin_create()
        self._progress.enter("waiting" if self.gate.holds and not is_probe else "creating")
        self._inbox.creating = attempt
        asked = self._inbox.asked
        doubt = self._inbox.unchecked
        create = self._steps.start_create(
            attempt, self._not_sent, media, doubt, self._passing, placed=placed, is_probe=is_probe
        )
        try:
            # A name withdraws one create at most: one that nobody can be asked for would hold up the job for ever.
            listens = self._withdrawn < policies.MOST_WITHDRAWALS
            await until(
                lambda: (
                    create.done()
                    or self._inbox.interrupts
                    or (listens and bool(self._inbox.asked - asked))
                    or self.gate.wants_probe
                )
            )
            if not create.done():
                # Withdraw it where no worker has started it; a create that runs goes on, and is awaited.
                create.cancel()
            result = await create
            self._progress.count_create(result.kind)
            if result.kind == "created":
                assert result.outcome is not None
                assert result.outcome.task_id is not None
                # Before the inbox goes on: a callback can name the same task.
                self._progress.set_task(attempt, result.outcome.task_id)
            self._withdrawn = 0
        except ActivityError as error:
            if error.started_event_id == 0 and self.gate.wants_probe:
                self.gate.ask()
                return CreateResult(kind="not_sent", message="withdrawn from the held queue, to be sent as the probe")
            if error.started_event_id == 0:
                self._withdrawn += 1
                result = CreateResult(kind="not_sent", message="withdrawn before a worker started it")
            else:
                result = CreateResult(kind="unknown", message=f"{error.message}: {error.cause}")
                self._progress.count_create(result.kind)
        finally:
            self._inbox.creating = None
        if result.claim is not None and result.outcome is not None and not result.written:
            await self._steps.write_outcome(OutcomeInput(claim=result.claim, outcome=result.outcome))
        self._show(attempt, result)
        # One that was withdrawn says nothing.
        if result.claim is not None or result.kind not in {"not_sent", "conflict"}:
            await self.gate.report(result)
        return result

    def carry(self, carried: Carried) -> Carried:
        """Add what the next run needs."""
        carried = carried.model_copy(update={"not_sent": self._not_sent, "not_sent_since": self._not_sent_since})
        return self.gate.carry(carried)

    def _show(self, attempt: int, result: CreateResult) -> None:
        self._passing = self._passing + 1 if result.passing else 0
        if result.attention not in {"account", "credentials"}:
            self._progress.clear("account", "credentials")
        if result.kind not in {"not_sent", "conflict"}:
            self._not_sent, self._not_sent_since = 0, None
            self._progress.clear("storage", "provider")
        if result.kind == "created":
            assert result.outcome is not None
            self._progress.expect(result.expected_at, listed=True)
            self._progress.note("task_created", "create", task_id=result.outcome.task_id, attempt=attempt)
        elif result.kind == "unknown":
            self._progress.note("outcome_unknown", "create", result.message, attempt=attempt)
        elif result.kind == "refused":
            self._progress.note("refused", "create", result.message, attempt=attempt)

    async def wait_before_next(self, result: CreateResult) -> None:
        """Wait before the next claim: nothing was created. Raise an Attention where an operator is needed."""
        # One that was withdrawn tells nothing about the provider.
        self._not_sent += result.claim is not None
        self._progress.enter("waiting")
        attempt = result.claim.attempt if result.claim is not None else None
        self._progress.note("not_sent", "create", result.message, attempt=attempt)
        seconds = result.wait_seconds
        if result.attention is not None:
            self._progress.need(result.attention, f"{result.message}. Fix that; the job then goes on by itself.")
        elif result.kind == "conflict":
            seconds = policies.CONFLICT_WAIT.total_seconds()
        elif result.claim is not None:  # a create that no worker has started is not one that failed
            self._not_sent_since = since = self._not_sent_since or workflow.now()
            if patience_ends(since, seconds):
                code = result.outcome.code if result.outcome is not None else ""
                self._progress.need(messages.part_of_create(code), messages.advice_on_create(since, result.message))
        if result.kind == "conflict" or not self.gate.holds:  # else the next create waits in its queue
            await self._progress.wait(lambda: self._inbox.interrupts, seconds, "nothing was created; create again")
