"""The search for the task of an attempt whose outcome is unknown."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from seedance_temporal.ledger.decisions import Decision, Recovery, other_key
    from seedance_temporal.ledger.facts import Listing
    from workflows import messages, policies
    from workflows.inbox import Inbox
    from workflows.progress import Progress
    from workflows.steps import Steps


class Search:
    """Ask the lister, and collect the listings that may prove absence."""

    def __init__(self, steps: Steps, inbox: Inbox, progress: Progress) -> None:
        self._steps = steps
        self._inbox = inbox
        self._progress = progress
        self._heard = False
        self._unanswered = 0
        self._proofs: list[Listing] = []
        self._doubt: str | None = None
        self._problem: str | None = None

    @property
    def was_answered(self) -> bool:
        """Whether the lister has answered, or was asked twice in vain, or by the run before this one.

        A claim can be old when its search begins: the first listing, due in seconds, may show its task.
        """
        return self._heard or self._unanswered > 1 or workflow.info().continued_run_id is not None

    def advice(self, job_id: str, attempt: int, recovery: Recovery) -> tuple[str, ...]:
        """Return what an operator should know, and the ways to settle it."""
        # Where a task exists, there is no absence to be proven; that LIST fails still matters.
        listed = self._inbox.listed.get(attempt)
        shown = f"it showed {listed} once, and GET does not" if listed is not None else None
        unproven = None if recovery.accepted else recovery.doubt or shown or self._doubt
        unread = None if self._heard else "it has not been read yet"
        return messages.advice_on_unknown(
            job_id,
            attempt,
            "; ".join(filter(None, (self._problem, unread, unproven))),
            self._inbox.unchecked,
            accepted=recovery.accepted,
            shows=recovery.safety_identifier,
            since=recovery.claimed_at,
            cancelled=self._inbox.cancel.requested,
        )

    def wait_seconds(self, recovery: Recovery) -> float:
        """Return how long to wait for a listing before the lister is asked again."""
        patient = self._unanswered and not recovery.needs_operator
        return recovery.wait_seconds * (policies.LISTING_PATIENCE if patient else 1)

    async def step(self, decision: Decision) -> Decision:
        """Handle one listing that has arrived, or else ask for one; return the decision that follows."""
        if not self._inbox.listings:
            self._unanswered += 1
            return await self._steps.ask_lister(decision.attempt)
        listing = self._inbox.listings.pop(0)
        if listing.attempt != decision.attempt:
            return decision
        if listing.problem:
            # The lister keeps the request, and answers it once LIST is back.
            self._heard, self._problem = True, messages.list_fails(listing.began_at, listing.problem)
            return decision
        self._heard, self._unanswered, self._problem = True, 0, None
        if listing.task_id is not None:
            # The inbox identifies it. A later listing that does not show it proves nothing.
            return decision
        key = decision.recovery.key if decision.recovery is not None else ""
        self._doubt = messages.SHOWS_NONE_OF_OURS if listing.is_blind else None
        if key and listing.key != key:
            self._doubt = other_key(key, listing.key)
        detail = None if listing.complete else "incomplete listing"
        self._progress.note("not_listed", "list", detail, attempt=decision.attempt)
        if listing.complete:
            self._proofs = [*self._proofs, listing][-policies.MOST_LISTINGS :]
        if (
            len(self._proofs) > 1
            and not await self._inbox.await_named_tasks()
            and not self._inbox.why_it_may_exist(decision.attempt)
        ):
            proofs = tuple(proof for proof in self._proofs if proof.attempt == decision.attempt)
            return await self._steps.settle_absent(decision.attempt, proofs)
        return decision
