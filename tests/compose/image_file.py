"""Read the Dockerfile, and lay out on disk what it copies into the image."""

from __future__ import annotations

import fnmatch
import json
import shlex
import shutil
from pathlib import Path

from tests.compose.compose_file import ROOT

FILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return each instruction with its arguments, continued lines joined."""
    lines = [line for line in FILE.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def arguments_of(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def environment() -> dict[str, str]:
    """Return what ``ENV`` sets."""
    pairs = [pair for rest in arguments_of("ENV") for pair in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def default_command() -> list[str]:
    (text,) = arguments_of("CMD")
    command = json.loads(text)  # the shell form would not be JSON, and would keep signals from Python
    assert isinstance(command, list)
    return command


def copied() -> list[tuple[Path, Path]]:
    """Return each file that ``COPY`` copies, and where to, both relative."""
    found = []
    for rest in arguments_of("COPY"):
        *sources, target = shlex.split(rest)
        for source in sources:
            origin = ROOT / source
            if origin.is_dir():
                files = [path for path in origin.rglob("*") if path.is_file()]
                found += [(path.relative_to(ROOT), Path(target) / path.relative_to(origin)) for path in files]
            elif origin.is_file():
                found.append((Path(source), Path(target) / origin.name if target.endswith("/") else Path(target)))
            else:
                raise FileNotFoundError(source)
    return [(source, target) for source, target in found if not is_ignored(source)]


def is_ignored(path: Path) -> bool:
    """Whether ``.dockerignore`` keeps a file from the build; the last pattern that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keeps = pattern.startswith("!")
        if _fits(path, pattern.removeprefix("!").strip("/")):
            ignored = not keeps
    return ignored


def _fits(path: Path, pattern: str) -> bool:
    """A pattern fits a path, or a folder that the path is in."""
    places = [path, *path.parents][:-1]
    anywhere = pattern.removeprefix("**/")
    if anywhere != pattern:
        return any(fnmatch.fnmatchcase(place.name, anywhere) for place in places)
    return any(
        len(place.parts) == pattern.count("/") + 1 and fnmatch.fnmatchcase(place.as_posix(), pattern)
        for place in places
    )


def lay_out(folder: Path) -> Path:
    """Copy into a folder what the image would hold of this project."""
    for source, target in copied():
        place = folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, place)
    return folder
