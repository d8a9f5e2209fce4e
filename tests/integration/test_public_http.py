"""Requests to addresses that others name: where they may go, and how a download comes to its end."""

from __future__ import annotations

import datetime
import gzip
import resource
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seedance_temporal.media import public_http as outbound
from seedance_temporal.media.public_http import (
    DownloadFailed,
    ForbiddenAddress,
    PublicTransport,
    download,
    outbound_client,
    resolve,
)
from tests.support.raw_host import raw_host
from tests.support.result_host import Answer, ResultHost, result_host

LOCAL = {"127.0.0.1"}
CONTENT = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_RESUME_PAUSE_SECONDS", 0)


class Names:
    """A resolver that answers from a table, and counts; several answers are given in turn."""

    def __init__(self, **table: list[list[str]]) -> None:
        self.table = {name.replace("_", "."): answers for name, answers in table.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.table.get(host, [[host]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def get(url: str, transport: PublicTransport) -> httpx.Response:
    """One request; redirects are the download's."""
    async with outbound_client(transport) as client:
        return await client.get(url)


async def fetch_by(transport: PublicTransport, url: str, path: Path, *, resumes: int = 0, seconds: float = 10) -> bytes:
    await download(transport, url, path / "v.mp4", max_bytes=10**6, seconds=seconds, resumes=resumes)
    return (path / "v.mp4").read_bytes()


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
    names = Names(private_test=[["192.168.1.1"]], half_test=[["8.8.8.8", "10.0.0.1"]], results_test=[["8.8.8.8"]])
    with pytest.raises((ForbiddenAddress, httpx.UnsupportedProtocol)) as refused:
        await get(f"{url}?sig=SECRET", PublicTransport(resolver=names))
    assert "SECRET" not in str(refused.value)


async def test_short_forms_of_private_address_are_refused() -> None:
    with pytest.raises(ForbiddenAddress):
        await get("https://127.1/v.mp4", PublicTransport())


async def test_an_insecure_host_may_be_plain_and_private(host: ResultHost) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    response = await get(
        host.url("/v.mp4", "results.test"), PublicTransport({"results.test"}, Names(results_test=[["127.0.0.1"]]))
    )

    assert response.content == CONTENT
    assert host.requests[0].headers["host"] == f"results.test:{host.port}"


async def test_a_redirect_to_a_private_address_is_refused(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(status=302, headers={"Location": host.url("/inside?sig=SECRET")})]
    transport = PublicTransport({"results.test"}, Names(results_test=[["127.0.0.1"]]))
    with pytest.raises(DownloadFailed, match="is plain http") as refused:
        await fetch_by(transport, host.url("/v.mp4", "results.test"), tmp_path)
    assert "SECRET" not in str(refused.value)
    assert not host.asked("/inside")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_relative_redirect_keeps_the_name(host: ResultHost, tmp_path: Path, status: int) -> None:
    host.answers["/a/v.mp4"] = [Answer(status=status, headers={"Location": "../real.mp4?x=1"})]
    host.answers["/real.mp4"] = [Answer(CONTENT)]
    transport = PublicTransport({"results.test"}, Names(results_test=[["127.0.0.1"]]))

    assert await fetch_by(transport, host.url("/a/v.mp4", "results.test"), tmp_path) == CONTENT
    assert host.asked("/real.mp4")[0].headers["host"] == f"results.test:{host.port}"
    assert host.asked("/real.mp4")[0].target == "/real.mp4?x=1"


async def test_redirects_are_few(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(status=302, headers={"Location": "/v.mp4"})]
    with pytest.raises(DownloadFailed, match="more than 5 times"):
        await fetch_by(PublicTransport(LOCAL), host.url("/v.mp4"), tmp_path, resumes=4)
    assert len(host.requests) == 6


async def test_redirect_body_is_not_read(tmp_path: Path) -> None:
    async with raw_host() as host:
        host.answers(302, "", f"Location: {host.url}", "Content-Encoding: gzip", "Transfer-Encoding: chunked")
        host.answer = host.answer.replace(b"Content-Length: 0\r\n", b"")
        bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)
        host.repeats = b"%x\r\n%b\r\n" % (len(bomb), bomb)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DownloadFailed, match="more than 5 times"):
            await fetch_by(PublicTransport(LOCAL), host.url, tmp_path)
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
async def test_redirect_to_nowhere_is_a_failed_download(
    host: ResultHost, tmp_path: Path, location: str, says: str
) -> None:
    host.answers["/v.mp4"] = [Answer(status=302, headers={"Location": location})]
    with pytest.raises(DownloadFailed, match=says) as refused:
        await fetch_by(PublicTransport(LOCAL), host.url("/v.mp4"), tmp_path, resumes=4)
    assert "SECRET" not in str(refused.value)
    assert len(str(refused.value)) <= 300
    assert len(host.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1/\ud800", "http://[", "http://127.0.0.1:port/", "http://\n/", ""])
async def test_address_that_is_none_is_a_failed_download(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadFailed):
        await fetch_by(PublicTransport(LOCAL), url, tmp_path)


async def test_a_name_that_changes_gains_nothing(
    host: ResultHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is looked up once for each request, and the address of that look-up is where it connects."""
    names = Names(results_test=[["203.0.113.7"], ["127.0.0.1"]])
    monkeypatch.setattr(outbound, "is_public_address", lambda address: address == "203.0.113.7")
    went_to: list[str] = []

    async def connect(self: object, request: httpx.Request) -> httpx.Response:
        went_to.append(request.url.host)
        assert request.headers["host"] == "results.test"
        assert request.extensions["sni_hostname"] == "results.test"
        return httpx.Response(302, headers={"Location": "https://results.test/again"})

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", connect)
    with pytest.raises(DownloadFailed, match="not public"):
        await fetch_by(PublicTransport(resolver=names), "https://results.test/v.mp4", tmp_path)
    assert went_to == ["203.0.113.7"]
    assert names.asked == ["results.test", "results.test"]


async def test_next_address_is_tried_after_no_answer(host: ResultHost) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    names = Names(results_test=[["127.0.0.2", "127.0.0.1"]])
    assert (await get(host.url("/v.mp4", "results.test"), PublicTransport({"results.test"}, names))).status_code == 200


async def test_name_without_address_fails_connection() -> None:
    with pytest.raises(httpx.ConnectError):
        await resolve("nothing.invalid", 443)
    with pytest.raises(httpx.ConnectError):
        await get("https://results.test/", PublicTransport(resolver=Names(results_test=[[]])))


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side and a client's side; the certificate is for results.test alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "results.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("results.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "host.pem").write_bytes(certificate + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "host.pem")
    return server, ssl.create_default_context(cadata=certificate.decode())


async def test_tls_verifies_the_name(
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, trusting = certificates
    names = Names(results_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
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


async def test_nothing_of_the_environment_goes_along(host: ResultHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    assert (await get(host.url("/v.mp4"), PublicTransport(LOCAL))).status_code == 200
    assert not {"authorization", "cookie"} & host.requests[0].headers.keys()


async def test_no_query_is_logged(host: ResultHost, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    host.answers["/v.mp4"] = [Answer(status=302, headers={"Location": host.url("/w.mp4?sig=SECRET")})]
    host.answers["/w.mp4"] = [Answer(CONTENT)]
    await fetch_by(PublicTransport(LOCAL), host.url("/v.mp4?sig=SECRET"), tmp_path)
    assert "/w.mp4" in caplog.text
    assert "SECRET" not in caplog.text


# Downloads


async def test_odd_validator_is_not_sent_back(host: ResultHost, tmp_path: Path) -> None:
    odd = {"ETag": '"caf\xe9"'}
    host.answers["/v.mp4"] = [Answer(CONTENT, headers=odd, cut_after=9), Answer(CONTENT, headers=odd)]
    await fetch(host, tmp_path / "v.mp4")
    assert "if-range" not in host.requests[1].headers


async def test_endless_content_range_is_refused(host: ResultHost, tmp_path: Path) -> None:
    says = f"bytes 9-{'9' * 5000}/{'9' * 5000}"
    host.answers["/v.mp4"] = [Answer(CONTENT, cut_after=9), Answer(CONTENT, says_range=says)]
    with pytest.raises(DownloadFailed, match="another range"):
        await fetch(host, tmp_path / "v.mp4")


async def test_zipped_content_is_kept_as_it_came(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(gzip.compress(CONTENT), headers={"Content-Encoding": "gzip"})]
    await fetch(host, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == host.answers["/v.mp4"][0].body


async def fetch(host: ResultHost, path: Path, *, max_bytes: int = 10**6, seconds: float = 10, resumes: int = 4) -> None:
    url = host.url("/v.mp4?sig=SECRET")
    await download(PublicTransport(LOCAL), url, path, max_bytes=max_bytes, seconds=seconds, resumes=resumes)


async def test_a_download_is_byte_for_byte(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    await fetch(host, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT
    assert host.requests[0].headers["accept-encoding"] == "identity"


async def test_a_broken_download_goes_on_by_range(host: ResultHost, tmp_path: Path) -> None:
    whole = Answer(CONTENT, headers={"ETag": '"one"'})
    cut = Answer(CONTENT, headers={"ETag": '"one"'}, cut_after=100_000)
    host.answers["/v.mp4"] = [cut, cut, whole]
    await fetch(host, tmp_path / "v.mp4")

    assert (tmp_path / "v.mp4").read_bytes() == CONTENT
    assert [request.headers.get("range") for request in host.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert [request.headers.get("if-range") for request in host.requests] == [None, '"one"', '"one"']


async def test_a_host_that_ignores_range_starts_over(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT, cut_after=100_000), Answer(CONTENT, ranges=False)]
    await fetch(host, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT


async def test_content_that_changed_meanwhile_is_not_mixed(host: ResultHost, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    host.answers["/v.mp4"] = [
        Answer(CONTENT, headers={"ETag": '"one"'}, cut_after=100_000),
        Answer(other, headers={"ETag": '"two"'}),
    ]
    await fetch(host, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == other


async def test_a_weak_validator_is_not_relied_on(host: ResultHost, tmp_path: Path) -> None:
    changed = {"ETag": 'W/"one"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
    host.answers["/v.mp4"] = [Answer(CONTENT, headers=changed, cut_after=9), Answer(CONTENT, headers=changed)]
    await fetch(host, tmp_path / "v.mp4")
    assert host.requests[1].headers["if-range"] == "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    "says", ["bytes 5-9/10", f"bytes 99999-255999/{len(CONTENT)}", "bytes 100000-255999/256001", "?"]
)
async def test_another_range_than_asked_for_is_refused(host: ResultHost, tmp_path: Path, says: str) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT, cut_after=100_000), Answer(CONTENT, says_range=says)]
    with pytest.raises(DownloadFailed, match="another range"):
        await fetch(host, tmp_path / "v.mp4")


async def test_part_of_rest_is_refused(host: ResultHost, tmp_path: Path) -> None:
    part = Answer(CONTENT[9:99], status=206, headers={"Content-Range": f"bytes 9-98/{len(CONTENT)}"})
    host.answers["/v.mp4"] = [Answer(CONTENT, cut_after=9), part]
    with pytest.raises(DownloadFailed, match="99 bytes; 256000 were announced"):
        await fetch(host, tmp_path / "v.mp4")


async def test_resumes_are_bounded(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT, cut_after=10)]
    with pytest.raises(DownloadFailed, match="after 30 bytes"):
        await fetch(host, tmp_path / "v.mp4", resumes=2)
    assert len(host.requests) == 3


async def test_less_than_announced_is_no_whole_download(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT, announced=len(CONTENT) + 1, ranges=False)]
    with pytest.raises(DownloadFailed, match="broke"):
        await fetch(host, tmp_path / "v.mp4", resumes=1)


async def test_more_than_is_allowed_is_refused(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT)]
    with pytest.raises(DownloadFailed, match="it has 256000 bytes; 255999 are allowed"):
        await fetch(host, tmp_path / "v.mp4", max_bytes=len(CONTENT) - 1)
    assert (tmp_path / "v.mp4").stat().st_size == 0


def chunked(content: bytes) -> Answer:
    return Answer(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content), headers={"Transfer-Encoding": "chunked"})


async def test_unannounced_length_is_bounded(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [chunked(CONTENT)]
    with pytest.raises(DownloadFailed, match="more than the 255999 bytes"):
        await fetch(host, tmp_path / "v.mp4", max_bytes=len(CONTENT) - 1)
    await fetch(host, tmp_path / "v.mp4", max_bytes=len(CONTENT))
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT


async def test_the_time_is_limited_in_total(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(CONTENT, cut_after=10)]
    with pytest.raises(DownloadFailed, match="longer than"):
        await fetch(host, tmp_path / "v.mp4", seconds=0.3, resumes=10**6)


async def test_refusal_has_status_and_answer(host: ResultHost, tmp_path: Path) -> None:
    host.answers["/v.mp4"] = [Answer(b"<StringToSign>SECRET</StringToSign>", status=403)]
    with pytest.raises(DownloadFailed) as refused:
        await fetch(host, tmp_path / "v.mp4")
    assert refused.value.status == 403
    assert "SECRET" in refused.value.answer
    assert "SECRET" not in str(refused.value)
    assert len(host.requests) == 1


async def test_a_forbidden_address_is_asked_once(tmp_path: Path) -> None:
    url = "https://127.0.0.1/v.mp4?sig=SECRET"
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1"):
        await download(PublicTransport(), url, tmp_path / "v.mp4", max_bytes=1, seconds=5, resumes=10**6)


class _BrokenTls(httpx.AsyncByteStream):
    """A body whose TLS breaks in the middle, which the library does not translate."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"half"
        raise ssl.SSLError(1, "record layer failure")


async def test_broken_tls_fails_the_download(tmp_path: Path) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=_BrokenTls()))
    url = "https://cdn.example.com/f.png"
    with pytest.raises(DownloadFailed, match="it broke") as caught:
        await download(transport, url, tmp_path / "f.png", max_bytes=1000, seconds=10, resumes=1)
    assert caught.value.passing
