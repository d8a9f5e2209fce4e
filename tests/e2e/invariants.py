"""What holds after any test, whatever went wrong in it: by the provider's own ledger, the bucket and the histories."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from dev.stack import API_KEYS, CALLBACK_SECRET, Stack
from seedance_temporal.identity import callback_token
from seedance_temporal.job import WORKFLOW
from tests.replay.replaying import replay_all


async def check_invariants(stack: Stack) -> None:
    """Checks them all.

    Raises:
        AssertionError: One does not hold.
    """
    await each_claim_has_one_task_at_most(stack)
    await no_secret_is_anywhere(stack)
    assert await stack.ark.leaks() == [], "an API key was sent to a result host"
    await replay_all(stack.client)


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


async def no_secret_is_anywhere(stack: Stack) -> None:
    """No key, callback secret, callback token or URL signature in histories, logs, object names or objects."""
    secrets = [*API_KEYS.values(), CALLBACK_SECRET]
    jobs = {run.id async for run in stack.client.list_workflows(f"WorkflowType = '{WORKFLOW}'")}
    secrets += [callback_token(CALLBACK_SECRET, job_id, attempt) for job_id in jobs for attempt in (1, 2, 3)]
    secrets += ["X-Tos-Signature", "X-Tos-Expires"]
    async for run in stack.client.list_workflows(f"WorkflowType = '{WORKFLOW}'"):
        handle = stack.client.get_workflow_handle(run.id, run_id=run.run_id)
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
