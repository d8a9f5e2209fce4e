"""The environment's proxy: for the provider, the bucket and results, and never for what users name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.media.public_http import PublicTransport, download
from seedance_temporal.provider.ark import Ark
from seedance_temporal.proxies import proxy_for
from tests.support.fake_gcs import fake_gcs
from tests.support.forward_proxy import ForwardProxy, forward_proxy
from tests.support.jobs import BODY, KEY
from tests.support.raw_host import RawHost, serving
from tests.support.result_host import Answer, result_host
from tests.support.tls import certificates_for

CREATED = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"id": "cgt-1"}'
HOST = "ark.test"


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForwardProxy]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with forward_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield proxy


@pytest.mark.parametrize(
    ("given", "url", "expected"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "https://x.test/", "http://a:1"),
        ({"https_proxy": " http://a:1\n"}, "https://x.test/", "http://a:1"),
        ({"HTTPS_PROXY": "a:1"}, "https://x.test/", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1"}, "http://x.test/", None),
        ({"ALL_PROXY": "http://a:1"}, "https://x.test/", "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "test"}, "https://x.test/", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "*"}, "https://x.test/", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "y.test"}, "https://x.test/", "http://a:1"),
        ({"HTTPS_PROXY": ""}, "https://x.test/", None),
        ({}, "https://x.test/", None),
    ],
)
def test_variables_name_the_proxy(
    proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], url: str, expected: str | None
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


def test_unknown_kind_of_proxy_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:s3cret@127.0.0.1:1080")
    with pytest.raises(InvalidSettings, match="ALL_PROXY names a proxy of the kind socks5; give") as raised:
        Ark("https://ark.test", KEY)
    assert "s3cret" not in str(raised.value)


async def test_create_goes_through_proxy(proxy: ForwardProxy, raw: RawHost, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.answer = CREATED
    url = f"http://{HOST}:{raw.port}/api/v3"
    assert (await Ark(url, KEY).create(BODY)).task_id == "cgt-1"
    assert proxy.asked == [f"POST {url}/contents/generations/tasks HTTP/1.1"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert (await Ark(raw.url, KEY).create(BODY)).task_id == "cgt-1"
    assert len(proxy.asked) == 1


@pytest.mark.parametrize(("answer", "kind"), [(CREATED, "created"), (b"", "unknown")])
async def test_create_goes_through_tunnel(proxy: ForwardProxy, tmp_path: Path, answer: bytes, kind: str) -> None:
    server, trusting = certificates_for(HOST, tmp_path)
    host = RawHost(answer=answer)
    async with serving(host.serve, server) as port:
        client = Ark(
            f"https://{HOST}:{port}", KEY, transport=lambda: httpx.AsyncHTTPTransport(verify=trusting, proxy=proxy.url)
        )
        assert (await client.create(BODY)).kind == kind
    assert proxy.asked == [f"CONNECT {HOST}:{port} HTTP/1.1"]
    assert len(host.requests) == 1


REFUSALS = {
    "password": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    "unreachable": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"SSH-2.0-x\r\n",
    "no TLS behind it": b"HTTP/1.1 200 OK\r\n\r\nhello",
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_refused_tunnel_sends_no_create(proxy: ForwardProxy, refusal: bytes) -> None:
    """No byte of the paid request leaves before the tunnel stands: the job need not search for its task."""
    proxy.refuses = refusal
    answer = await Ark(f"https://{HOST}", KEY).create(BODY)
    assert (answer.kind, answer.code) == ("not_sent", "not_connected")
    assert len(proxy.asked) == 1


async def test_unreachable_proxy_sends_no_create(proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert (await Ark(f"https://{HOST}", KEY).create(BODY)).kind == "not_sent"


@pytest.mark.parametrize("proxied", [True, False], ids=["result", "reference"])
async def test_only_results_go_through_proxy(proxy: ForwardProxy, tmp_path: Path, proxied: bool) -> None:
    async with result_host() as host:
        host.answers["/v.mp4"] = [Answer(status=302, headers={"Location": "/w.mp4"})]
        host.answers["/w.mp4"] = [Answer(b"a video")]
        url, file = host.url("/v.mp4"), tmp_path / "v.mp4"
        transport = PublicTransport({"127.0.0.1"}, proxied=proxied)
        await download(transport, url, file, max_bytes=100, seconds=30, resumes=0)
    assert file.read_bytes() == b"a video"
    assert len(proxy.asked) == (2 if proxied else 0)


async def test_private_address_is_refused_before_proxy(proxy: ForwardProxy, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="public"):
        await download(
            PublicTransport(proxied=True), "https://10.0.0.1/v", tmp_path / "v", max_bytes=9, seconds=30, resumes=0
        )
    assert proxy.asked == []


async def test_bucket_is_reached_through_proxy(proxy: ForwardProxy) -> None:
    def write() -> bytes:
        with fake_gcs("videos") as client:
            blob = client.bucket("videos").blob("a")
            blob.upload_from_string(b"1")
            return bytes(blob.download_as_bytes())

    assert await asyncio.to_thread(write) == b"1"
    assert len(proxy.asked) >= 3
