"""What every party of a Seedance job agrees on; all that a backend installs.

A backend needs three names: :class:`VideoRequest`, :class:`VideoJobs` and the errors of
:mod:`seedance_temporal.errors`.
"""

from seedance_temporal.client import VideoJobs, connect
from seedance_temporal.errors import InvalidRequest, JobFailed, SeedanceError, UnknownJob
from seedance_temporal.job import Job, JobError, JobState, VideoResult
from seedance_temporal.request import Reference, Rights, VideoRequest

__all__ = [
    "InvalidRequest",
    "Job",
    "JobError",
    "JobFailed",
    "JobState",
    "Reference",
    "Rights",
    "SeedanceError",
    "UnknownJob",
    "VideoJobs",
    "VideoRequest",
    "VideoResult",
    "connect",
]
