"""The project's bucket, for the commands that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seedance_temporal.errors import SeedanceError
from seedance_temporal.settings import Settings
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from activities.bucket import GoogleBucket

# The library itself would try for two minutes.
_BUCKET_SECONDS = 15.0


class BucketRefused(SeedanceError):
    """The bucket cannot be reached, or refuses what is asked of it."""


async def open_bucket(settings: Settings) -> GoogleBucket:
    """The bucket of the settings, after it has answered.

    Raises:
        BucketRefused: There are no credentials, or it does not answer.
    """
    from activities.bucket import GoogleBucket

    assert settings.seedance_bucket is not None
    try:
        bucket = GoogleBucket(settings.seedance_bucket)
        await bucket.check(seconds=_BUCKET_SECONDS)
    except Exception as error:
        raise BucketRefused(f"The bucket {settings.seedance_bucket} cannot be used: {redacted(str(error))}") from None
    return bucket
