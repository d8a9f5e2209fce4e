"""What is thought of other people's URLs."""

from __future__ import annotations

import pytest

from seedance_temporal.urls import https_problem, is_public_address, redacted


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_address(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "198.51.100.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_no_public_address(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/a.png?X-Goog-Signature=0a1b&x=%20#part",
        "HTTPS://CDN.EXAMPLE.COM:8443/a",
        "https://cdn.example.com./a",
        "https://xn--bcher-kva.example/ä",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://0xdead.example.com/",
        "https://4.example/",
    ],
)
def test_public_url(url: str) -> None:
    assert https_problem(url) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "not an https URL"),
        ("cdn.example.com/a", "not an https URL"),
        ("https:///a", "not an https URL"),
        ("https:cdn.example.com", "not an https URL"),
        ("ftp://cdn.example.com/a", "not an https URL"),
        ("file:///etc/passwd", "not an https URL"),
        ("javascript:alert(1)", "not an https URL"),
        ("http://cdn.example.com/a", "plain http"),
        ("https://user@cdn.example.com/a", "user name"),
        ("https://user:hush@cdn.example.com/a", "user name"),
        ("https://@cdn.example.com/a", "user name"),
        ("https://cdn.example.com:hush/a", "not a URL"),
        ("https://cdn.example.com:99999/a", "not a URL"),
        ("https://[::1/a", "not a URL"),
        (" https://cdn.example.com/a", "space"),
        ("https://cdn.example.com/a b", "space"),
        ("https://cdn.exam\nple.com/a", "control character"),
        ("https://cdn.example.com/\x00", "control character"),
        ("https://cdn.example.com/\u3000", "space"),
        ("https://127.0.0.1\\.example.com/a", "backslash"),
        ("https://localhost/a", "public host"),
        ("https://localhost./a", "public host"),
        ("https://intranet/a", "public host"),
        ("https://a.localhost/", "public host"),
        ("https://printer.local/", "public host"),
        ("https://printer.local./", "public host"),
        ("https://metadata.google.internal/", "public host"),
        ("https://METADATA.google.INTERNAL./", "public host"),
        ("https://127.0.0.1/a", "public host"),
        ("https://169.254.169.254/latest/meta-data", "public host"),
        ("https://[::1]/a", "public host"),
        ("https://[::ffff:10.0.0.1]/a", "public host"),
        ("https://127.1/a", "public host"),
        ("https://2130706433/a", "public host"),
        ("https://0x7f.0.0.0x1/a", "public host"),
        ("https://0177.0.0.01/a", "public host"),
        ("https://127.0.0.1./a", "public host"),
        ("https://１２７.0.0.1/a", "public host"),
        ("https://ⓛocalhost.example/a", "public host"),
    ],
)
def test_no_public_url(url: str, says: str) -> None:
    problem = https_problem(url)
    assert problem is not None
    assert says in problem
    assert "hush" not in problem


def test_an_insecure_host_is_spared_what_concerns_the_host() -> None:
    hosts = {"localhost", "10.0.0.1", "::1"}
    for url in ("http://localhost:8080/a", "https://LOCALHOST/a", "http://10.0.0.1/a", "http://[::1]:80/a"):
        assert https_problem(url, hosts) is None
    for url in ("http://localhost.example.com/a", "http://10.0.0.2/a", "ftp://localhost/a", "http://a@localhost/a"):
        assert https_problem(url, hosts)


def test_redacted() -> None:
    token = "0123456789abcdef" * 4
    text = (
        f"GET https://cdn.example.com/a.png?sig=hush&x=1#hush failed, see 'http://x.example/b?hush', "
        f"https://relay.example.com/callbacks/seedance-ab/1/{token} and key-hush"
    )
    assert redacted(text, ["key-hush"]) == (
        "GET https://cdn.example.com/a.png failed, see 'http://x.example/b', "
        "https://relay.example.com/callbacks/seedance-ab/1/*** and ***"
    )


def test_redacted_leaves_all_else() -> None:
    text = f"task cgt-1 of seedance-{'a' * 64}: gs://bucket/a.png#12, why? https://cdn.example.com/a"
    assert redacted(text) == text
