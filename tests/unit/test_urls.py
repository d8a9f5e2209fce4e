"""Which URLs and addresses are accepted, and how text with URLs and secrets is redacted."""

from __future__ import annotations

import html
import json
import re
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seedance_temporal.urls import https_problem, is_public_address, redacted

PRIVATE = """
0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.168.1.1 198.51.100.1 224.0.0.1 240.0.0.1
255.255.255.255
:: ::1 2001:db8::1 fc00::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1
::127.0.0.1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe 64:ff9b::7f00:1 64:ff9b::10.0.0.1 2002:7f00:1::
"""


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_address(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize("address", PRIVATE.split())
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


NO_PUBLIC_URLS = {
    "not an https URL": [
        *("", "cdn.example.com/a", "https:///a", "https:cdn.example.com", "ftp://cdn.example.com/a"),
        *("file:///etc/passwd", "javascript:alert(1)"),
    ],
    "plain http": ["http://cdn.example.com/a"],
    "user name": [
        "https://user@cdn.example.com/a",
        "https://user:hush@cdn.example.com/a",
        "https://@cdn.example.com/a",
    ],
    "not a URL": ["https://cdn.example.com:hush/a", "https://cdn.example.com:99999/a", "https://[::1/a"],
    "space": [" https://cdn.example.com/a", "https://cdn.example.com/a b", "https://cdn.example.com/\u3000"],
    "control character": ["https://cdn.exam\nple.com/a", "https://cdn.example.com/\x00"],
    "backslash": ["https://127.0.0.1\\.example.com/a"],
    "public host": [
        *("https://localhost/a", "https://localhost./a", "https://intranet/a", "https://a.localhost/"),
        *("https://printer.local/", "https://printer.local./", "https://metadata.google.internal/"),
        *("https://METADATA.google.INTERNAL./", "https://127.0.0.1/a", "https://169.254.169.254/latest/meta-data"),
        *("https://[::1]/a", "https://[::ffff:10.0.0.1]/a", "https://127.1/a", "https://2130706433/a"),
        *("https://0x7f.0.0.0x1/a", "https://0177.0.0.01/a", "https://127.0.0.1./a", "https://１２７.0.0.1/a"),
        "https://ⓛocalhost.example/a",
    ],
}


@pytest.mark.parametrize(("url", "says"), [(url, says) for says, urls in NO_PUBLIC_URLS.items() for url in urls])
def test_no_public_url(url: str, says: str) -> None:
    problem = https_problem(url)
    assert problem is not None
    assert says in problem
    assert "hush" not in problem


def test_insecure_host_skips_host_checks() -> None:
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


def test_redaction_leaves_other_text() -> None:
    text = f"task cgt-1 of seedance-{'a' * 64}: gs://bucket/a.png#12, why? https://cdn.example.com/a"
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPS://cdn.example.com/a?sig=hush", "HTTPS://cdn.example.com/a"),
        ("tos://bucket/a?X-Tos-Signature=hush&x=1 next", "tos://bucket/a next"),
        ("https://user:hush@cdn.example.com/a@2x.png", "https://***@cdn.example.com/a@2x.png"),
        ("postgres://user:hu%sh@db/x", "postgres://***@db/x"),
        (r'"https:\/\/cdn.example.com\/a?sig=hush\u0026x=1"', r'"https:\/\/cdn.example.com\/a"'),
        ("at https%3A%2F%2Fcdn.example.com%2Fa%3Fsig%3Dhush, no", "at https%3A%2F%2Fcdn.example.com%2Fa no"),
        (
            "cdn.example.com/a?X-Goog-Credential=hush&X-Goog-Signature=hush",
            "cdn.example.com/a?X-Goog-Credential=***&X-Goog-Signature=***",
        ),
        ('X-Tos-Security-Token: hush, "Signature": "hush"', 'X-Tos-Security-Token: *** "Signature": "***"'),
        ("X-Tos-Signature%253Dhush", "X-Tos-Signature%253D***"),
        ("x-amz-security-token=hush and Signature%3Dhush", "x-amz-security-token=*** and Signature%3D***"),
        (f"/callbacks/seedance-ab/12/{'0a' * 32}/more", "/callbacks/seedance-ab/12/***/more"),
        (rf"\/callbacks\/seedance-ab\/1\/{'0a' * 32}", r"\/callbacks\/seedance-ab\/1\/***"),
        (f"%2fcallbacks%2Fseedance-ab%2F1%2F{'0A' * 32}", "%2fcallbacks%2Fseedance-ab%2F1%2F***"),
    ],
)
def test_secrets_in_urls_are_redacted(text: str, expected: str) -> None:
    assert redacted(text) == expected


WORDS = st.sampled_from(
    ["task", "cgt-1", "a/b", "why?", "50%", "x@y.example", "(gs://b/a.png#12)", "C:\\x", "한국", "#3"]
)
HTTP_URLS = st.builds(
    "{}://cdn.example.com{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["", ":8443", "/a", "/a%20b/@2x.png"]),
    st.sampled_from(["", "?", "?sig=hush&x=https://y.example/", "#part", "?a#b"]),
    st.sampled_from(["", "'", '"', ">", "\n"]),
)


@given(st.lists(WORDS | HTTP_URLS).map(" ".join))
def test_redaction_of_usual_texts_is_stable(text: str) -> None:
    assert redacted(text) == re.sub(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*", r"\1", text)
    assert redacted(text, limit=200) == redacted(text)[:200]


def _in_page(text: str, letters: str) -> str:
    """Escape letters as languages do in JSON that goes into a page."""
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in letters})


QUOTES = "\"'b"
QUOTINGS: list[Callable[[str], str]] = [
    str,
    repr,
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: repr(text.encode()),
    lambda text: repr(repr(text)),
    quote,
    lambda text: quote(text, safe=""),
    lambda text: quote(text, safe="").lower(),
    quote_plus,
    lambda text: text.replace("/", "\\/"),
    lambda text: quote(quote(text, safe=""), safe=""),
    html.escape,
    lambda text: _in_page(json.dumps(text), "&<>"),
    lambda text: _in_page(json.dumps(text, ensure_ascii=False), "&<>'"),
    lambda text: f"Bearer {text}".encode().hex(),
    lambda text: b64encode(f"Bearer {text}".encode()).decode(),
    lambda text: b64encode(f"a{text}".encode()).decode(),
    lambda text: urlsafe_b64encode(f"ab{text}".encode()).decode(),
    lambda text: repr(httpx.LocalProtocolError(f"Illegal header value {f'Bearer {text}'.encode()!r}")),
]


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["C", "Z"]), min_size=8),
    around=st.sampled_from(["", "\n", " ", "\r\n"]),
    quoting=st.sampled_from(QUOTINGS),
)
def test_quoted_secret_is_redacted(secret: str, around: str, quoting: Callable[[str], str]) -> None:
    secret = secret.lower() if quoting("/") == "%2f" else secret
    written = redacted(f"<{quoting(f'{secret}{around}')}>", [secret])
    assert "***" in written
    assert secret not in written
    assert quoting(secret).strip(QUOTES) not in written


def test_empty_secret_redacts_nothing() -> None:
    assert redacted("a b", ["", " \n"]) == "a b"


SEARCHED = 64 * 1024


@pytest.mark.parametrize("secret", ["hush-" + "0123456789" * 4, "with spaces / and ? a # in it"])
@pytest.mark.parametrize("gone", [0, 60_000])
def test_cut_leaves_no_half_secret(secret: str, gone: int) -> None:
    query = f"https://cdn.example.com/?{'x' * gone} "
    for shift in range(len(secret) + 2):
        text = f"{query}{'y ' * SEARCHED}"[: SEARCHED - shift] + secret + " z" * 1000
        shown = redacted(text, [secret], limit=SEARCHED)
        assert not any(secret[:length] in shown for length in range(4, len(secret) + 1))


@pytest.mark.parametrize("shift", range(0, 60, 7))
def test_cut_leaves_no_half_password_or_token(shift: int) -> None:
    for tail in ("https://user:0123456789abcdef0123456789@x.example/", f"/callbacks/s/1/{'0123456789abcdef' * 4} "):
        text = ("y " * SEARCHED)[: SEARCHED - shift] + tail + " z" * 1000
        assert "0123456789abcdef0" not in redacted(text, limit=SEARCHED)
        assert "user:0" not in redacted(text, limit=SEARCHED)


PIECES = [
    *("http://", "https://x?", "://", ":", "/", "?", "#", "@", "a:b@", ":\\/\\/", "\\", "'", " ", "\n", "%", "gs"),
    *("%3A%2F%2F", "%3F", "/callbacks/a/1/", "/callbacks/", "%2Fcallbacks%2Fa%2F1%2F", "callbacks/1/1/", "0", "a"),
    *("a.", "sig=", "signature", "x-goog-", "X-Goog-Signature=", "hus", "hush", "hush" * 7, "gs://", "gs://a?"),
    *("\u0130", "\u017fig="),
]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join), st.sampled_from(["", "hush", "?", "@"]))
@settings(max_examples=60)
@example("http://", "")
@example("://", "@")
@example("/callbacks/", "")
@example("hus", "hush")
def test_redaction_takes_linear_time(piece: str, end: str) -> None:
    text = piece * (300_000 // len(piece)) + end
    began = time.process_time()
    redacted(text, ["hush" * 8])
    redacted(text, ["hush" * 8], limit=1000)
    assert time.process_time() - began < 3, "300 kB; what is quadratic takes minutes"
