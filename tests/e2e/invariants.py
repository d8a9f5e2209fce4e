"""What holds after any test, whatever went wrong in it: by the provider's own ledger, the bucket and the histories."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from temporalio.client import Client

from dev.stack import API_KEYS, CALLBACK_SECRET, Stack
from seedance_temporal.identity import callback_token
from seedance_temporal.job import SEEDANCE_ATTENTION, WORKFLOW
from tests.replay.replaying import replay_all

# Jobs that a test left behind may still be under way; one that waits longer than this, and for nobody, is stuck.
_PATIENCE_SECONDS = 90.0
_FACTS = (".outcome.json", ".end.json", "record.json")


async def check_invariants(stack: Stack, clients: Sequence[Client] = ()) -> None:
    """Checks them all.

    Args:
        stack: Whose provider, bucket, logs and default namespace are looked at.
        clients: Of further namespaces that worked on the same bucket.

    Raises:
        AssertionError: One does not hold.
    """
    namespaces = [stack.client, *clients]
    await no_job_is_stuck(namespaces)
    await each_claim_has_one_task_at_most(stack)
    await absent_is_never_wrong(stack)
    await every_paid_video_is_named(stack, namespaces)
    await final_objects_are_right(stack)
    for client in namespaces:
        await no_secret_is_anywhere(stack, client)
        await replay_all(client)
    assert await stack.ark.leaks() == [], "an API key was sent to a result host"


async def no_job_is_stuck(clients: Sequence[Client]) -> None:
    """Every job has ended, or is young, or tells a person what it needs."""
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


async def absent_is_never_wrong(stack: Stack) -> None:
    """Nothing is called absent whose task the provider has."""
    committed = {entry.body["safety_identifier"]: entry for entry in await stack.ark.ledger() if entry.committed}
    for stored in await stack.bucket.list(""):
        if not stored.name.endswith(".outcome.json"):
            continue
        outcome = json.loads(await stack.bucket.read(stored.name) or b"")
        claim = await stack.bucket.read(stored.name.replace(".outcome.json", ".claim.json"))
        assert claim is not None, f"{stored.name} has no claim"
        nonce = json.loads(claim)["nonce"]
        tasks = [entry.task_id for identifier, entry in committed.items() if identifier.endswith(nonce)]
        if outcome["kind"] in {"absent", "not_sent", "refused"}:
            assert not tasks, f"{stored.name} says {outcome['kind']}, and there is task {tasks}"
        if outcome["kind"] == "created":
            assert [outcome["task_id"]] == tasks, f"{stored.name} names {outcome['task_id']}, and there is {tasks}"


async def every_paid_video_is_named(stack: Stack, clients: Sequence[Client]) -> None:
    """Whatever was billed is named by a record or by a fact in the ledger, or its job asks a person."""
    named: set[str] = set()
    job_of: dict[str, str] = {}
    for stored in await stack.bucket.list(""):
        late = stored.name.rpartition(".late-")[2]
        if late != stored.name:
            named.add(unquote(late.removesuffix(".json")))
        elif stored.name.endswith(_FACTS):
            fact = json.loads(await stack.bucket.read(stored.name) or b"")
            named.add(fact.get("task_id") or (fact.get("error") or {}).get("task_id") or "")
        elif stored.name.endswith(".claim.json"):
            claim = json.loads(await stack.bucket.read(stored.name) or b"")
            job_of[claim["nonce"]] = claim["job_id"]
    for entry in await stack.ark.ledger():
        if entry.billed_tokens is None or entry.task_id in named:
            continue
        job_id = job_of.get(str(entry.body["safety_identifier"])[-32:])
        assert job_id is not None, f"task {entry.task_id} was paid, and nobody has claimed it"
        assert await _asks_a_person(clients, job_id), f"task {entry.task_id} of {job_id} was paid, and is named nowhere"


async def _asks_a_person(clients: Sequence[Client], job_id: str) -> bool:
    for client in clients:
        async for run in client.list_workflows(f"WorkflowId = '{job_id}'"):
            if run.typed_search_attributes.get(SEEDANCE_ATTENTION) is not None:
                return True
    return False


async def final_objects_are_right(stack: Stack) -> None:
    """One record and one video for a job at most, byte for byte what the provider has."""
    videos: dict[str, list[str]] = defaultdict(list)
    paid = {entry.task_id for entry in await stack.ark.ledger()}
    for stored in await stack.bucket.list(""):
        root, _, file = stored.name.rpartition("/")
        job, _, task_id = root.rpartition("/")
        if file != "output.mp4" or unquote(task_id) not in paid:
            continue
        videos[job].append(task_id)
        content = await stack.bucket.read(stored.name)
        assert content == await stack.ark.video_bytes(unquote(task_id)), f"{stored.name} is not what was made"
        record = await stack.bucket.read(f"{job}/record.json")
        if record is not None:
            video = json.loads(record)["objects"]["video"]
            assert (video["name"], video["crc32c"]) == (stored.name, stored.crc32c), f"the record of {stored.name}"
    for job, tasks in videos.items():
        assert len(tasks) == 1, f"{job} has {len(tasks)} videos"


async def each_claim_has_one_task_at_most(stack: Stack) -> None:
    """Per claim one committed create at most; per job, one for each attempt that somebody asked for."""
    committed = [entry for entry in await stack.ark.ledger() if entry.committed]
    of_claim = Counter(entry.body["safety_identifier"] for entry in committed)
    assert max(of_claim.values(), default=0) <= 1, f"a claim was sent more than once: {of_claim}"

    claims: dict[str, list[str]] = defaultdict(list)
    agains: Counter[str] = Counter()
    for stored in await stack.bucket.list(""):
        if stored.name.endswith(".claim.json"):
            claim = json.loads(await stack.bucket.read(stored.name) or b"")
            claims[claim["job_id"]].append(claim["nonce"])
        if stored.name.endswith(".again.json"):
            agains["seedance-" + stored.name.split("/")[1]] += 1
    for job_id, nonces in claims.items():
        paid = sum(entry.body["safety_identifier"].endswith(tuple(nonces)) for entry in committed)
        assert paid <= 1 + agains[job_id], f"{job_id} was created {paid} times"


async def no_secret_is_anywhere(stack: Stack, client: Client) -> None:
    """No key, callback secret, callback token or URL signature in histories, logs, object names or objects."""
    secrets = [*API_KEYS.values(), CALLBACK_SECRET]
    jobs = {run.id async for run in client.list_workflows(f"WorkflowType = '{WORKFLOW}'")}
    secrets += [callback_token(CALLBACK_SECRET, job_id, attempt) for job_id in jobs for attempt in (1, 2, 3)]
    secrets += ["X-Tos-Signature", "X-Tos-Expires"]
    async for run in client.list_workflows(f"WorkflowType = '{WORKFLOW}'"):
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            _assert_clean(event.SerializeToString(), secrets, f"event {event.event_id} of {run.id}")
    for stored in await stack.bucket.list(""):
        content = stored.name.encode() + (await stack.bucket.read(stored.name) or b"")
        _assert_clean(content, secrets, stored.name)
    for name, child in stack.children.items():
        if name != "ark":
            _assert_clean(child.log.read_bytes(), secrets, f"the log of {name}")


def _assert_clean(content: bytes, secrets: list[str], where: str) -> None:
    found = [secret for secret in secrets if secret.encode() in content]
    assert not found, f"{len(found)} secrets in {where}"
