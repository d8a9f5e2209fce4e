"""Temporary directories, which the next worker on the host removes where a process was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_PREFIX = "seedance-temporal-"
# A younger directory may not be locked yet.
_LOCKED_WITHIN_SECONDS = 60


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Make a directory that exists while the block runs.

    It is locked meanwhile. The system releases the lock of a process that was killed, and so marks its directory.
    """
    with TemporaryDirectory(prefix=_PREFIX) as name, _opened(Path(name)) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Path(name)


def remove_abandoned() -> int:
    """Remove the directories of processes that were killed; return their number. Those of other users stay."""
    removed = 0
    for path in Path(gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), _opened(path) as folder:
            found = os.fstat(folder)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _LOCKED_WITHIN_SECONDS:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed += 1
    return removed


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield folder
    finally:
        os.close(folder)
