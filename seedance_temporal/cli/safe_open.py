"""Open the local files that a request names. The request may be written by somebody who is not trusted.

A path must stay in the folder of the request, and lead to a regular file. It is followed name by name, never through
a link: a folder or file that is exchanged for a link meanwhile is refused. Probes and uploads use private copies,
which are the same by their SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from seedance_temporal.media.temporary import temporary_directory
from seedance_temporal.provider.checks import quoted
from seedance_temporal.provider.models import MEDIA, Kind

ANY_PATH = "--allow-any-path"
# The kernel's own files can block, never end, or hold secrets.
_VIRTUAL = ("/proc", "/sys", "/dev")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # files as any other, in memory
_FOLDER = (os.O_PATH if sys.platform == "linux" else os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
# Without O_NONBLOCK, a FIFO that was put there after the check of its type would block.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_PIECE_BYTES = 1024 * 1024


class FileRefused(Exception):
    """A file is refused. The message names it, and holds no part of its content."""


@dataclass(frozen=True)
class Place:
    """The place of a file.

    Attributes:
        root: A folder above it; an absolute path without links.
        names: The path from there, without links.
        shown: Its path in messages, quoted.
    """

    root: str
    names: tuple[str, ...]
    shown: str

    @classmethod
    def find(cls, path: str, folder: Path, *, anywhere: bool) -> Place:
        """Find the place that a path leads to, without opening it.

        Args:
            path: The path of a request, absolute or relative to the folder.
            folder: The folder of the request, as an absolute path.
            anywhere: Whether the path may lead out of the folder.

        Raises:
            FileRefused: It leads out of the folder, also where no file exists, or is no path.
        """
        shown = repr(os.path.join(folder, path))
        with _in_words(shown):
            root = "/" if anywhere else os.path.realpath(folder)
            # Two slashes at the start would be another root.
            named = Path("/" + os.path.normpath(os.path.join(os.path.realpath(folder), path)).lstrip("/"))
            is_inside = any(named.is_relative_to(each) for each in (root, os.path.normpath(folder)))
            # Only then is the disk asked: no message reveals which files exist outside of the folder.
            real = Path(os.path.realpath(named)) if is_inside else None
        if real is None or not real.is_relative_to(root):
            raise FileRefused(
                f"{quoted(path)} leads out of the folder of the request, {str(folder)!r}; put the file into that "
                f"folder, or allow others with {ANY_PATH}"
            )
        if _is_virtual(named) or _is_virtual(real):
            raise FileRefused(f"{shown} is no file on a disk; give a regular file")
        return cls(root, real.relative_to(root).parts, shown)

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file once, if it is a regular one.

        Raises:
            FileRefused: It is another kind of file, or cannot be read; also for an OSError of the block.
        """
        with _in_words(self.shown), open(self._descriptor(), "rb") as file:
            self._refuse_irregular(os.fstat(file.fileno()))
            yield file

    def _descriptor(self) -> int:
        *folders, name = self.names or (".",)
        with ExitStack() as stack:
            at = None
            for folder in (self.root, *folders):
                at = os.open(folder, _FOLDER, dir_fd=at)
                stack.callback(os.close, at)
            # Opening a FIFO or a device can have effects.
            self._refuse_irregular(os.stat(name, dir_fd=at, follow_symlinks=False))
            return os.open(name, _FILE, dir_fd=at)

    def _refuse_irregular(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise FileRefused(f"{self.shown} is a directory; give a regular file")
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{self.shown} is a FIFO, a socket, a device or a link; give a regular file")


@dataclass(frozen=True)
class LocalFile:
    """A file that a request names, as it was when it was read.

    Attributes:
        place: The place of the file.
        size: Bytes.
        sha256: The hash of its content, as 64 lowercase hex digits.
        name: The name of its object.
    """

    place: Place
    size: int
    sha256: str
    name: str

    @asynccontextmanager
    async def copied(self) -> AsyncIterator[Path]:
        """Copy the content to a private file, which exists while the block runs.

        Raises:
            FileRefused: The content has changed, or cannot be read any more.
        """
        with temporary_directory() as directory:
            path = directory / "reference"
            await asyncio.to_thread(self._copy, path)
            yield path

    def _copy(self, path: Path) -> None:
        with self.place.opened() as file, path.open("xb") as copy:
            if _digest(file, self.size, copy) != self.sha256:
                raise FileRefused(f"{self.place.shown} was changed since it was read; run the command again")


def read_file(place: Place, kind: Kind) -> tuple[int, str]:
    """Read a file from end to end, if its size is allowed. Return its size in bytes, and its SHA-256.

    Raises:
        FileRefused: It is empty, too large for a reference of this kind, not regular, or cannot be read.
    """
    with place.opened() as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise FileRefused(f"{place.shown} is empty")
        if size > MEDIA[kind].max_bytes:
            raise FileRefused(f"{place.shown} has {size} bytes; {MEDIA[kind].max_bytes} are allowed")
        sha256 = _digest(file, size)
        if sha256 is None:
            raise FileRefused(f"{place.shown} was changed while it was read; run the command again")
    return size, sha256


def _is_virtual(path: Path) -> bool:
    return any(map(path.is_relative_to, _VIRTUAL)) and not path.is_relative_to(_SHARED_MEMORY)


def _digest(file: BinaryIO, size: int, copy: BinaryIO | None = None) -> str | None:
    """Hash a file by SHA-256, and copy it on the way. Return None if it has another size."""
    sha256, left = hashlib.sha256(), size
    while piece := file.read(min(_PIECE_BYTES, left + 1)):
        left -= len(piece)
        if left < 0:
            return None
        sha256.update(piece)
        if copy is not None:
            copy.write(piece)
    return None if left else sha256.hexdigest()


@contextmanager
def _in_words(shown: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or half a character
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FileRefused(f"the file {shown} cannot be read: {why}") from None
