"""The errors of this package.

::

    SeedanceError
    ├── InvalidRequest        refused before anything was spent; lists everything that is wrong
    ├── InvalidSettings       a variable of the environment is missing or wrong
    ├── UnknownJob            Temporal knows no such job
    ├── JobFailed             the job ended without a video; says why, and what it cost
    ├── WorkerUnavailable      the job is known, but no worker answers for it; nothing is lost
    └── TemporalUnavailable       Temporal could not be asked, or refused; says which address, and why
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from seedance_temporal.job import Job, JobError


class Problem(BaseModel):
    """One thing that is wrong with a request.

    Attributes:
        at: Where, such as ``references[0].url``; empty for the request as a whole.
        problem: What is wrong, and what to do.
    """

    model_config = ConfigDict(frozen=True)

    at: str
    problem: str


class SeedanceError(Exception):
    """Anything that this package raises on purpose."""


class InvalidRequest(SeedanceError):
    """The request was refused before anything was spent."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.at}: {p.problem}" if p.at else p.problem for p in self.problems))


class InvalidSettings(SeedanceError):
    """The environment does not say what the process needs, or says something impossible."""


class UnknownJob(SeedanceError):
    """Temporal knows no such job; its retention may be over, and the bucket's record still there."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"Temporal knows no job {job_id}. If its retention is over, submitting the same request again "
            "returns what the bucket holds, without paying."
        )


class JobFailed(SeedanceError):
    """The job ended without a video."""

    def __init__(self, job: Job, error: JobError) -> None:
        self.job = job
        self.error = error
        super().__init__(error.message)


class WorkerUnavailable(SeedanceError):
    """The job is known to Temporal, but no worker answers for it. It goes on when one is back."""

    def __init__(self, job_id: str, queue: str) -> None:
        self.job_id = job_id
        self.queue = queue
        super().__init__(
            f"No worker answers on task queue {queue} for {job_id}. Nothing is lost: the job goes on when one is back."
        )


class TemporalUnavailable(SeedanceError):
    """Temporal cannot be reached, or refuses what is asked of it. Jobs that run there are not affected."""
