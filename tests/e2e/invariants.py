"""Invariants after every test, by the provider's own ledger, the bucket and the histories."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from temporalio.client import Client, WorkflowHistory

from dev.ark.ledger import CreateEntry
from dev.stack import API_KEYS, CALLBACK_SECRET, Stack
from seedance_temporal.contract import SEEDANCE_ATTENTION, WORKFLOW
from seedance_temporal.identity import ObjectNames, callback_token
from seedance_temporal.storage.bucket import StoredObject
from tests.replay.replaying import histories_of, replay_histories

# Jobs that a test left behind may still be under way; one that is older, and has no Attention, is stuck.
_PATIENCE_SECONDS = 90.0
# Of result URLs, and of private references.
_SIGNATURES = ("X-Tos-Signature", "X-Tos-Expires", "X-Goog-Signature")
_FACTS = (".outcome.json", ".end.json", "record.json")
_CALLBACK_TOKEN = re.compile(rb"[0-9a-f]{64}")
_AT_ONCE = 8


@dataclass(frozen=True)
class Traces:
    """The records of all sides.

    Attributes:
        creates: The provider's own ledger.
        objects: The bucket's, by name.
        contents: Theirs, by name.
        histories: Of all jobs and listers, of all namespaces.
        attention: The jobs that need an operator.
    """

    creates: list[CreateEntry]
    objects: dict[str, StoredObject]
    contents: dict[str, bytes]
    histories: list[WorkflowHistory]
    attention: set[str]

    @classmethod
    async def of(cls, stack: Stack, clients: Sequence[Client]) -> Traces:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def content(name: str) -> bytes:
            async with at_once:
                return await stack.bucket.read(name) or b""

        objects = {stored.name: stored for stored in await stack.bucket.list("")}
        creates = await stack.ark.ledger()
        contents = await asyncio.gather(*map(content, objects))
        attention = set()
        histories = []
        for client in clients:
            histories += await histories_of(client)
            # Not asked by the attribute: a namespace that no worker has served does not know it.
            async for run in client.list_workflows(f"WorkflowType = '{WORKFLOW}'"):
                if run.typed_search_attributes.get(SEEDANCE_ATTENTION) is not None:
                    attention.add(run.id)
        return cls(creates, objects, dict(zip(objects, contents, strict=True)), histories, attention)

    def documents(self, *ends: str) -> Iterable[tuple[str, dict[str, Any]]]:
        """Return the JSON objects whose names end so."""
        for name, content in self.contents.items():
            if name.endswith(ends):
                yield name, json.loads(content)


async def check_invariants(stack: Stack, clients: Sequence[Client] = ()) -> None:
    """Check all invariants.

    Args:
        stack: Whose provider, bucket, logs and default namespace are read.
        clients: Of further namespaces that worked on the same bucket.

    Raises:
        AssertionError: One does not hold.
    """
    namespaces = [stack.client, *clients]
    await no_job_is_stuck(namespaces)
    traces = await Traces.of(stack, namespaces)
    each_claim_has_one_task_at_most(traces)
    absent_is_never_wrong(traces)
    every_paid_video_is_named(traces)
    await final_objects_are_right(stack, traces)
    no_secret_is_anywhere(stack, traces)
    await replay_histories(traces.histories)
    assert await stack.ark.leaks() == [], "an API key was sent to a result host"


async def no_job_is_stuck(clients: Sequence[Client]) -> None:
    """Assert that every job has ended, or is young, or has an Attention."""
    young = datetime.now(UTC) - timedelta(seconds=_PATIENCE_SECONDS)
    running = f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus = 'Running'"
    for client in clients:
        stuck = []
        async for run in client.list_workflows(running):
            description = await client.get_workflow_handle(run.id, run_id=run.run_id).describe()
            attention = description.typed_search_attributes.get(SEEDANCE_ATTENTION)
            if attention is None and description.start_time < young:
                stuck.append(run.id)
        assert not stuck, f"stuck without an Attention: {stuck}"


def absent_is_never_wrong(traces: Traces) -> None:
    """Assert that no attempt counts as absent whose task the provider has."""
    committed = {entry.body["safety_identifier"]: entry.task_id for entry in traces.creates if entry.committed}
    task_of = {identifier[-32:]: task_id for identifier, task_id in committed.items()}
    for name, outcome in traces.documents(".outcome.json"):
        claim = traces.contents.get(name.replace(".outcome.json", ".claim.json"))
        assert claim is not None, f"{name} has no claim"
        task_id = task_of.get(json.loads(claim)["nonce"])
        if outcome["kind"] in {"absent", "not_sent", "refused"}:
            assert task_id is None, f"{name} says {outcome['kind']}, and there is task {task_id}"
        if outcome["kind"] == "created":
            assert outcome["task_id"] == task_id, f"{name} names {outcome['task_id']}, and there is {task_id}"


def every_paid_video_is_named(traces: Traces) -> None:
    """Assert that each billed task is named by a record or by a fact in the ledger, or its job needs an operator."""
    lates = [name.rpartition(".late-") for name in traces.objects]
    named = {unquote(task.removesuffix(".json")) for _, late, task in lates if late}
    for _, fact in traces.documents(*_FACTS):
        named.add(fact.get("task_id") or (fact.get("error") or {}).get("task_id") or "")
    job_of = {claim["nonce"]: claim["job_id"] for _, claim in traces.documents(".claim.json")}
    for entry in traces.creates:
        if entry.billed_tokens is None or entry.task_id in named:
            continue
        job_id = job_of.get(str(entry.body["safety_identifier"])[-32:])
        assert job_id is not None, f"task {entry.task_id} was paid, and no claim is its own"
        assert job_id in traces.attention, f"task {entry.task_id} of {job_id} was paid, and is named nowhere"


async def final_objects_are_right(stack: Stack, traces: Traces) -> None:
    """Assert that a job has at most one record and one video, byte for byte the provider's."""
    videos: dict[str, list[str]] = defaultdict(list)
    paid = {entry.task_id for entry in traces.creates}
    for name, stored in traces.objects.items():
        root, _, file = name.rpartition("/")
        job, _, task_id = root.rpartition("/")
        if file != "output.mp4" or unquote(task_id) not in paid:
            continue
        videos[job].append(task_id)
        made = await stack.ark.video_bytes(unquote(task_id))
        assert traces.contents[name] == made, f"{name} is not the provider's video"
        verified = ObjectNames(*job.split("/")).verified(unquote(task_id), stored.crc32c)
        assert verified in traces.objects, f"{name} was uploaded, and {verified} is not there"
        record = traces.contents.get(f"{job}/record.json")
        if record is not None:
            objects = json.loads(record)["objects"]
            video = objects["video"]
            assert (video["name"], video["crc32c"]) == (name, stored.crc32c), f"the record of {name}"
            assert verified in {one["name"] for one in objects["verified"]}, f"the record of {name}"
    for job, tasks in videos.items():
        assert len(tasks) == 1, f"{job} has {len(tasks)} videos"


def each_claim_has_one_task_at_most(traces: Traces) -> None:
    """Assert at most one committed create per claim; per job, one and another for each resubmit grant."""
    committed = [str(entry.body["safety_identifier"]) for entry in traces.creates if entry.committed]
    of_claim = Counter(committed)
    assert max(of_claim.values(), default=0) <= 1, f"a claim was sent more than once: {of_claim}"

    job_of = {claim["nonce"]: claim["job_id"] for _, claim in traces.documents(".claim.json")}
    paid = Counter(job_of.get(identifier[-32:]) for identifier in committed)
    grants = Counter("seedance-" + name.split("/")[1] for name in traces.objects if name.endswith(".again.json"))
    for job_id, times in paid.items():
        if job_id is not None:
            assert times <= 1 + grants[job_id], f"{job_id} was created {times} times"


def no_secret_is_anywhere(stack: Stack, traces: Traces) -> None:
    """Assert that histories, logs and objects have no key, callback secret, callback token or URL signature."""
    secrets = [value.encode() for value in (*API_KEYS.values(), CALLBACK_SECRET, *_SIGNATURES)]
    jobs = {history.workflow_id for history in traces.histories}
    tokens = {callback_token(CALLBACK_SECRET, job_id, attempt).encode() for job_id in jobs for attempt in (1, 2, 3)}

    def assert_clean(content: bytes, where: str) -> None:
        found = sum(secret in content for secret in secrets)
        found += len(tokens.intersection(_CALLBACK_TOKEN.findall(content)))
        assert not found, f"{found} secrets in {where}"

    for history in traces.histories:
        for event in history.events:
            assert_clean(event.SerializeToString(), f"event {event.event_id} of {history.workflow_id}")
    for name, content in traces.contents.items():
        assert_clean(name.encode() + content, name)
    for name, child in stack.children.items():
        if name != "ark":
            assert_clean(child.log.read_bytes(), f"the log of {name}")
