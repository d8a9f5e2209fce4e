"""An attempt that was given up, whose task came to light afterwards, and then failed."""

from __future__ import annotations

from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import job_id_of
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.store import Ledger
from tests.support.jobs import a_claim, a_request, an_end, created
from tests.support.memory_bucket import MemoryBucket


async def test_late_task_ends_the_attempt() -> None:
    ledger = Ledger(MemoryBucket(), "seedance")
    request = a_request()
    job_id = job_id_of(request)
    assert await ledger.claim(a_claim(request))
    await ledger.end(job_id, 1, an_end(1, None, "lost", "unknown_outcome"))
    assert decide(await ledger.read(job_id)).next == "ended"

    await ledger.write_outcome(job_id, 1, created("cgt-late", "callback"))
    decision = decide(await ledger.read(job_id))
    assert (decision.next, decision.task_id) == ("adopt", "cgt-late")

    failed = an_end(1, "cgt-late", "provider")
    assert await ledger.end(job_id, 1, failed) == failed
    assert await ledger.end(job_id, 1, an_end(1, "cgt-late", "expired")) == failed
    decision = decide(await ledger.read(job_id))
    assert (decision.next, decision.error) == ("ended", failed.error)

    await ledger.grant_resubmit(job_id, Resubmit(attempt=1))
    decision = decide(await ledger.read(job_id))
    assert (decision.next, decision.attempt) == ("claim", 2)
