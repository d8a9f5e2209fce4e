"""The contents that each asset id of a user has named so far.

The request hash uses a reference's asset_id instead of its URL. Where an asset_id names new content, the same request
still is the same job, and returns the older video: that is worth a warning. Each content that was seen has an object
of its own, created once.
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
    """The contents of all asset ids, in a bucket, where all object names start with a prefix."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    async def warnings(self, request: VideoRequest, media: Sequence[Medium]) -> list[str]:
        """Return a warning for each asset id that has named other content before. Write nothing."""
        warned = await asyncio.gather(*(self._warning(request, medium) for medium in media))
        return [warning for warning in warned if warning is not None]

    async def note(self, request: VideoRequest, media: Sequence[Medium]) -> None:
        """Write which content each asset id of a request names now."""
        for medium in media:
            asset_id = request.references[medium.reference].asset_id
            if asset_id is not None:
                name = f"{self._folder(request.user_id, asset_id)}{medium.sha256}.json"
                content = {"asset_id": asset_id, "sha256": medium.sha256, "at": datetime.now(UTC).isoformat()}
                await self._bucket.create(name, as_json(content))

    async def _warning(self, request: VideoRequest, medium: Medium) -> str | None:
        asset_id = request.references[medium.reference].asset_id
        if asset_id is None:
            return None
        stored = await self._bucket.list(self._folder(request.user_id, asset_id))
        if {PurePosixPath(each.name).stem for each in stored} <= {medium.sha256}:
            return None
        return (
            f"references[{medium.reference}]: asset_id {asset_id!r} has named other content before. Jobs are "
            "distinguished by the asset_id alone: the same request would return the older video. Give new content a "
            "new asset_id."
        )

    def _folder(self, user_id: str, asset_id: str) -> str:
        """Return the folder of an asset id; hashed, because ids may be too long for an object name, or hold slashes."""
        user, asset = (hashlib.sha256(text.encode()).hexdigest() for text in (user_id, asset_id))
        return f"{self._prefix}/assets/{user[:16]}/{asset}/"
