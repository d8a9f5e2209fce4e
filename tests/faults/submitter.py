"""A backend's process that submits one request many times at once: ``python -m tests.faults.submitter N < request``.

Print how many answers report a new job, and the job ids.
"""

from __future__ import annotations

import asyncio
import json
import sys

from dev.stack import jobs_of
from seedance_temporal import VideoRequest, connect


async def main() -> None:
    """Read the request, and submit it."""
    request = VideoRequest.model_validate_json(sys.stdin.read())
    jobs = jobs_of(await connect())
    answers = await asyncio.gather(*(jobs.submit(request) for _ in range(int(sys.argv[1]))))
    new = sum(not answer.existing for answer in answers)
    sys.stdout.write(json.dumps({"new": new, "answers": len(answers), "jobs": sorted({a.id for a in answers})}))


if __name__ == "__main__":
    asyncio.run(main())
