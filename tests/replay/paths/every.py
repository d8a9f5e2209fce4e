"""Every path: importing this module fills the registry."""

from __future__ import annotations

from tests.replay.paths import cancelling, creating, ending, following, late, listing, outlasting, recovering
from tests.replay.paths.registry import PATHS

__all__ = ["PATHS", "cancelling", "creating", "ending", "following", "late", "listing", "outlasting", "recovering"]
