"""Fetch, probe and sign the media that requests refer to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from weakref import WeakValueDictionary

import httpx

from seedance_temporal.errors import Problem
from seedance_temporal.media.probe import BadMedia, probed
from seedance_temporal.media.public_http import DownloadFailed, PublicTransport, download, resolve_foreign
from seedance_temporal.media.temporary import temporary_directory
from seedance_temporal.provider.models import KINDS, MEDIA, Kind
from seedance_temporal.reference_media import Medium, is_readable, media_problems
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, readable_url

# Per process, over all its jobs: bounds for disk (200 MB each), and for memory and processors.
_DOWNLOADS = 8
# A user's slow hosts hold up that user alone.
_DOWNLOADS_OF_A_USER = 2
_PROBES = 2
# Bytes a second: a host that dribbles holds up the others no longer than it takes to see that.
_LEAST_RATE = 10_000
# To probe the largest file takes some seconds; one that takes this long was made to.
_PROBE_SECONDS = 60.0
_RESUMES = 2
# Long enough for the last of many references, which waits for the others.
_SIGNED_FOR = timedelta(hours=1)


@dataclass(frozen=True)
class Findings:
    """The references of a request that could be read, and the problems of all.

    Attributes:
        problems: The request cannot succeed.
        passing: Problems that may pass, such as a host that cannot be reached.
    """

    media: tuple[Medium, ...]
    problems: tuple[Problem, ...]
    passing: tuple[Problem, ...]


class References:
    """Download and probe the references of requests. A process has one, whose limits hold for all requests together.

    Args:
        bucket: Signs the URLs of private references; None where there are none.
        settings: A download may take as long as a create, which includes the provider's own download.
        transport: Makes the transport of each download; by default one that reaches public addresses only.
        probe_seconds: The most seconds for the probe of one file.
    """

    def __init__(
        self,
        bucket: Bucket | None,
        settings: Settings,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        probe_seconds: float = _PROBE_SECONDS,
    ) -> None:
        self._bucket = bucket
        self._settings = settings
        self._transport = transport or (lambda: PublicTransport(settings.seedance_insecure_hosts, resolve_foreign))
        self._probe_seconds = probe_seconds
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._probes = asyncio.Semaphore(_PROBES)
        # Of the users whose references are being read.
        self._of_users: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._probes_of_users: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def examine(self, request: VideoRequest, known: Mapping[int, Medium] = MappingProxyType({})) -> Findings:
        """Download and probe every reference but ``asset://``, which only the provider can read.

        Args:
            request: One whose references have no problem by :meth:`seedance_temporal.provider.rules.Rules.check`.
            known: The media of references that were probed already, by their index, counted from 0.

        Raises:
            CannotSign: A private reference cannot be signed.
        """
        distant = [i for i, each in enumerate(request.references) if is_readable(each) and i not in known]
        given = [request.references[index].url for index in distant]
        urls = await asyncio.gather(*(readable_url(self._bucket, url, _SIGNED_FOR) for url in given))
        media: list[Medium] = [*known.values()]
        mine = self._of_users.setdefault(request.user_id, asyncio.Semaphore(_DOWNLOADS_OF_A_USER))
        probe = self._probes_of_users.setdefault(request.user_id, asyncio.Lock())
        problems: list[Problem] = []
        passing: list[Problem] = []

        async def read(index: int, url: str) -> None:
            at = f"references[{index}]"
            try:
                async with mine:
                    media.append(await self._read(index, KINDS[request.references[index].role], url, probe))
            except DownloadFailed as error:
                (passing if error.passing else problems).append(Problem(at=at, problem=_in_words(error)))
            except BadMedia as error:
                problems.append(Problem(at=at, problem=str(error)))

        async with asyncio.TaskGroup() as group:
            for index, url in zip(distant, urls, strict=True):
                group.create_task(read(index, url))
        media.sort(key=lambda medium: medium.reference)
        model = self._settings.rules.model_of(request.model)
        problems += media_problems(media, model, request) if model is not None else []
        return Findings(tuple(media), _in_order(problems), _in_order(passing))

    async def _read(self, index: int, kind: Kind, url: str, probe: asyncio.Lock) -> Medium:
        """Download and probe one reference; ``probe`` is held by one of a user at a time."""
        async with self._downloads:
            with temporary_directory() as directory:
                path = directory / "reference"
                seconds = self._settings.seedance_create_timeout_seconds
                most = MEDIA[kind].max_bytes
                await download(
                    self._transport(),
                    url,
                    path,
                    max_bytes=most,
                    seconds=seconds,
                    resumes=_RESUMES,
                    least_rate=_LEAST_RATE,
                )
                async with probe, self._probes:
                    return await probe_reference(index, kind, path, self._probe_seconds)


async def probe_reference(index: int, kind: Kind, path: Path, seconds: float = _PROBE_SECONDS) -> Medium:
    """Probe one reference by its absolute path: it was downloaded, or is a local file.

    Raises:
        BadMedia: It is of another kind, or damaged, or takes longer to probe.
    """
    found = await probed(kind, path, seconds)
    sha256, size = await asyncio.to_thread(_digest, path)
    return Medium.model_validate(found | {"reference": index, "kind": kind, "size": size, "sha256": sha256})


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    """Sort problems by their reference: the second comes before the tenth."""
    return tuple(sorted(problems, key=lambda each: (len(each.at), each.at)))


def _in_words(error: DownloadFailed) -> str:
    refused = error.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
    needs = "; it must be public, or have a signature that is still valid" if refused else ""
    return f"cannot be downloaded as the provider would: {error}{needs}"


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
