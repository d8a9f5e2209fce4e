"""Small edits that each break a promise, and the test that turns red for each: ``make mutants``.

Every edit is applied alone, to a copy of the tree. Its old text must be there exactly once, so that an edit which has
no longer fits the code fails loudly. The same tests must be green on a copy without an edit.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 2
_SECONDS = 240
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "demo-output", "node_modules")


@dataclass(frozen=True)
class Mutant:
    """An edit that breaks a promise.

    Attributes:
        promise: The number of the promise in ``docs/explanation/promises.md``.
        what: The broken rule, in a few words.
        file: The file that is edited.
        old: Its text, which occurs once.
        new: The text that replaces it.
        test: The test that turns red, as pytest names it.
    """

    promise: int
    what: str
    file: str
    old: str
    new: str
    test: str

    def apply(self, tree: Path) -> None:
        """Edit the copy.

        Raises:
            LookupError: The old text occurs never, or more than once.
        """
        path = tree / self.file
        text = path.read_text(encoding="utf-8")
        if (times := text.count(self.old)) != 1:
            raise LookupError(f"{self.what}: {self.file} holds {self.old!r} {times} times, and should once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


_CREATE = "activities/create.py"
_LEDGER = "activities/ledger.py"
_LEDGER_STORE = "seedance_temporal/ledger/store.py"
_ARK = "seedance_temporal/provider/ark.py"
_FACTS = "seedance_temporal/ledger/facts.py"
_DECISIONS = "seedance_temporal/ledger/decisions.py"
_RECOVER = "activities/recover.py"
_STORE = "activities/store.py"
_VERIFIED = "seedance_temporal/ledger/task_files.py"
_TASK_TIMES = "seedance_temporal/ledger/task_times.py"
_WORKFLOW = "workflows/generate_video.py"
_CREATING = "workflows/creating.py"
_SENDING = "workflows/sending.py"
_INBOX = "workflows/inbox.py"

MUTANTS = (
    # 1: at most one paid create
    Mutant(
        1,
        "Temporal may start the create twice",
        "workflows/policies.py",
        "CREATE_RETRY = RetryPolicy(maximum_attempts=1)",
        "CREATE_RETRY = RetryPolicy(maximum_attempts=2)",
        "tests/workflows/test_create.py::test_temporal_never_retries_create",
    ),
    Mutant(
        1,
        "the create runs as Temporal's second attempt",
        _CREATE,
        "if info.attempt > 1:",
        "if info.attempt > 99:",
        "tests/integration/test_create.py::test_second_temporal_attempt_sends_nothing",
    ),
    Mutant(
        1,
        "the POST goes out without a claim",
        _CREATE,
        "if not await self._ledger.claim(claim, seconds=_CLAIM_SECONDS):",
        "if not claim.nonce:",
        "tests/integration/test_create.py::test_claim_precedes_post",
    ),
    Mutant(
        1,
        "objects of the ledger are written without the precondition",
        "seedance_temporal/storage/bucket.py",
        'content_type="application/json",\n                if_generation_match=0,',
        'content_type="application/json",',
        "tests/integration/test_bucket.py::test_one_of_forty_creators_wins",
    ),
    Mutant(
        1,
        "a claim that met another one always counts as our own",
        _LEDGER_STORE,
        "return existing is not None and existing.nonce == claim.nonce",
        "return existing is not None",
        "tests/integration/test_create.py::test_concurrent_executions_send_once",
    ),
    Mutant(
        1,
        "a stale decision is acted on",
        _CREATE,
        'if current.next != "claim" or current.attempt > input.attempt:',
        'if current.next == "stored":',
        "tests/integration/test_create.py::test_changed_ledger_sends_nothing",
    ),
    Mutant(
        1,
        "the deadline of a create is not checked before it is sent",
        _CREATE,
        "            if deadline.remaining() < _LEAST_SECONDS:\n",
        "            if deadline.remaining() < -1e9:\n",
        "tests/integration/test_create.py::test_nothing_is_sent_after_time_over",
    ),
    Mutant(
        1,
        "a refused create is sent again past the rate of its queue",
        _CREATE,
        "if not answer.reached_nobody or connect == _CONNECTS:",
        'if answer.kind != "not_sent" or connect == _CONNECTS:',
        "tests/integration/test_create.py::test_refusal_is_sent_once",
    ),
    Mutant(
        1,
        "a POST follows redirects",
        _ARK,
        "follow_redirects=False",
        "follow_redirects=True",
        "tests/integration/test_ark_client.py::test_redirect_is_not_followed",
    ),
    Mutant(
        1,
        "a claim is allowed beside one whose outcome is unknown",
        _FACTS,
        "return self.accepted_without_id or bool(self.tasks) or self.outcome is None",
        "return self.accepted_without_id or bool(self.tasks)",
        "tests/faults/test_ledger_model.py",
    ),
    Mutant(
        1,
        "a second charge needs no consent",
        _LEDGER,
        'failed.error.failure_class != "lost" or resubmit.accept_second_charge',
        'failed.error.failure_class != "never"',
        "tests/integration/test_ledger.py::test_resubmit_of_lost_attempt_needs_consent",
    ),
    Mutant(
        1,
        "a claim goes out while a named task is being identified",
        _CREATING,
        "        if await self._inbox.await_named_tasks() or self._inbox.cancel.requested:\n",
        "        if self._inbox.cancel.requested:\n",
        "tests/workflows/test_inbox.py::test_claim_waits_for_named_task",
    ),
    Mutant(
        1,
        "a claim does not wait for a task that the provider does not show yet",
        _INBOX,
        "        if self._awaited or self._resolving:\n            purpose",
        "        if self._resolving:\n            purpose",
        "tests/workflows/test_inbox.py::test_claim_waits_for_named_task",
    ),
    Mutant(
        1,
        "a create that waits for a worker is sent over a task that was named",
        _SENDING,
        "or self._inbox.interrupts\n                    or (listens and bool(self._inbox.asked - asked))",
        "or self._inbox.cancel.requested",
        "tests/workflows/test_inbox.py::test_unstarted_create_is_withdrawn_for_named_task",
    ),
    Mutant(
        1,
        "a create that waits for a worker is sent over a task in question",
        _SENDING,
        " or (listens and bool(self._inbox.asked - asked))",
        "",
        "tests/faults/test_workflow_model.py::test_situation_keeps_promises",
    ),
    Mutant(
        6,
        "a query reads ahead of the history",
        "workers/read_ahead.py",
        "        return is_new and act.timestamp == self._last.timestamp\n",
        "        return False\n",
        "tests/workflows/test_read_ahead.py::test_refused_query_leaves_history_whole",
    ),
    Mutant(
        7,
        "a failure carries the key into the history",
        "workers/clearing.py",
        "return redacted(message, self._secrets, _LONGEST_MESSAGE)",
        "return message[:_LONGEST_MESSAGE]",
        "tests/unit/test_clearing.py::test_failure_loses_secrets",
    ),
    Mutant(
        1,
        "what an operator names does not hold back what another one asks for",
        "workflows/inbox.py",
        "            self._begin(self._identify(named))\n",
        "            pass\n",
        "tests/workflows/test_resolve.py::test_not_created_is_refused_over_named_task",
    ),
    Mutant(
        1,
        "a new run forgets that an operator named a task",
        "workflows/inbox.py",
        '{"source": "operator"} if key in self._vouched else {}',
        "{}",
        "tests/workflows/test_resolve.py::test_task_that_operator_named_is_adopted_later",
    ),
    Mutant(
        1,
        "an operator's name counts no longer than that of a callback before it",
        _INBOX,
        "later = max(later, self._vouched.get(key, later))",
        "later = max(later, later)",
        "tests/workflows/test_resolve.py::test_task_that_operator_names_again_is_asked_for_longer",
    ),
    Mutant(
        1,
        "a create is sent over a task that LateTasks asks for",
        _CREATE,
        "await self._why_not(input, before) or await self._send(body, deadline)",
        "await self._send(body, deadline)",
        "tests/integration/test_follow_known_task.py::test_named_task_holds_back_create",
    ),
    Mutant(
        1,
        "a create is sent over a task that cannot be asked for",
        _CREATE,
        "        if input.doubt:\n",
        "        if not input:\n",
        "tests/integration/test_create.py::test_task_that_cannot_be_asked_for_holds_back_create",
    ),
    Mutant(
        1,
        "an attempt counts as absent over a task that LateTasks asks for",
        _RECOVER,
        "if await name_in_question(activity.client(), input.job_id, [input.attempt]) is not None:",
        "if not input.job_id:",
        "tests/integration/test_follow_known_task.py::test_named_task_is_not_absent",
    ),
    Mutant(
        1,
        "an operator is believed over a task that LateTasks asks for",
        _RECOVER,
        "await name_in_question(activity.client(), input.job_id, [attempt.number])) is not None:",
        "None) is not None:",
        "tests/integration/test_follow_known_task.py::test_named_task_is_not_absent",
    ),
    Mutant(
        1,
        "a name that LateTasks has not read is not in question",
        "seedance_temporal/late_tasks.py",
        'if names or shown.raw_description.HasField("pending_workflow_task"):',
        "if names:",
        "tests/integration/test_follow_known_task.py::test_name_that_no_worker_has_read_is_in_question",
    ),
    Mutant(
        1,
        "a 404 under another API key is an answer",
        _RECOVER,
        'if shown is None and attempt.claim.key not in {"", key}:',
        "if shown is None and not key:",
        "tests/integration/test_recover.py::test_404_under_other_key_is_no_answer",
    ),
    Mutant(
        2,
        "a create that a worker with longer settings sends counts as absent",
        _DECISIONS,
        "return timedelta(seconds=max(settings.search_seconds, of_sender))",
        "return timedelta(seconds=settings.search_seconds + of_sender * 0)",
        "tests/unit/test_facts.py::test_create_under_senders_longer_settings_is_not_absent",
    ),
    Mutant(
        1,
        "a listed task whose id cannot be used is none",
        _INBOX,
        'listing.task_id or "without an id"',
        'listing.task_id or "without an id"\n            if not is_task_id(listing.task_id):\n'
        "                del self.listed[listing.attempt]",
        "tests/workflows/test_resolve.py::test_not_created_is_refused_over_listed_odd_id",
    ),
    Mutant(
        1,
        "an attempt counts as absent though a task was listed, or cannot be asked for",
        "workflows/search.py",
        " and not self._inbox.why_it_may_exist(decision.attempt)",
        "",
        "tests/workflows/test_recover.py::test_named_task_is_never_absent",
    ),
    Mutant(
        1,
        "a later attempt that was refused or not sent hides a live task",
        _DECISIONS,
        "        if attempt.live:\n            return Decision(",
        "        if attempt.live and attempt is newest_first[0]:\n            return Decision(",
        "tests/unit/test_facts.py::test_facts_decide_next_step",
    ),
    # 2: an unknown outcome is never paid for twice
    Mutant(
        2,
        "a create that no proxy let through counts as sent",
        _ARK,
        'if not (self._asks_proxy and "send_request" in event):',
        "if event:",
        "tests/integration/test_proxies.py::test_refused_tunnel_sends_no_create",
    ),
    Mutant(
        2,
        "absent by the listings of another API key",
        _DECISIONS,
        "        and listing.key == attempt.claim.key\n",
        "",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "absent by the listing of a model of which it shows no task of ours",
        _DECISIONS,
        "        and not listing.is_blind\n",
        "",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "a listing of one model is never blind",
        "workflows/list_tasks.py",
        "        is_blind = bool(model) and not any(",
        "        is_blind = model is None and not any(",
        "tests/workflows/test_list_tasks.py::test_model_without_our_tasks_is_blind",
    ),
    Mutant(
        2,
        "a task of another model shows that a listing is not blind",
        "activities/task_list.py",
        "        is_other=asked is not None and model != asked,",
        "        is_other=False,",
        "tests/integration/test_task_list.py::test_task_of_another_model_proves_nothing",
    ),
    Mutant(
        3,
        "a file is adopted beside a task that can still get its video",
        "seedance_temporal/adopted_file.py",
        "        if live := [task for task in attempt.live if task != task_id]:",
        "        if live := [task for task in attempt.live if not task]:",
        "tests/integration/test_adopted_file.py::test_video_of_another_task_comes_first",
    ),
    Mutant(
        2,
        "absent though the claim names no API key",
        _DECISIONS,
        "    if attempt.claim is not None and not attempt.claim.key:\n",
        "    if attempt.claim is None:\n",
        "tests/unit/test_facts.py::test_doubts_bar_absence",
    ),
    Mutant(
        2,
        "that LIST shows identifiers to one API key counts for all",
        _LEDGER_STORE,
        "filter(None, [route, key, model])",
        "filter(None, [route, model])",
        "tests/integration/test_ledger.py::test_identifiers_listed_is_noted_per_route_and_key",
    ),
    Mutant(
        2,
        "pages that two API keys read count as one listing",
        "workflows/list_tasks.py",
        'min(keys) if len(keys) == 1 else ""',
        'min(keys) if keys else ""',
        "tests/workflows/test_list_tasks.py::test_pages_of_two_keys_name_no_key",
    ),
    Mutant(
        2,
        "a task that GET does not show yet is ruled out",
        _RECOVER,
        """        if shown is None:
            return IdentifyResult(answer="not_yet")""",
        """        if shown is None:
            return IdentifyResult(answer="other")""",
        "tests/integration/test_recover.py::test_task_is_ours_once_get_shows_it",
    ),
    Mutant(
        2,
        "a 500 counts as refused",
        _ARK,
        "case 400 | 404:",
        "case 400 | 404 | 500:",
        "tests/integration/test_ark_client.py::test_create_answer_is_classified",
    ),
    Mutant(
        2,
        "a lost answer counts as not sent",
        _ARK,
        'return CreateAnswer("unknown", "answer_lost"',
        'return CreateAnswer("not_sent", "answer_lost"',
        "tests/integration/test_ark_client.py::test_broken_exchange_is_unknown_after_sending",
    ),
    Mutant(
        2,
        "a gateway's page counts as not sent",
        _ARK,
        '"unknown", f"http_{status}"',
        '"not_sent", f"http_{status}"',
        "tests/integration/test_ark_client.py::test_create_answer_is_classified",
    ),
    Mutant(
        2,
        "a create that was cut off counts as not sent",
        _SENDING,
        'result = CreateResult(kind="unknown", message=f"{error.message}: {error.cause}")',
        'result = CreateResult(kind="not_sent", message=f"{error.message}: {error.cause}")',
        "tests/workflows/test_create.py::test_unknown_outcome_is_never_paid_again",
    ),
    Mutant(
        2,
        "a known outcome that the bucket did not take is forgotten",
        _SENDING,
        "if result.claim is not None and result.outcome is not None and not result.written:",
        "if result.claim is not None and result.outcome is not None and result.attention:",
        "tests/workflows/test_create.py::test_known_outcome_is_written_first",
    ),
    Mutant(
        2,
        "a task that comes after another outcome is dropped",
        _LEDGER_STORE,
        "if await self._write(name, outcome, seconds, kind=outcome.kind) or outcome.task_id is None:",
        "if await self._write(name, outcome, seconds, kind=outcome.kind) or outcome.task_id:",
        "tests/integration/test_ledger.py::test_task_after_other_outcome_is_late",
    ),
    Mutant(
        1,
        "a listing's word counts for an attempt whose task came to light later",
        _LEDGER_STORE,
        'if objects.keys() != {"claim", "outcome"} or objects["outcome"].kind != "not_sent":',
        'if "outcome" not in objects or objects["outcome"].kind != "not_sent":',
        "tests/integration/test_ledger_cost.py::test_late_task_of_attempt_without_task_is_followed",
    ),
    Mutant(
        1,
        "metadata that somebody changed is believed",
        "seedance_temporal/storage/bucket.py",
        "blob.metadata if blob.metageneration == 1 else None",
        "blob.metadata",
        "tests/integration/test_bucket.py::test_changed_metadata_is_not_believed",
    ),
    Mutant(
        1,
        "a model that has ended is created with",
        "activities/create.py",
        "        if problems := self._settings.rules.check_new(input.request):",
        "        if problems := self._settings.rules.check(input.request):",
        "tests/integration/test_create.py::test_ended_model_is_not_claimed",
    ),
    Mutant(
        1,
        "the listing of one model proves absence in all",
        "activities/task_list.py",
        "            await self._ledger.note_identifiers_listed(self._settings.ark_route, key, input.model)",
        "            await self._ledger.note_identifiers_listed(self._settings.ark_route, key)",
        "tests/integration/test_task_list.py::test_custom_key_shows_one_model",
    ),
    Mutant(
        1,
        "a final is made of what is no draft",
        "seedance_temporal/ledger/drafts.py",
        "    if task.draft is not True:",
        "    if task.draft is None:",
        "tests/integration/test_drafts.py::test_final_without_a_draft_is_refused",
    ),
    Mutant(
        1,
        "a limit in USD lets CNY pass",
        "seedance_temporal/limits.py",
        "    if names and estimated.cny is not None and can_cost is None:",
        "    if not names and can_cost is None:",
        "tests/integration/test_limits.py::test_cny_needs_a_rate_for_a_limit_in_usd",
    ),
    Mutant(
        1,
        "a budget that was set since the run began is not kept",
        _CREATE,
        "        if isinstance(reserved, Refusal):",
        "        if isinstance(reserved, Refusal) and reserved.until is None:",
        "tests/integration/test_create.py::test_budget_that_was_set_since_holds",
    ),
    Mutant(
        1,
        "what was billed counts beside its estimate",
        "seedance_temporal/ledger/spending_log.py",
        "        return self.actual.get(number, self.entries[number].micro)",
        "        return self.actual.get(number, 0) + self.entries[number].micro",
        "tests/integration/test_budgets.py::test_billed_cost_replaces_estimate",
    ),
    Mutant(
        1,
        "the budget of a label is ignored",
        "seedance_temporal/limits.py",
        "    labels = (request.labels or {}).items()",
        "    labels = list[tuple[str, str]]()",
        "tests/integration/test_budgets.py::test_label_has_budget_of_its_own",
    ),
    Mutant(
        1,
        "an entry is given back while a claim can use it",
        "seedance_temporal/ledger/past_days.py",
        "        if age < _NO_MORE_CLAIMS:",
        "        if age < timedelta(0):",
        "tests/integration/test_budgets.py::test_unused_entry_is_given_back_to_month",
    ),
    Mutant(
        1,
        "the day before is not closed for a month's budget",
        "seedance_temporal/ledger/spending.py",
        "            await log.close(self._clock())",
        "            await log.read_on()",
        "tests/integration/test_budgets.py::test_month_holds_where_a_clock_is_behind",
    ),
    Mutant(
        1,
        "other labels use an entry that counts for none of them",
        "seedance_temporal/ledger/spending_log.py",
        "        return self.job_id, self.resubmits, frozenset(self.payers)",
        "        return self.job_id, self.resubmits, frozenset()",
        "tests/integration/test_budgets.py::test_other_labels_need_another_entry",
    ),
    Mutant(
        2,
        "an outcome is written to the claim of another",
        _LEDGER,
        "if await self._ledger.claim(input.claim):",
        "if await self._ledger.claim(input.claim) or input.claim:",
        "tests/integration/test_ledger.py::test_outcome_is_not_written_to_foreign_claim",
    ),
    Mutant(
        2,
        "absent after one listing",
        _DECISIONS,
        "return bool(proofs) and max(proofs) - min(proofs) >= apart",
        "return bool(proofs)",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "absent by a listing that is not complete",
        _DECISIONS,
        "        and listing.complete\n",
        "",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "absent by a listing from before the end of the window",
        _DECISIONS,
        "and listing.began_at > over",
        "and listing.began_at > attempt.claimed_at",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "absent though LIST is not known to show identifiers",
        _DECISIONS,
        "    if not facts.identifiers_listed:\n",
        "    if facts.identifiers_listed is None:\n",
        "tests/unit/test_facts.py::test_doubts_bar_absence",
    ),
    Mutant(
        2,
        "absent though a listed task without an identifier could be the one",
        _DECISIONS,
        "if any(listing.task_id is not None or listing.unmarked for listing in listings):",
        "if any(listing.task_id is not None for listing in listings):",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "a listing is complete by the clock of a worker that is ahead",
        "workflows/list_tasks.py",
        "min(pages[0].asked_at, workflow.now()).timestamp()",
        "pages[0].asked_at.timestamp()",
        "tests/workflows/test_list_tasks.py::test_fast_worker_clock_makes_no_task_older",
    ),
    Mutant(
        2,
        "absent more than once in a job",
        _DECISIONS,
        'if any(other.outcome is not None and other.outcome.kind == "absent" for other in facts.attempts):',
        'if all(other.outcome is not None and other.outcome.kind == "absent" for other in facts.attempts):',
        "tests/unit/test_facts.py::test_doubts_bar_absence",
    ),
    Mutant(
        2,
        "not_created is accepted before the window is over",
        _RECOVER,
        '        if resolution.action == "not_created" and sent_at < over:\n',
        "        if False:\n",
        "tests/integration/test_recover.py::test_not_created_before_end_of_search_is_refused",
    ),
    Mutant(
        2,
        "a resolution counts from when it is handled",
        _RECOVER,
        "min(resolution.sent_at or now, now)",
        "now",
        "tests/integration/test_recover.py::test_resolution_counts_from_when_it_was_sent",
    ),
    Mutant(
        2,
        "a resolution counts for ever",
        _RECOVER,
        "if now - sent_at > _COUNTS_FOR",
        "if now < sent_at",
        "tests/integration/test_recover.py::test_resolution_counts_from_when_it_was_sent",
    ),
    Mutant(
        2,
        "not_created is accepted over a task that was just named",
        _INBOX,
        'if resolution.action == "not_created" and (doubt :=',
        'if resolution.action == "lost" and (doubt :=',
        "tests/workflows/test_resolve.py::test_not_created_is_refused_over_named_task",
    ),
    Mutant(
        2,
        "the difference of clocks is left out of the search",
        "seedance_temporal/settings.py",
        "return self.seedance_recovery_seconds + self.seedance_clock_skew_seconds",
        "return self.seedance_recovery_seconds",
        "tests/unit/test_facts.py::test_which_listings_prove_absence",
    ),
    Mutant(
        2,
        "an unknown attempt beside another one's task is silent",
        _DECISIONS,
        'has_task = decision.next in {"adopt", "stored"}',
        "has_task = False",
        "tests/unit/test_facts.py::test_attempt_without_outcome_is_never_silent",
    ),
    Mutant(
        2,
        "a continued run forgets what listings showed",
        "workflows/inbox.py",
        "        self.listed = dict(carried.listed)\n",
        "        self.listed: dict[int, str] = {}\n",
        "tests/workflows/test_continued.py::test_new_run_remembers_a_listed_task",
    ),
    Mutant(
        2,
        "not_created is accepted for an accepted create",
        _RECOVER,
        "        if attempt.accepted_without_id:\n",
        "        if attempt.accepted_without_id and attempt.tasks:\n",
        "tests/integration/test_recover.py::test_not_created_is_refused_for_accepted_create",
    ),
    # 3: a finished video is not lost
    Mutant(
        3,
        "the content of the bucket is not compared",
        _VERIFIED,
        "if stored is None or verified.equals(stored):",
        "if stored is None or verified:",
        "tests/integration/test_store.py::test_bucket_content_is_compared",
    ),
    Mutant(
        3,
        "any object under the name counts as the video",
        _VERIFIED,
        "return stored if stored is not None and any(one.equals(stored) for one in self._verified(file)) else None",
        "return stored",
        "tests/integration/test_task_files.py::test_foreign_object_is_never_video",
    ),
    Mutant(
        3,
        "any object under the name counts once something was verified",
        _VERIFIED,
        "any(one.equals(stored) for one in self._verified(file))",
        "self._verified(file)",
        "tests/integration/test_task_files.py::test_damaged_upload_is_refused_in_every_try",
    ),
    Mutant(
        3,
        "a picture that was verified counts as the video",
        _VERIFIED,
        "return [one for one in self.verified.values() if one.file == file]",
        "return list(self.verified.values())",
        "tests/integration/test_task_files.py::test_verified_picture_is_no_video",
    ),
    Mutant(
        3,
        "a verified note is believed without its checksum",
        _VERIFIED,
        "if sealed(value) != content:",
        "if not value:",
        "tests/integration/test_task_files.py::test_damaged_note_is_ignored",
    ),
    Mutant(
        3,
        "no verified note is written before the upload",
        _VERIFIED,
        "        await self.bucket.create(self.names.verified(self.task_id, content.crc32c), "
        "sealed(verified.model_dump()))\n",
        "",
        "tests/integration/test_store.py::test_task_and_checksums_precede_upload",
    ),
    Mutant(
        3,
        "a verified video waits for the provider",
        _STORE,
        "task = await self._stored_task() or await self._task_without_payload()",
        "task = await self._get_task_once()",
        "tests/integration/test_task_files.py::test_verified_video_needs_no_provider",
    ),
    Mutant(
        3,
        "an upload goes out where an object exists",
        _VERIFIED,
        "        stored = await self.bucket.stat(name)\n",
        "        stored = None\n",
        "tests/integration/test_task_files.py::test_large_object_is_not_overwritten",
    ),
    Mutant(
        3,
        "the video is not decoded",
        _STORE,
        'await probed("result", path, _PROBE_SECONDS)',
        "await asyncio.to_thread(path.stat)",
        "tests/integration/test_store.py::test_incomplete_video_is_not_uploaded",
    ),
    Mutant(
        3,
        "an upload replaces an existing object",
        "seedance_temporal/storage/bucket.py",
        "content_type=content_type,\n                if_generation_match=0,",
        "content_type=content_type,",
        "tests/integration/test_bucket.py::test_an_upload_overwrites_nothing",
    ),
    Mutant(
        3,
        "DELETE is sent for a gateway's word",
        "activities/poll.py",
        'if payload.get("status") != QUEUED:',
        "if not payload:",
        "tests/integration/test_poll.py::test_queued_task_by_gateways_word_is_never_deleted",
    ),
    Mutant(
        3,
        "a status goes backwards",
        "workflows/progress.py",
        'if self.phase == "queued" and rank(status) > rank(QUEUED):\n            self.enter("running")',
        'if status in ("queued", "running"):\n            self.enter(status)  # type: ignore',
        "tests/workflows/test_follow.py::test_status_never_goes_back",
    ),
    Mutant(
        3,
        "a run ends over a task that was named while the video was copied",
        _WORKFLOW,
        """        while await self._inbox.await_named_tasks():
            self._progress.show_second_task((await self.read_ledger()).second_task)
""",
        "",
        "tests/workflows/test_inbox.py::test_task_named_during_copy_is_identified",
    ),
    Mutant(
        3,
        "a run fails over a task that was named",
        _WORKFLOW,
        """                if not await self._inbox.await_named_tasks():
                    raise""",
        """                if True:
                    raise""",
        "tests/workflows/test_inbox.py::test_accepted_adoption_of_lost_attempt_is_followed",
    ),
    Mutant(
        3,
        "a task that is named after the end is not followed",
        "workflows/late_tasks.py",
        "            await self._follow()\n",
        "            pass\n",
        "tests/faults/test_workflow_model.py::test_situation_keeps_promises",
    ),
    Mutant(
        3,
        "a task that is named again after the end is asked for no longer",
        "workflows/late_tasks.py",
        "self._named_again.add(named.task_id)",
        "pass",
        "tests/workflows/test_late_tasks.py::test_task_that_is_named_again_is_asked_for_anew",
    ),
    Mutant(
        3,
        "a task that a callback named is not identified",
        _INBOX,
        "        await self._identify(named)\n",
        "        return",
        "tests/faults/test_workflow_model.py::test_situation_keeps_promises",
    ),
    Mutant(
        3,
        "an odd time of the provider's makes a new video old",
        "activities/poll.py",
        "if at is not None and earliest <= at <= now + skew else None",
        "if at is not None else None",
        "tests/integration/test_poll.py::test_odd_success_time_leaves_whole_day",
    ),
    Mutant(
        3,
        "a poll waits for task times as long as the bucket likes",
        _TASK_TIMES,
        "async with asyncio.timeout(_SECONDS), known.lock:",
        "async with known.lock:",
        "tests/integration/test_task_times.py::test_hanging_bucket_holds_up_nobody_for_long",
    ),
    Mutant(
        3,
        "a verified video without a record is given up with its URL",
        "activities/ledger.py",
        "if task_id is not None and await self._ledger.has_verified_video(input.job_id, task_id):",
        "if False:",
        "tests/faults/test_outages.py::test_verified_video_outlives_its_url",
    ),
    Mutant(
        3,
        "an adopted file may be another video",
        "seedance_temporal/adopted_file.py",
        "    if verified and not any((one.size, one.crc32c) == (content.size, content.crc32c) for one in verified):",
        "    if verified and not content.size:",
        "tests/integration/test_adopted_file.py::test_other_content_is_never_overwritten",
    ),
    Mutant(
        3,
        "a copy whose URL ends soon waits behind all others",
        "workflows/policies.py",
        "BEFORE_URL_ENDS = Priority(priority_key=1)",
        "BEFORE_URL_ENDS = Priority.default",
        "tests/workflows/test_priorities.py::test_copy_whose_url_ends_soon_goes_first",
    ),
    Mutant(
        3,
        "a user's backlog delays all other users",
        "seedance_temporal/contract.py",
        'fairness_key=f"{user}-first" if request.priority else user',
        "fairness_key=None",
        "tests/integration/test_rates.py::test_users_take_turns",
    ),
    Mutant(
        3,
        "copies have no share of the account's GETs",
        "workers/build.py",
        "            max_task_queue_activities_per_second=rates.transfer,\n",
        "",
        "tests/integration/test_rates.py::test_fleet_keeps_rates",
    ),
    # 4: the record outlives the run
    Mutant(
        4,
        "the record is not asked first",
        _DECISIONS,
        "    if facts.record is not None:\n        return Decision(",
        "    if facts.record is not None and not facts.attempts:\n        return Decision(",
        "tests/unit/test_facts.py::test_record_beats_everything",
    ),
    Mutant(
        4,
        "a changed object counts as the written one",
        "seedance_temporal/ledger/checksummed_json.py",
        "    if rewritten != content:",
        "    if len(rewritten) != len(content):",
        "tests/unit/test_checksummed_json.py::test_every_flipped_byte_shows",
    ),
    Mutant(
        4,
        "signatures of URLs stay in task.json",
        "seedance_temporal/ledger/record.py",
        "as_json(_without_signatures(payload, secrets))",
        "as_json(payload)",
        "tests/integration/test_store.py::test_payload_is_stored_without_signatures",
    ),
    # 5: a callback gives no access
    Mutant(
        5,
        "the relay takes any token",
        "seedance_temporal/relay.py",
        "return any(matches)",
        "return bool(matches)",
        "tests/integration/test_relay.py::test_wrong_url_is_404_without_reason",
    ),
    Mutant(
        5,
        "the task of a callback is believed",
        _RECOVER,
        "        if shown != attempt.claim.safety_identifier:\n            return IdentifyResult",
        "        if shown is None:\n            return IdentifyResult",
        "tests/integration/test_recover.py::test_task_with_other_nonce_is_not_ours",
    ),
    Mutant(
        5,
        "the nonce of a task is not compared",
        _RECOVER,
        "if shown != claim.safety_identifier:",
        "if not shown:",
        "tests/integration/test_recover.py::test_operator_cannot_adopt_foreign_task",
    ),
    Mutant(
        5,
        "a task that was named in an outage is forgotten at continue-as-new",
        "workflows/inbox.py",
        "self._unanswered[key] = named.model_copy(update=found | source)",
        "pass",
        "tests/workflows/test_outage.py::test_task_named_in_outage_is_asked_for_by_new_run",
    ),
    Mutant(
        5,
        "a run ends though a last answer named its task",
        "workflows/generate_video.py",
        "if not self._inbox.ledger_changed:",
        "if True:",
        "tests/workflows/test_outage.py::test_last_answer_after_the_end_is_followed",
    ),
    Mutant(
        5,
        "a task that is named in the last step of a run is forgotten",
        "workflows/generate_video.py",
        "while unanswered := self._inbox.take_unanswered():",
        "if unanswered := self._inbox.take_unanswered():",
        "tests/workflows/test_outage.py::test_task_named_in_last_step_is_not_forgotten",
    ),
    Mutant(
        5,
        "made-up names withdraw each create",
        _SENDING,
        "listens = self._withdrawn < policies.MOST_WITHDRAWALS",
        "listens = True",
        "tests/workflows/test_inbox.py::test_made_up_names_withdraw_few_creates",
    ),
    Mutant(
        5,
        "a question that came early is the last one",
        _INBOX,
        "                pause = later - workflow.now()\n",
        "                pause = timedelta(0)\n",
        "tests/workflows/test_inbox.py::test_early_question_is_not_the_last",
    ),
    Mutant(
        5,
        "an outage uses up the questions that follow it",
        "workflows/waits.py",
        'next(self._not_yet if answer == "not_yet" else self._away, None)',
        "next(self._not_yet, None)",
        "tests/workflows/test_late_tasks.py::test_lag_after_outage_is_outlasted",
    ),
    Mutant(
        5,
        "a run that is about to end is not told of its task",
        "activities/recover.py",
        "            start_signal=contract.SIGNAL_TASK_CHANGED,\n",
        "",
        "tests/integration/test_follow_known_task.py::test_live_task_is_followed_once",
    ),
    Mutant(
        5,
        'a new run gives up a task at the first "not yet"',
        _INBOX,
        "not_yet=not_yet, again=again)",
        "not_yet=9 * again, again=again)",
        "tests/workflows/test_continued.py::test_new_run_goes_on_asking_where_get_lags",
    ),
    # 6: nothing fails in silence
    Mutant(
        6,
        "a new run forgets since when a task cannot be asked for",
        _INBOX,
        "for named in carried.named if named.unasked_since",
        "for named in ()",
        "tests/workflows/test_patience.py::test_new_run_continues_the_hour",
    ),
    Mutant(
        6,
        "each new run begins the hour of patience anew",
        "workflows/polls.py",
        "self.unknown_since = carried.status_unknown_since",
        "self.unknown_since = carried.started_at and None",
        "tests/workflows/test_patience.py::test_new_run_continues_the_hour",
    ),
    Mutant(
        6,
        "an operator's retries keep a failing step silent",
        "workflows/steps.py",
        "left = began + policies.PATIENCE - workflow.now()",
        "left = policies.PATIENCE",
        "tests/workflows/test_outage.py::test_retries_keep_no_step_silent",
    ),
    Mutant(
        6,
        "a cancel that is never served raises no Attention",
        "workflows/cancel.py",
        "self.trouble = messages.advice_on_cancel(since, reason)",
        "pass",
        "tests/workflows/test_patience.py::test_hour_without_cancel_raises_attention",
    ),
    Mutant(
        6,
        "a step fails for ever without an Attention",
        "workflows/steps.py",
        "if (reason := messages.last_failure(error)) is not None:",
        "if (reason := messages.last_failure(error)) is not None and reason is error:",
        "tests/workflows/test_patience.py::test_failing_step_raises_attention",
    ),
    Mutant(
        6,
        "a conflicting object raises no Attention",
        "workflows/messages.py",
        'reason.type == "ObjectConflict"',
        'reason.type == "Conflict"',
        "tests/workflows/test_patience.py::test_conflict_is_reported_at_once_and_retried",
    ),
    Mutant(
        6,
        "a check of references that takes hours is silent",
        "workflows/steps.py",
        'self._progress.need("references", messages.advice_on_references(since, messages.last_failure(error)))',
        "pass",
        "tests/workflows/test_references.py::test_slow_check_calls_operator",
    ),
    # 7: foreign bytes are data
    Mutant(
        7,
        "a provider's message of several lines offers commands",
        "workflows/progress.py",
        "map(one_line, (advice, *ways))",
        "(advice, *ways)",
        "tests/workflows/test_ui_details.py::test_foreign_text_looks_like_no_way",
    ),
    Mutant(
        7,
        "an id that holds a secret is logged",
        "seedance_temporal/provider/answers.py",
        " and redacted(task_id, secrets) == task_id",
        "",
        "tests/integration/test_odd_answers.py::test_secret_in_listed_id_is_not_written",
    ),
    Mutant(
        7,
        "one user's slow hosts hold up all users",
        "seedance_temporal/media/references.py",
        "_DOWNLOADS_OF_A_USER = 2",
        "_DOWNLOADS_OF_A_USER = 8",
        "tests/integration/test_references.py::test_downloads_are_parallel_and_bounded",
    ),
    Mutant(
        7,
        "idle connections keep callbacks out of the relay",
        "seedance_temporal/relay_connections.py",
        "        if len(self.connections) > self.most:",
        "        if not self.connections:",
        "tests/integration/test_relay.py::test_connection_that_waits_longest_makes_room",
    ),
    Mutant(
        7,
        "an answer is read without a bound",
        "seedance_temporal/provider/answers.py",
        "        if len(content) > most_bytes or is_padded(response, len(content)):",
        "        if len(content) > 1000 * most_bytes or is_padded(response, len(content)):",
        "tests/integration/test_odd_answers.py::test_long_answer_is_not_read",
    ),
    Mutant(
        7,
        "a leaked URL makes a history as long as somebody likes",
        "seedance_temporal/relay.py",
        "        return left >= 1\n",
        "        return left >= 0\n",
        "tests/integration/test_relay.py::test_thousand_equal_callbacks_do_no_harm",
    ),
    Mutant(
        7,
        "a flood of callbacks ends no wait",
        "workflows/generate_video.py",
        "                    or wait_is_flooded()\n",
        "                    or (wait_is_flooded() and not seconds)\n",
        "tests/workflows/test_continued.py::test_flood_ends_a_wait",
    ),
    Mutant(
        7,
        "a user's reference may be any object that the worker can read",
        "seedance_temporal/provider/checks.py",
        "    if rules.reference_buckets and not place.startswith(rules.reference_buckets):",
        '    if not place.startswith(""):',
        "tests/unit/test_rules.py::test_reference_comes_from_allowed_bucket",
    ),
    Mutant(
        7,
        "a request's file may be anywhere on the machine",
        "seedance_temporal/cli/local_files.py",
        "anywhere=self._allow_any_path)",
        "anywhere=True)",
        "tests/integration/test_local_files.py::test_path_outside_is_refused_unread",
    ),
    Mutant(
        7,
        "the inspection of a file may take for ever",
        "seedance_temporal/media/probe.py",
        "        async with asyncio.timeout(seconds):",
        "        async with asyncio.timeout(None):",
        "tests/integration/test_references.py::test_endless_check_is_stopped",
    ),
    Mutant(
        7,
        "a user's text becomes a link in Temporal's UI",
        "seedance_temporal/temporal_ui.py",
        '    return _MARKUP.sub(r"\\\\\\1", one_line(text))',
        "    return one_line(text)",
        "tests/workflows/test_ui_details.py::test_foreign_text_is_escaped",
    ),
    Mutant(
        7,
        "a user's text becomes a formula in a spreadsheet",
        "seedance_temporal/cli/report.py",
        '    return f"\'{text}" if begins in {*"=+-@"} or text[:1].isspace() else text',
        "    return text if begins else text",
        "tests/integration/test_report.py::test_csv_holds_no_formula",
    ),
    Mutant(
        7,
        "a misspelt variable passes in silence",
        "seedance_temporal/variable_names.py",
        "    return found\n",
        "    return found[:0]\n",
        "tests/unit/test_settings.py::test_misspelt_variable_is_refused",
    ),
    Mutant(
        7,
        "a damaged object counts as missing",
        "seedance_temporal/ledger/store.py",
        '            raise LedgerDamaged(self._bucket.name, name, "is empty, cut, or another object") from None',
        "            return None",
        "tests/integration/test_ledger_cost.py::test_damaged_object_is_named",
    ),
    Mutant(
        7,
        "the log quotes what a library quotes",
        "workers/log_format.py",
        '        return redacted(printable(super().format(record), keep="\\n"), self._secrets)',
        '        return printable(super().format(record), keep="\\n")',
        "tests/fuzz/test_leaks.py::test_quoted_secrets_are_kept_nowhere",
    ),
    Mutant(
        7,
        "100 Continue for ever is read for ever",
        "seedance_temporal/paced.py",
        "        if self.most is not None and self.received > self.most:",
        "        if self.most is not None and self.received > 1000 * self.most:",
        "tests/integration/test_public_http.py::test_work_of_an_answer_is_bounded",
    ),
    Mutant(
        7,
        "a silent name server holds up all names",
        "seedance_temporal/media/public_http.py",
        "    return await resolve(host, port, _FOREIGN_NAMES)",
        "    return await resolve(host, port)",
        "tests/integration/test_public_http.py::test_silent_name_server_holds_up_nobody_else",
    ),
    Mutant(
        7,
        "a prompt of combining marks is hashed for seconds",
        "seedance_temporal/provider/checks.py",
        "    if _marks_in_a_row(prompt) > _MOST_MARKS:",
        "    if _marks_in_a_row(prompt) > len(prompt):",
        "tests/unit/test_rules.py::test_invalid_request",
    ),
    Mutant(
        7,
        "an absurd name in the bucket counts as a task time",
        _TASK_TIMES,
        ' if int(match["seconds"]) <= _LONGEST_TASK]',
        "]",
        "tests/integration/test_task_times.py::test_foreign_objects_take_no_place",
    ),
    Mutant(
        1,
        "the gate does not hold its queue",
        "workflows/create_gate.py",
        "            share = 0.0\n",
        "            share = None\n",
        "tests/workflows/test_create_gate.py::test_refusal_holds_until_probe_succeeds",
    ),
    Mutant(
        1,
        "a probe that succeeds opens a paused route",
        "workflows/create_gate.py",
        "if self._pause is not None or self._closing is not None:\n            share",
        "if self._closing is not None:\n            share",
        "tests/workflows/test_create_gate.py::test_pause_outlasts_success_of_a_probe",
    ),
    Mutant(
        1,
        "the gate opens at once, without a ramp",
        "workflows/create_gate.py",
        "self._ramp, self._opened_at = None, 0, workflow.now()",
        "self._ramp, self._opened_at = None, None, workflow.now()",
        "tests/workflows/test_create_gate.py::test_refusal_holds_until_probe_succeeds",
    ),
    Mutant(
        1,
        "a create is sent without its place",
        _CREATE,
        "placed = not needs_place(input.request, self._settings) or await self._places.has(",
        "placed = True or await self._places.has(",
        "tests/integration/test_places.py::test_create_with_lost_place_sends_nothing",
    ),
    Mutant(
        1,
        "one place more than the limit is granted",
        "workflows/places.py",
        "len(self._leases) < self._limit",
        "len(self._leases) <= self._limit",
        "tests/workflows/test_places.py::test_no_more_places_than_limit",
    ),
    Mutant(
        1,
        "a check frees the place of a task that nobody follows",
        "activities/places.py",
        "return any([await self._may_exist(attempt, facts) for attempt in attempts])",
        "return False",
        "tests/integration/test_places.py::test_place_is_needed_for_task",
    ),
    Mutant(
        1,
        "a task that has ended keeps its place while its video is copied",
        _WORKFLOW,
        "            return await self.read_ledger()\n        await self._creating.place.free()\n",
        "            return await self.read_ledger()\n",
        "tests/workflows/test_places.py::test_job_waits_for_place_then_frees_it",
    ),
    Mutant(
        1,
        "a user gets all places before another user gets one",
        "seedance_temporal/waiting_line.py",
        "return request.rank, places, ",
        "return request.rank, 0, ",
        "tests/unit/test_waiting_line.py::test_one_job_of_another_user_waits_for_one",
    ),
    Mutant(
        1,
        "a run that recovery starts may create",
        "seedance_temporal/client.py",
        "argument = GenerateVideoInput(request=request, may_create=False)",
        "argument = GenerateVideoInput(request=request)",
        "tests/integration/test_recover_command.py::test_paid_job_gets_run_that_cannot_create",
    ),
    Mutant(
        1,
        "a job that was cancelled before its create is submitted again",
        "seedance_temporal/cli/recovery_table.py",
        'self.known.error is not None and self.known.error.failure_class == "unsettled"',
        "self.known.error is not None",
        "tests/integration/test_recover_command.py::test_job_cancelled_before_create_is_no_open_one",
    ),
    Mutant(
        1,
        "a request of a newer release is submitted without its new fields",
        "seedance_temporal/cli/recover.py",
        "if job_id_of(row.job.request) != row.job.job_id:",
        "if not row.job.job_id:",
        "tests/integration/test_recover_command.py::test_newer_request_is_not_resubmitted",
    ),
    Mutant(
        3,
        "a task that turned up after it was given up is not recovered",
        "seedance_temporal/recovery.py",
        'end_kinds(kinds) == ["end"] and _is_end_of_task(kinds["end"], since=outcome.created_at)',
        'end_kinds(kinds) == ["end"]',
        "tests/unit/test_recovery.py::test_given_up_task_that_turns_up_is_open",
    ),
    Mutant(
        8,
        "a failure's message stays in the clear",
        "seedance_temporal/data_converter.py",
        "        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,\n",
        "",
        "tests/unit/test_encryption.py::test_failure_is_encrypted_and_read",
    ),
    Mutant(
        8,
        "a payload is read as another key's",
        "seedance_temporal/payload_encryption.py",
        'return f"{ENCODING};{key_id}".encode()',
        "return ENCODING.encode()",
        "tests/unit/test_encryption.py::test_ciphertext_is_bound_to_key_id",
    ),
    Mutant(
        8,
        "a job that was open before encryption cannot be read",
        "seedance_temporal/payload_encryption.py",
        "            return payload\n",
        '            raise EncryptionKeyMissing("none")\n',
        "tests/unit/test_encryption.py::test_unencrypted_payload_is_decoded_as_it_is",
    ),
    Mutant(
        8,
        "the list shows the user's own id beside encrypted payloads",
        "seedance_temporal/settings.py",
        "if self.encryption_keys or self.seedance_hash_users else user_id",
        "if self.seedance_hash_users else user_id",
        "tests/unit/test_encryption.py::test_users_are_named_by_keyed_hash",
    ),
    Mutant(
        8,
        "the worker shows a user as older releases did",
        "workflows/progress.py",
        "            self._user = context.user or shown\n",
        "            self._user = shown\n",
        "tests/workflows/test_ui_details.py::test_pseudonym_of_worker_is_listed",
    ),
    Mutant(
        8,
        "a client that does not encrypt is taken beside keys",
        "seedance_temporal/client.py",
        "client.data_converter.payload_codec is None:",
        "not client.data_converter:",
        "tests/integration/test_client.py::test_client_that_does_not_encrypt_is_refused",
    ),
    Mutant(
        8,
        "the codec endpoint takes a part of a token",
        "seedance_temporal/codec_endpoint.py",
        "if hmac.compare_digest(given, known.encode())]",
        "if known.encode().startswith(given)]",
        "tests/integration/test_codec_endpoint.py::test_nobody_reads_without_token",
    ),
    Mutant(
        8,
        "any page may ask the codec endpoint",
        "seedance_temporal/codec_endpoint.py",
        'if request.headers.get("origin") not in {None, self._origin}:',
        "if not self._tokens:",
        "tests/integration/test_codec_endpoint.py::test_other_page_may_not_ask",
    ),
    Mutant(
        8,
        "logs quote what failures quote",
        "workers/private_logs.py",
        "        record.exc_info = None\n",
        "        return True\n",
        "tests/unit/test_private_logs.py::test_exception_keeps_type_and_lines",
    ),
)


@dataclass(frozen=True)
class Fate:
    """The result for a mutant. ``red``: the test that failed; None where it survived, or the tests did not run."""

    mutant: Mutant
    red: str | None
    said: str
    seconds: float


def _copy(folder: Path) -> Path:
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=_LEFT_OUT)
    # Tests find the servers' programs beside their interpreter.
    (tree / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return tree


def _pytest(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout", "120"]
    command += ["-m", "faults or not faults", *tests]
    # Compiled code would hide an edit of the same length in the same second; a failure need not be small.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "LEDGER_MODEL_SHRINK": "0"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"not done after {_SECONDS} s"
    return done.returncode, done.stdout + done.stderr


def _try(mutant: Mutant, trees: queue.SimpleQueue[Path]) -> Fate:
    tree = trees.get()
    since = time.monotonic()
    try:
        mutant.apply(tree)
        code, said = _pytest(tree, [mutant.test])
        # 1: tests ran, and one failed. Anything else, such as a module that cannot be imported, proves nothing.
        failed = re.search(r"^FAILED (\S+)", said, re.MULTILINE) if code == 1 else None
        return Fate(mutant, failed[1] if failed else None, said, time.monotonic() - since)
    finally:
        shutil.copy2(ROOT / mutant.file, tree / mutant.file)
        trees.put(tree)


def markdown(fates: Iterable[Fate]) -> str:
    """Return the table of ``docs/internals/mutants.md``."""
    lines = ["| promise | the edit | the test that turns red |", "| -- | -- | -- |"]
    for fate in fates:
        name = fate.red.split("::")[-1].partition("[")[0] if fate.red else "**none**"
        lines.append(f"| {fate.mutant.promise} | {fate.mutant.what} | `{name}` |")
    return "\n".join(lines) + "\n"


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def run_mutants(mutants: tuple[Mutant, ...]) -> list[Fate]:
    """Try all of them, two at a time.

    Raises:
        RuntimeError: The tests are not green without an edit.
    """
    with tempfile.TemporaryDirectory(prefix="seedance-mutants-") as name:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        copies = [_copy(Path(name) / str(number)) for number in range(AT_ONCE)]
        for mutant in mutants:
            text = (copies[0] / mutant.file).read_text(encoding="utf-8")
            if text.count(mutant.old) != 1:
                raise LookupError(f"{mutant.what}: {mutant.file} holds {mutant.old!r} {text.count(mutant.old)} times")
        tests = sorted({mutant.test for mutant in mutants})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            halves = [half for number in range(AT_ONCE) if (half := tests[number::AT_ONCE])]
            for code, said in pool.map(_pytest, copies, halves):
                if code != 0:
                    raise RuntimeError(f"the tests are not green without any edit:\n{said[-3000:]}")
            _say(f"mutants: {len(tests)} tests or files are green without any edit")
            for copy in copies:
                trees.put(copy)
            fates = []
            for fate in pool.map(lambda mutant: _try(mutant, trees), mutants):
                _say(f"{'red     ' if fate.red else 'SURVIVED'} {fate.seconds:4.0f} s  {fate.mutant.what}")
                fates.append(fate)
    return fates


def main() -> int:
    """Run the command line of ``make mutants``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, default=None, help="write the table here, too")
    parser.add_argument("--only", default="", help="mutants whose description this expression finds")
    given = parser.parse_args()
    fates = run_mutants(tuple(mutant for mutant in MUTANTS if re.search(given.only, mutant.what)))
    _say("\n" + markdown(fates))
    survivors = [fate for fate in fates if fate.red is None]
    for fate in survivors:
        _say(f"SURVIVED: {fate.mutant.what} ({fate.mutant.test})\n{fate.said[-1500:]}")
    if given.markdown is not None:
        given.markdown.write_text(markdown(fates), encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
