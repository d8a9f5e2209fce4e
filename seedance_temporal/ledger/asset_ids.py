"""Which content a user's asset ids have stood for.

The request hash sees a reference's asset_id instead of its URL. Where an asset_id comes to mean other content, the same
request still is the same job, and returns the older video: that is worth a warning. What was seen is kept in objects
that are created once, one for each content.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

from seedance_temporal.reference_media import Medium
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket, as_json


class Assets:
    """The contents of all asset ids, in a bucket.

    Args:
        bucket: Where they stand.
        prefix: The common start of all object names.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    async def warnings(self, request: VideoRequest, media: Sequence[Medium]) -> list[str]:
        """What to say of asset ids that have stood for other content. Writes nothing."""
        warned = await asyncio.gather(*(self._warning(request, medium) for medium in media))
        return [warning for warning in warned if warning is not None]

    async def note(self, request: VideoRequest, media: Sequence[Medium]) -> None:
        """Keeps what the asset ids of a request stand for now."""
        for medium in media:
            asset_id = request.references[medium.reference].asset_id
            if asset_id is not None:
                content = {"asset_id": asset_id, "sha256": medium.sha256, "at": datetime.now(UTC).isoformat()}
                await self._bucket.create(
                    f"{self._folder(request.user_id, asset_id)}{medium.sha256}.json", as_json(content)
                )

    async def _warning(self, request: VideoRequest, medium: Medium) -> str | None:
        asset_id = request.references[medium.reference].asset_id
        if asset_id is None:
            return None
        stored = await self._bucket.list(self._folder(request.user_id, asset_id))
        if {PurePosixPath(each.name).stem for each in stored} <= {medium.sha256}:
            return None
        return (
            f"references[{medium.reference}]: asset_id {asset_id!r} has stood for other content before. Jobs are told "
            "apart by the asset_id alone: the same request would return the older video. Give new content a new one."
        )

    def _folder(self, user_id: str, asset_id: str) -> str:
        """Hashes, because both may be longer than the name of an object, and hold anything."""
        user, asset = (hashlib.sha256(text.encode()).hexdigest() for text in (user_id, asset_id))
        return f"{self._prefix}/assets/{user[:16]}/{asset}/"
