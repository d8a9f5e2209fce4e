"""The client of Seedance jobs; all that a backend installs.

::

    jobs = await VideoJobs.connect()                       # settings from the environment
    job = await jobs.submit(VideoRequest.from_json(body))  # the same request again is the same job
    result = await job.result(timeout=900)

:class:`SyncVideoJobs` has the same methods without ``await``. All errors are in :mod:`seedance_temporal.errors`.
"""

from seedance_temporal.client import VideoJobs
from seedance_temporal.connection import connect
from seedance_temporal.contract import CancelAnswer, CancelOutcome, ResolveAction, ResolveAnswer, Resubmit
from seedance_temporal.errors import (
    AmbiguousJobId,
    EncryptionKeyMissing,
    InvalidJobId,
    InvalidRequest,
    InvalidSettings,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobUnsettled,
    Problem,
    ProcessForked,
    ProviderFailed,
    RequestRefused,
    SeedanceError,
    TemporalUnavailable,
    UnknownJob,
    VideoLost,
    WorkerUnavailable,
)
from seedance_temporal.events import Event, EventName, EventSource
from seedance_temporal.gate_contract import Hold
from seedance_temporal.handle import VideoJob
from seedance_temporal.job import Attention, JobDetail, JobError, JobState, Phase, VideoResult
from seedance_temporal.places import Place
from seedance_temporal.provider.prices import Estimate
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import FailureClass, Usage
from seedance_temporal.request import Reference, Rights, VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.sync_client import SyncVideoJob, SyncVideoJobs
from seedance_temporal.visibility import Wanted

__all__ = [
    "AmbiguousJobId",
    "Attention",
    "CancelAnswer",
    "CancelOutcome",
    "EncryptionKeyMissing",
    "Estimate",
    "Event",
    "EventName",
    "EventSource",
    "FailureClass",
    "Hold",
    "InvalidJobId",
    "InvalidRequest",
    "InvalidSettings",
    "JobCancelled",
    "JobDetail",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobState",
    "JobUnsettled",
    "Phase",
    "Place",
    "Problem",
    "ProcessForked",
    "ProviderFailed",
    "Reference",
    "RequestRefused",
    "ResolveAction",
    "ResolveAnswer",
    "Resubmit",
    "Rights",
    "Rules",
    "SeedanceError",
    "Settings",
    "SyncVideoJob",
    "SyncVideoJobs",
    "TemporalUnavailable",
    "UnknownJob",
    "Usage",
    "VideoJob",
    "VideoJobs",
    "VideoLost",
    "VideoRequest",
    "VideoResult",
    "Wanted",
    "WorkerUnavailable",
    "connect",
]
