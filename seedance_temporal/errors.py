"""The errors of this package.

::

    SeedanceError
    ├── InvalidRequest           refused before anything was spent; lists everything that is wrong
    ├── InvalidSettings          a variable of the environment is missing or wrong
    ├── InvalidJobId             the text is no job id, no request hash and no prefix of one
    │   └── AmbiguousJobId       several jobs begin with this prefix
    ├── UnknownJob               Temporal knows no such job
    ├── JobFailed                the job ended without a video
    │   ├── RequestRefused       the provider, a check or a limit refuses the request: the message says what to do
    │   ├── ProviderFailed       the task failed at the provider
    │   ├── JobExpired           the task expired before it was begun, or done
    │   ├── JobCancelled         the job was cancelled
    │   ├── VideoLost            a video may be made and billed, and cannot be had any more
    │   └── JobUnsettled         the run ended before the outcome was known: submit the request again
    ├── WorkerUnavailable        no worker answers an operator's resolution; nothing is lost
    ├── EncryptionKeyMissing     this process has not the key of a payload
    ├── TemporalUnavailable      Temporal could not be asked, or refused
    └── ProcessForked            this process was forked after it had connected: connect after the fork
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from seedance_temporal.job import JobError, JobState
from seedance_temporal.provider.task import FailureClass


class Problem(BaseModel, frozen=True):
    """One thing that is wrong with a request.

    Attributes:
        at: Where, such as ``references[0].url``; empty for the request as a whole.
        problem: What is wrong, and what to do.
    """

    at: str
    problem: str

    def __str__(self) -> str:
        return f"{self.at}: {self.problem}" if self.at else self.problem


class SeedanceError(Exception):
    """Anything that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors take other arguments than `args`: without this, no error could be sent to another process.
        return Exception.__new__, (type(self), *self.args), vars(self)


class InvalidRequest(SeedanceError):
    """The request was refused before anything was spent.

    Attributes:
        problems: Everything that is wrong, each with its place.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class InvalidSettings(SeedanceError):
    """The environment lacks a setting that the process needs, or has an impossible one."""


class InvalidJobId(SeedanceError):
    """The text is no job id, no request hash and no prefix of one."""


class AmbiguousJobId(InvalidJobId):
    """Several jobs begin with this prefix.

    Attributes:
        job_ids: Some of them.
    """

    def __init__(self, prefix: str, job_ids: Sequence[str]) -> None:
        self.job_ids = tuple(job_ids)
        super().__init__(f"several jobs begin with {prefix}; give more digits: {', '.join(self.job_ids)}")


class UnknownJob(SeedanceError):
    """Temporal knows no such job; its retention may be over, and the bucket's record still there."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"Temporal knows no job {job_id}. `audit`, with the whole id, shows what the bucket holds of it. "
            "Submitting the same request continues from that; where the bucket holds nothing of it, that "
            "starts, and pays for, a new job."
        )


class JobFailed(SeedanceError):
    """The job ended without a video. Which subclass is raised depends on how it ended.

    Attributes:
        state: The job at its end.
        code: The provider's own code, or ours in snake case.
        message: The reason, and the free next step.
        task_id: The provider's task; None where there is none.
        attempt: The attempt that counts; None where nothing was claimed: submitting again starts over.
        resubmit_could_help: Whether another paid attempt could succeed.
    """

    def __init__(self, state: JobState, error: JobError) -> None:
        self.state = state
        self.code = error.code
        self.message = error.message
        self.task_id = error.task_id
        self.attempt = error.attempt
        self.resubmit_could_help = error.resubmit_could_help
        super().__init__(error.message)

    @classmethod
    def of(cls, state: JobState) -> JobFailed:
        """Make the subclass that fits the state of a job that ended without a video."""
        assert state.error is not None
        return _BY_CLASS[state.error.failure_class](state, state.error)


class RequestRefused(JobFailed):
    """The provider, a check before the create, or a limit refuses the request. Nothing was billed.

    Change the request, or wait where a limit of a day is reached; the message says which.
    """


class ProviderFailed(JobFailed):
    """The task failed at the provider. Nothing was billed; another attempt could help."""


class JobExpired(JobFailed):
    """The task expired at the provider. Nothing was billed; another attempt could help."""


class JobCancelled(JobFailed):
    """The job was cancelled before the provider had begun. Nothing was billed."""


class VideoLost(JobFailed):
    """The outcome of the attempt cannot be known any more, or its video cannot be had. It may have been billed."""


class JobUnsettled(JobFailed):
    """The run ended before the outcome was known. Submitting the same request again goes on, without paying twice."""


_BY_CLASS: Mapping[FailureClass, type[JobFailed]] = {
    "moderation": RequestRefused,
    "invalid": RequestRefused,
    "provider": ProviderFailed,
    "expired": JobExpired,
    "cancelled": JobCancelled,
    "lost": VideoLost,
    "unsettled": JobUnsettled,
}


class WorkerUnavailable(SeedanceError):
    """No worker has answered an operator's resolution yet. The job goes on when one is back."""

    def __init__(self, job_id: str, queue: str) -> None:
        self.job_id = job_id
        self.queue = queue
        super().__init__(
            f"No worker answers on task queue {queue} for {job_id}. The resolution is written if one does within two "
            "minutes; after that, send it again. Nothing is lost meanwhile."
        )


class EncryptionKeyMissing(SeedanceError):
    """What Temporal has is encrypted, and this process has not the key. Nothing is lost: with the key, it is read.

    Attributes:
        key_id: The id of the key.
    """

    def __init__(self, key_id: str, *, differs: bool = False) -> None:
        self.key_id = key_id
        super().__init__(
            f"A payload does not decrypt with the key {key_id!r} of SEEDANCE_ENCRYPTION_KEYS: another key has this id "
            "where it was encrypted, or its bytes were changed. Give this process the same keys."
            if differs
            else f"A payload is encrypted with the key {key_id!r}, which is not in SEEDANCE_ENCRYPTION_KEYS of this "
            "process. Add it there, after the first one."
        )


class TemporalUnavailable(SeedanceError):
    """Temporal cannot be reached, or refuses what is asked of it. Jobs that run there are not affected."""


class ProcessForked(SeedanceError):
    """This process was forked from one that had connected to Temporal, whose SDK does not survive a fork."""

    def __init__(self) -> None:
        super().__init__(
            "This process was forked after its parent had connected to Temporal, and Temporal's SDK does not survive a "
            "fork. Connect after the fork: once in each worker process, and never in the parent."
        )
