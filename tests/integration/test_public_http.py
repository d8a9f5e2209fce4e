"""Requests to addresses that others name: where they may go, and how a download comes to its end."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from seedance_temporal.media import public_http as outbound
from seedance_temporal.media.public_http import (
    DownloadFailed,
    ForbiddenAddress,
    PublicTransport,
    download,
    outbound_client,
    resolve,
    resolve_foreign,
)
from tests.support.raw_host import raw_host
from tests.support.result_host import Answer, Names, ResultHost, result_host
from tests.support.tls import certificates_for

LOCAL = {"127.0.0.1"}
CONTENT = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_RESUME_PAUSE_SECONDS", 0)


async def get(url: str, transport: PublicTransport) -> httpx.Response:
    """One request; redirects are the download's."""
    async with outbound_client(transport) as client:
        return await client.get(url)


@dataclass
class Fetch:
    """Downloads ``/v.mp4`` of the host, or another URL, and returns the bytes."""

    host: ResultHost
    path: Path

    async def __call__(
        self,
        *answers: Answer,
        url: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        max_bytes: int = 10**6,
        seconds: float = 10,
        resumes: int = 4,
    ) -> bytes:
        if answers:
            self.host.answers["/v.mp4"] = list(answers)
        await download(
            transport or PublicTransport(LOCAL),
            self.host.url("/v.mp4?sig=SECRET") if url is None else url,
            self.path,
            max_bytes=max_bytes,
            seconds=seconds,
            resumes=resumes,
        )
        return self.path.read_bytes()


@pytest.fixture
def fetch(host: ResultHost, tmp_path: Path) -> Fetch:
    return Fetch(host, tmp_path / "v.mp4")


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": location})


def etag(value: str) -> dict[str, str]:
    return {"ETag": f'"{value}"'}


def named_locally() -> PublicTransport:
    """Return a transport for which the insecure host results.test is on this machine."""
    return PublicTransport({"results.test"}, Names({"results.test": [["127.0.0.1"]]}))


# Where requests may go


@pytest.mark.parametrize(
    "url",
    [
        "http://results.test/v.mp4",
        "https://127.0.0.1/v.mp4",
        "https://[::1]/v.mp4",
        "https://[::ffff:127.0.0.1]/v.mp4",
        "https://10.1.2.3/v.mp4",
        "https://169.254.169.254/latest/meta-data",
        "https://private.test/v.mp4",
        "https://half.test/v.mp4",
        "https://user:word@results.test/v.mp4",
        "ftp://results.test/v.mp4",
    ],
)
async def test_url_without_public_https_is_refused(url: str) -> None:
    half = ["8.8.8.8", "10.0.0.1"]
    names = Names({"private.test": [["192.168.1.1"]], "half.test": [half], "results.test": [["8.8.8.8"]]})
    with pytest.raises((ForbiddenAddress, httpx.UnsupportedProtocol)) as refused:
        await get(f"{url}?sig=SECRET", PublicTransport(resolver=names))
    assert "SECRET" not in str(refused.value)


async def test_short_forms_of_private_address_are_refused() -> None:
    with pytest.raises(ForbiddenAddress):
        await get("https://127.1/v.mp4", PublicTransport())


async def test_insecure_host_may_be_private(host: ResultHost) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    response = await get(host.url("/v.mp4", "results.test"), named_locally())
    assert response.content == CONTENT
    assert host.requests[0].headers["host"] == f"results.test:{host.port}"


async def test_redirect_to_private_address_is_refused(host: ResultHost, fetch: Fetch) -> None:
    inside, url = redirect(host.url("/inside?sig=SECRET")), host.url("/v.mp4", "results.test")
    with pytest.raises(DownloadFailed, match="is plain http") as refused:
        await fetch(inside, url=url, transport=named_locally())
    assert "SECRET" not in str(refused.value)
    assert not host.asked("/inside")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_relative_redirect_keeps_name(host: ResultHost, fetch: Fetch, status: int) -> None:
    host.answers["/a/v.mp4"] = [redirect("../real.mp4?x=1", status)]
    host.answers["/real.mp4"] = [Answer(CONTENT)]
    url = host.url("/a/v.mp4", "results.test")
    assert await fetch(url=url, transport=named_locally()) == CONTENT
    assert host.asked("/real.mp4")[0].headers["host"] == f"results.test:{host.port}"
    assert host.asked("/real.mp4")[0].target == "/real.mp4?x=1"


async def test_redirects_are_few(host: ResultHost, fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match="more than 5 times"):
        await fetch(redirect("/v.mp4"))
    assert len(host.requests) == 6


async def test_redirect_body_is_not_read(fetch: Fetch) -> None:
    async with raw_host() as host:
        host.answers(302, "", f"Location: {host.url}", "Content-Encoding: gzip", "Transfer-Encoding: chunked")
        bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)
        host.repeats = b"%x\r\n%b\r\n" % (len(bomb), bomb)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DownloadFailed, match="more than 5 times"):
            await fetch(url=host.url, resumes=0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(host.requests) == 6
    # Buffers of the system on both sides of six connections; of what was sent, nothing was unzipped.
    assert host.repeated < 64 * 1024 * 1024
    assert grown < 96 * 1024, "kB; each bomb has 64 MB, and was made before"


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("/" + "x" * 8192, "address of 8193 characters"),
        ("https://x.test/?" + "SECRET" * 1400, "characters"),
        ("https://[::1", "not a URL"),
        ("https://x.test:port/", "not a URL"),
        ("http://999.999.999.999/", "not a URL"),
        ("//x.test:SECRET/", "not a URL"),
        ("ftp://x.test/", "not an https URL"),
        ("mailto:SECRET@x.test", "."),
        ("javascript:SECRET", "."),
        ("https://user:SECRET@x.test/", "user name or password"),
        ("https://" + "x" * 8000 + "/", "xxx"),
    ],
)
async def test_invalid_redirect_fails_download(host: ResultHost, fetch: Fetch, location: str, says: str) -> None:
    with pytest.raises(DownloadFailed, match=says) as refused:
        await fetch(redirect(location))
    assert "SECRET" not in str(refused.value)
    assert len(str(refused.value)) <= 300
    assert len(host.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1/\ud800", "http://[", "http://127.0.0.1:port/", "http://\n/", ""])
async def test_invalid_url_fails_download(fetch: Fetch, url: str) -> None:
    with pytest.raises(DownloadFailed):
        await fetch(url=url, resumes=0)


async def test_changed_name_gains_nothing(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once for each request, and the request connects to that address."""
    names = Names({"results.test": [["203.0.113.7"], ["127.0.0.1"]]})
    monkeypatch.setattr(outbound, "is_public_address", lambda address: address == "203.0.113.7")
    went_to: list[str] = []

    async def connect(self: object, request: httpx.Request) -> httpx.Response:
        went_to.append(request.url.host)
        assert request.headers["host"] == "results.test"
        assert request.extensions["sni_hostname"] == "results.test"
        return httpx.Response(302, headers={"Location": "https://results.test/again"})

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", connect)
    with pytest.raises(DownloadFailed, match="not public"):
        await fetch(url="https://results.test/v.mp4", transport=PublicTransport(resolver=names), resumes=0)
    assert went_to == ["203.0.113.7"]
    assert names.asked == ["results.test", "results.test"]


async def test_next_address_is_tried_after_no_answer(host: ResultHost) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    names = Names({"results.test": [["127.0.0.2", "127.0.0.1"]]})
    assert (await get(host.url("/v.mp4", "results.test"), PublicTransport({"results.test"}, names))).status_code == 200


async def test_name_without_address_fails_connection() -> None:
    with pytest.raises(httpx.ConnectError):
        await resolve("nothing.invalid", 443)
    with pytest.raises(httpx.ConnectError):
        await get("https://results.test/", PublicTransport(resolver=Names({"results.test": [[]]})))


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certificates_for("results.test", tmp_path)


async def test_tls_verifies_the_name(
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, trusting = certificates
    names = Names({"results.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    hosts = {"results.test", "other.test"}
    async with result_host(server) as host:
        host.answers["/v.mp4"] = [Answer(CONTENT)]
        async with outbound_client(PublicTransport(hosts, names, trusting)) as client:
            assert (await client.get(host.url("/v.mp4", "results.test", "https"))).content == CONTENT
            # The same address again, by a name that the certificate does not hold.
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(host.url("/v.mp4", "other.test", "https"))
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await get(host.url("/v.mp4", "results.test", "https"), PublicTransport(hosts, names))


async def test_environment_is_not_used(host: ResultHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    assert (await get(host.url("/v.mp4"), PublicTransport(LOCAL))).status_code == 200
    assert not {"authorization", "cookie"} & host.requests[0].headers.keys()


async def test_no_query_is_logged(host: ResultHost, fetch: Fetch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    host.answers["/w.mp4"] = [Answer(CONTENT)]
    await fetch(redirect(host.url("/w.mp4?sig=SECRET")))
    assert "/w.mp4" in caplog.text
    assert "SECRET" not in caplog.text


# Downloads


async def test_odd_validator_is_not_sent_back(host: ResultHost, fetch: Fetch) -> None:
    odd = {"ETag": '"caf\xe9"'}
    await fetch(Answer(CONTENT, headers=odd, cut_after=9), Answer(CONTENT, headers=odd))
    assert "if-range" not in host.requests[1].headers


async def test_zipped_content_is_not_unzipped(host: ResultHost, fetch: Fetch) -> None:
    await fetch(Answer(gzip.compress(CONTENT), headers={"Content-Encoding": "gzip"}))
    assert fetch.path.read_bytes() == host.answers["/v.mp4"][0].body


async def test_download_is_byte_for_byte(host: ResultHost, fetch: Fetch) -> None:
    assert await fetch(Answer(CONTENT)) == CONTENT
    assert host.requests[0].headers["accept-encoding"] == "identity"
    assert "python-httpx" not in host.requests[0].headers["user-agent"], "some hosts refuse that"


async def test_broken_download_resumes_by_range(host: ResultHost, fetch: Fetch) -> None:
    whole = Answer(CONTENT, headers=etag("one"))
    cut = Answer(CONTENT, headers=etag("one"), cut_after=100_000)
    assert await fetch(cut, cut, whole) == CONTENT
    assert [request.headers.get("range") for request in host.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert [request.headers.get("if-range") for request in host.requests] == [None, '"one"', '"one"']


async def test_ignored_range_starts_over(fetch: Fetch) -> None:
    assert await fetch(Answer(CONTENT, cut_after=100_000), Answer(CONTENT, ranges=False)) == CONTENT


async def test_changed_content_is_not_mixed(fetch: Fetch) -> None:
    other = CONTENT[::-1]
    cut = Answer(CONTENT, headers=etag("one"), cut_after=100_000)
    assert await fetch(cut, Answer(other, headers=etag("two"))) == other


async def test_weak_validator_is_not_used(host: ResultHost, fetch: Fetch) -> None:
    changed = {"ETag": 'W/"one"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
    await fetch(Answer(CONTENT, headers=changed, cut_after=9), Answer(CONTENT, headers=changed))
    assert host.requests[1].headers["if-range"] == "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("cut_after", "says"),
    [
        (100_000, "bytes 5-9/10"),
        (100_000, f"bytes 99999-255999/{len(CONTENT)}"),
        (100_000, "bytes 100000-255999/256001"),
        (100_000, "?"),
        (9, f"bytes 9-{'9' * 5000}/{'9' * 5000}"),
    ],
    ids=["one too short", "one too early", "of another length", "none", "one without end"],
)
async def test_other_range_is_refused(fetch: Fetch, cut_after: int, says: str) -> None:
    with pytest.raises(DownloadFailed, match="another range"):
        await fetch(Answer(CONTENT, cut_after=cut_after), Answer(CONTENT, says_range=says))


async def test_part_of_rest_is_refused(fetch: Fetch) -> None:
    part = Answer(CONTENT[9:99], status=206, headers={"Content-Range": f"bytes 9-98/{len(CONTENT)}"})
    with pytest.raises(DownloadFailed, match="99 bytes; 256000 were announced"):
        await fetch(Answer(CONTENT, cut_after=9), part)


async def test_resumes_are_bounded(host: ResultHost, fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match="after 30 bytes"):
        await fetch(Answer(CONTENT, cut_after=10), resumes=2)
    assert len(host.requests) == 3


async def test_short_download_fails(fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match="broke"):
        await fetch(Answer(CONTENT, announced=len(CONTENT) + 1, ranges=False), resumes=1)


async def test_larger_download_is_refused(fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match="it has 256000 bytes; 255999 are allowed"):
        await fetch(Answer(CONTENT), max_bytes=len(CONTENT) - 1)
    assert fetch.path.stat().st_size == 0


def chunked(content: bytes) -> Answer:
    return Answer(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content), headers={"Transfer-Encoding": "chunked"})


async def test_unannounced_length_is_bounded(fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match="more than the 255999 bytes"):
        await fetch(chunked(CONTENT), max_bytes=len(CONTENT) - 1)
    assert await fetch(max_bytes=len(CONTENT)) == CONTENT


async def test_total_time_is_limited(fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match="longer than"):
        await fetch(Answer(CONTENT, cut_after=10), seconds=0.3, resumes=10**6)


async def test_refusal_has_status_and_answer(host: ResultHost, fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed) as refused:
        await fetch(Answer(b"<StringToSign>SECRET</StringToSign>", status=403))
    assert refused.value.status == 403
    assert "SECRET" in refused.value.answer
    assert "SECRET" not in str(refused.value)
    assert len(host.requests) == 1


async def test_forbidden_address_is_tried_once(fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1"):
        await fetch(url="https://127.0.0.1/v.mp4?sig=SECRET", transport=PublicTransport(), resumes=10**6)


class _BrokenTls(httpx.AsyncByteStream):
    """A body whose TLS breaks in the middle, which the library does not translate."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"half"
        raise ssl.SSLError(1, "record layer failure")


async def test_broken_tls_fails_the_download(fetch: Fetch) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=_BrokenTls()))
    with pytest.raises(DownloadFailed, match="it broke") as caught:
        await fetch(url="https://cdn.example.com/f.png", transport=transport, resumes=1)
    assert caught.value.passing


# Answers that are more work than their bytes


def in_pieces(*pieces: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def longest_pause(stop: asyncio.Event) -> float:
    """Return the longest time that the event loop was busy with something else, until it is told to stop."""
    longest = 0.0
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.002)
        longest = max(longest, time.perf_counter() - began)
    return longest


@pytest.mark.parametrize(
    ("answer", "repeats", "reason"),
    [
        (b"", b"HTTP/1.1 100 C\r\n\r\n" * 2000, "more than 262144 bytes came before the answer"),
        (in_pieces()[:-5], b"1\r\nx\r\n" * 5000, "it comes in pieces that are too small"),
    ],
    ids=["100 Continue for ever", "pieces of one byte"],
)
async def test_work_of_an_answer_is_bounded(fetch: Fetch, answer: bytes, repeats: bytes, reason: str) -> None:
    stop = asyncio.Event()
    pause = asyncio.create_task(longest_pause(stop))
    began = time.thread_time()
    async with raw_host() as host:
        host.answer, host.repeats = answer, repeats
        with pytest.raises(DownloadFailed, match=reason):
            await fetch(url=f"{host.url}/v.mp4", resumes=0, max_bytes=10**8, seconds=60)
    stop.set()
    assert time.thread_time() - began < 2, "seconds of the processor"
    assert await pause < 1
    assert host.repeated < 50_000_000, "the host was not read to its end"


async def test_small_pieces_of_a_small_file_are_read(fetch: Fetch) -> None:
    content = bytes(range(256)) * 20
    async with raw_host() as host:
        host.answer = in_pieces(*(bytes([byte]) for byte in content))
        assert await fetch(url=f"{host.url}/v.mp4", resumes=0) == content


async def test_broken_download_keeps_what_came(fetch: Fetch, host: ResultHost) -> None:
    """What is not written yet when the connection breaks is written before the rest is asked for."""
    whole = Answer(body=CONTENT)
    assert await fetch(Answer(body=CONTENT, cut_after=100), Answer(body=CONTENT, cut_after=70_001), whole) == CONTENT


async def test_silent_name_server_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    silence, real = threading.Event(), socket.getaddrinfo

    def lookup(host: str, *args: Any, **options: Any) -> Any:
        if host == "silent.example":
            silence.wait(60)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(outbound, "_CONNECT_SECONDS", 0.2)
    waiting = [asyncio.create_task(resolve_foreign("silent.example", 443)) for _ in range(50)]
    try:
        assert await asyncio.wait_for(resolve("127.0.0.1", 443), 5) == ["127.0.0.1"]
        assert await asyncio.to_thread(lambda: "files are written") == "files are written"
        for refused in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(refused, httpx.ConnectTimeout)
            assert "its name servers do not answer" in str(refused)
    finally:
        silence.set()
