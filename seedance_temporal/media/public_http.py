"""HTTP to addresses that others name: result URLs, redirects, reference media.

The name of a host is resolved here, all its addresses must be public, and the connection goes to one of these
addresses: a name that changes between the check and the connection gains nothing. No key or cookie is used, and a proxy
for results alone, whose URLs are the provider's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import httpx

from seedance_temporal.paced import READ_BYTES, PacedTransport, is_padded
from seedance_temporal.proxies import proxy_for, usual_tls
from seedance_temporal.urls import https_problem, is_public_address, redacted

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
_REDIRECTS = 5
_RESUME_PAUSE_SECONDS = 0.5
_WRITE_BYTES = 1024 * 1024
_WRITTEN_AT_ONCE = 64 * 1024
_TRUSTED_READ_BYTES = 64 * 1024
_ANSWER_BYTES = 4096
# A slow start is no slow download.
_SLOW_FOR_SECONDS = 20.0
_LONGEST_LOCATION = 8192
_LONGEST_REASON = 300
_BUSY = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19})")

Resolver = Callable[[str, int], Awaitable[list[str]]]
Progress = Callable[[int, int | None], None]


class ForbiddenAddress(httpx.TransportError):
    """A URL leads to an address that is not public. The message holds no part of the URL but the host."""


class DownloadFailed(Exception):
    """A download did not complete. The message holds no URL.

    Attributes:
        status: The HTTP status, where that was the reason.
        passing: Whether a later try may succeed: there was no connection, it broke, or the host was busy.
        answer: The start of the body of that answer. It may hold signatures, and must not be stored or logged.
    """

    def __init__(self, reason: str, *, status: int | None = None, answer: str = "", passing: bool = False) -> None:
        self.status = status
        self.passing = passing
        self.answer = answer
        super().__init__(reason)


async def resolve(host: str, port: int, threads: Executor | None = None) -> list[str]:
    """Return the addresses of a host, in the order in which to try them.

    Raises:
        httpx.ConnectError: It has none.
        httpx.ConnectTimeout: Its name servers do not answer.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            found = await loop.run_in_executor(
                threads, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            )
    except TimeoutError:
        raise httpx.ConnectTimeout(f"{host} cannot be resolved: its name servers do not answer") from None
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host} cannot be resolved: {error}") from None
    return [str(address[0]) for *_, address in found]


# A thread waits for a silent name server longer than its caller does. The names of users have threads of their own, so
# that no other name, and no file, waits for them.
_FOREIGN_NAMES = ThreadPoolExecutor(64, thread_name_prefix="names")


async def resolve_foreign(host: str, port: int) -> list[str]:
    """Return the addresses of a host that a user names; as :func:`resolve`, which is for the provider's hosts."""
    return await resolve(host, port, _FOREIGN_NAMES)


class PublicTransport(httpx.AsyncBaseTransport):
    """A transport that reaches public https addresses only. Each redirect is a request, and is checked too.

    Args:
        insecure_hosts: Hosts for which plain http and private addresses are allowed.
        resolver: Returns the addresses of a host and port.
        tls: Certificates to trust; the usual ones by default.
        proxied: Whether to use the proxy that the environment names for a URL. It resolves the host then, and its rules
            say which addresses it reaches.
    """

    def __init__(
        self,
        insecure_hosts: Collection[str] = (),
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        *,
        proxied: bool = False,
    ) -> None:
        self._insecure_hosts = insecure_hosts
        self._proxied = proxied
        self._resolve = resolver
        # The pool knows connections by address. One that is kept would serve another name at the same address, whose
        # certificate was not verified: each request gets its own.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._tls = tls or usual_tls()
        # Those of results are trusted with larger reads: their hosts are the provider's.
        self._read_bytes = _TRUSTED_READ_BYTES if proxied else READ_BYTES
        self._inner = PacedTransport(self._read_bytes, verify=self._tls, limits=limits)
        self._through: dict[str, PacedTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to one of the addresses that were checked.

        Raises:
            ForbiddenAddress: The URL is not https, or one of its addresses is not public.
            httpx.TransportError: No answer.
        """
        host = request.url.raw_host.decode("ascii")
        if self._proxied and (proxy := proxy_for(str(request.url))) is not None:
            self._check(request.url, host)
            if proxy not in self._through:
                self._through[proxy] = PacedTransport(self._read_bytes, verify=self._tls, proxy=proxy)
            return await self._through[proxy].handle_async_request(request)
        *others, last = await self._checked_addresses(request.url, host)
        for address in others:
            try:
                return await self._inner.handle_async_request(_sent_to(address, host, request))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_sent_to(last, host, request))

    async def _checked_addresses(self, url: httpx.URL, host: str) -> list[str]:
        self._check(url, host)
        addresses = await self._resolve(host, url.port or (443 if url.scheme == "https" else 80))
        if not addresses:
            raise httpx.ConnectError(f"{host} has no address")
        if host not in self._insecure_hosts and not all(map(is_public_address, addresses)):
            raise ForbiddenAddress(f"host {host} has an address that is not public")
        return addresses

    def _check(self, url: httpx.URL, host: str) -> None:
        if problem := https_problem(str(url), self._insecure_hosts):
            raise ForbiddenAddress(f"the URL of host {host} {problem}")

    async def aclose(self) -> None:
        for transport in (self._inner, *self._through.values()):
            await transport.aclose()


def _sent_to(address: str, host: str, request: httpx.Request) -> httpx.Request:
    """Return the same request to an address. Its Host header and the name that TLS verifies stay those of the URL.

    The old request keeps its URL, because redirects are resolved against it.
    """
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


async def _check_location(response: httpx.Response) -> None:
    """Refuse a redirect that is too long or not a URL, before the client reads its address."""
    if not response.has_redirect_location:
        return
    location = response.headers["Location"]
    if len(location) > _LONGEST_LOCATION:
        raise DownloadFailed(f"the host redirects to an address of {len(location)} characters")
    try:
        response.request.url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise DownloadFailed("the host redirects to an address that is not a URL") from None


def outbound_client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """Make a client for addresses that others name, without keys and without settings of the environment.

    It follows no redirect, because it would read and unzip the body of each one: :func:`download` follows them.
    """
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        follow_redirects=False,
        event_hooks={"response": [_check_location]},
        trust_env=False,
        # Some hosts refuse what names itself as a library. The length of the file is compared with the announced one.
        headers={"User-Agent": "Mozilla/5.0 (compatible; seedance-temporal)", "Accept-Encoding": "identity"},
    )


async def download(
    transport: httpx.AsyncBaseTransport,
    url: str,
    path: Path,
    *,
    max_bytes: int,
    seconds: float,
    resumes: int,
    least_rate: int = 0,
    progress: Progress = lambda done, total: None,
) -> None:
    """Download a URL to a file, in constant memory. Resume a broken download at the byte where it broke.

    Args:
        transport: Such as :class:`PublicTransport`; it is closed afterwards.
        path: The file, which is overwritten.
        max_bytes: A longer content is refused.
        seconds: Total time.
        resumes: How often the download may be resumed.
        least_rate: Bytes a second; a download that is slower, after some seconds, is given up.
        progress: Called with the bytes so far, and the total where it is known.

    Raises:
        DownloadFailed: The download did not complete.
    """
    file = await asyncio.to_thread(path.open, "wb", _WRITE_BYTES)
    try:
        async with outbound_client(transport) as client, asyncio.timeout(seconds):
            await _Download(client, url, file, max_bytes, least_rate, progress).run(resumes)
    except TimeoutError:
        raise DownloadFailed(f"it took longer than {seconds:g} seconds") from None
    finally:
        await asyncio.to_thread(file.close)


@dataclass
class _Download:
    """One download and its progress. ``version`` is the validator by which the host detects a changed content."""

    client: httpx.AsyncClient
    url: str
    file: BinaryIO
    max_bytes: int
    least_rate: int
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    total: int | None = None
    version: str | None = None

    async def run(self, resumes: int) -> None:
        for resumes_left in reversed(range(resumes + 1)):
            try:
                await self._open_and_read()
            except (ForbiddenAddress, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise DownloadFailed(redacted(str(error), limit=_LONGEST_REASON)) from None
            except UnicodeError:
                raise DownloadFailed("its address holds half a character") from None
            # The library does not translate what breaks TLS in the middle of a body.
            except (httpx.HTTPError, ssl.SSLError, ConnectionError) as error:
                if not resumes_left:
                    said = redacted(repr(error), limit=_LONGEST_REASON)
                    raise DownloadFailed(
                        f"it broke, with no try left, after {self.received} bytes: {said}", passing=True
                    ) from None
            else:
                return
            await asyncio.sleep(_RESUME_PAUSE_SECONDS)

    async def _open_and_read(self) -> None:
        request = self.client.build_request("GET", self.url, headers=self._range())
        async with aclosing(await _redirected(self.client, request)) as response:
            if response.status_code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
                raise await _refused(response)
            if not self._goes_on(response):
                await self._start_over(response)
            await self._read(response)

    def _range(self) -> dict[str, str]:
        if not self.received:
            return {}
        return {"Range": f"bytes={self.received}-"} | ({"If-Range": self.version} if self.version else {})

    def _goes_on(self, response: httpx.Response) -> bool:
        """Return whether an answer is the rest of the content. Otherwise it is the whole: the host ignores Range, or
        the content has changed.
        """
        if response.status_code == httpx.codes.OK:
            return False
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self.received or self.total not in {None, int(match[2])}:
            raise DownloadFailed("the host answered with another range than the requested one")
        self.total = int(match[2])
        return True

    async def _start_over(self, response: httpx.Response) -> None:
        await asyncio.to_thread(self.file.seek, 0)
        await asyncio.to_thread(self.file.truncate)
        length = response.headers.get("Content-Length", "")
        self.received, self.total = 0, int(length) if length.isdecimal() else None
        etag = response.headers.get("ETag", "")
        # Only a strong ETag promises the same bytes, and only ASCII can be sent back.
        version = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        self.version = version if version is not None and version.isascii() else None
        if self.total is not None and self.total > self.max_bytes:
            raise DownloadFailed(f"it has {self.total} bytes; {self.max_bytes} are allowed")

    async def _read(self, response: httpx.Response) -> None:
        began, unwritten = self.received, bytearray()
        try:
            async for piece in response.aiter_raw():
                if self.received + len(piece) > self.max_bytes:
                    raise DownloadFailed(f"it has more than the {self.max_bytes} bytes that are allowed")
                unwritten += piece
                self.received += len(piece)
                if len(unwritten) >= _WRITTEN_AT_ONCE:
                    # A thread for each small piece would be more work than the piece.
                    await asyncio.to_thread(self.file.write, bytes(unwritten))
                    unwritten.clear()
                self._judge(response, self.received - began)
        finally:
            self.file.write(unwritten)
        if self.total is not None and self.received != self.total:
            raise DownloadFailed(f"it has {self.received} bytes; {self.total} were announced")

    def _judge(self, response: httpx.Response, read: int) -> None:
        """Give up a download that is too slow, or whose pieces are made to be work."""
        if is_padded(response, read):
            raise DownloadFailed("it comes in pieces that are too small")
        seconds = time.monotonic() - self.began
        if seconds > _SLOW_FOR_SECONDS and self.received < self.least_rate * seconds:
            raise DownloadFailed(f"it comes at less than {self.least_rate} bytes a second", passing=True)
        self.progress(self.received, self.total)


async def _redirected(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request, and follow redirects without reading their bodies. The body of the answer is not read yet."""
    for _ in range(_REDIRECTS + 1):
        response = await client.send(request, stream=True)
        if response.next_request is None:
            return response
        await response.aclose()
        request = response.next_request
    raise DownloadFailed(f"the host redirects more than {_REDIRECTS} times")


async def _refused(response: httpx.Response) -> DownloadFailed:
    answer = b""
    async for piece in response.aiter_raw():
        answer += piece
        if len(answer) >= _ANSWER_BYTES:
            break
    status = response.status_code
    return DownloadFailed(
        f"the host answered HTTP {status}",
        status=status,
        answer=answer.decode(errors="replace"),
        passing=status in _BUSY or status >= httpx.codes.INTERNAL_SERVER_ERROR,
    )


class _WithoutQueries(logging.Filter):
    """Remove the queries of URLs from records: httpx logs each URL with its signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), None
        return True


for _name in ("httpx", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_WithoutQueries())
