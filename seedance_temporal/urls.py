"""Rules for URLs that others name: which may be reached, and which parts of them may be logged and stored."""

from __future__ import annotations

import html
import ipaddress
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import product
from urllib.parse import quote, quote_plus, urlsplit

_TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# These patterns search texts of others, so none may read a part of a text twice: they are possessive, and match
# always once they have read on.
# A URL of any scheme, also with its slashes escaped as JSON may. A generation follows the # of gs://.
_URL = re.compile(r"(?<!\bgs)(:\\?/\\?/)([^\s\"'<>?#]++)(?:[?#][^\s\"'<>]*+)?")
_ENCODED_URL = re.compile(r"(%3A%2F%2F(?:(?!%3F|%23)[^\s\"'<>])*+)[^\s\"'<>]*+", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"\b((?:x-(?:goog|amz|tos)-)?(?:signature|credential|security-token)|sig)"
    r"([\"']?+\s*+(?:[=:]|%3D|%253D)\s*+[\"']?+)[^\s\"'<>&]++",
    re.IGNORECASE,
)
_SLASH = r"(?:\\?/|%2F)"
_CALLBACK_TOKEN = re.compile(
    rf"({_SLASH}callbacks{_SLASH}[^/\s\\%]++{_SLASH}\d++{_SLASH})[0-9a-f]{{16,}}+", re.IGNORECASE
)
# Where a text was cut before its "@", this may be half a password.
_AUTHORITY_AT_THE_END = re.compile(r"(:\\?/\\?/)[^\s\"'<>?#/]*+\Z")
# Bytes of a secret that is searched for in hex and Base64, too.
_LEAST_ENCODED = 8
_PERCENT = re.compile(r"%[0-9A-F]{2}")
# The most characters that are searched in a text that is cut.
_SEARCHED = 64 * 1024


def one_line(text: str) -> str:
    """Write a text on one line: each row of white space, line feeds among it, becomes one space.

    Characters that turn the direction of writing are escaped: with them, the words around a text show in another order.
    """
    return _TURNS.sub(lambda turn: turn[0].encode("unicode_escape").decode(), " ".join(text.split()))


def printable(text: str, keep: str = "") -> str:
    """Escape characters that do not print, except those to keep: they could steer a terminal, or forge a log line."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def is_public_address(address: str) -> bool:
    """Return whether an IP address, as text, is public. IPv6 forms of IPv4 addresses count as the latter."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or nat64 or ip
    # Python counts some reserved and deprecated ranges as global: ::127.0.0.1 and fec0::1 among them.
    odd = ip.is_multicast or ip.is_reserved or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    return ip.is_global and not odd


def https_problem(url: str, insecure_hosts: Collection[str] = ()) -> str | None:
    """Return why a URL is not a public https one, without asking DNS, or None if it is one.

    The answer holds no part of the URL, which may hold secrets. Plain http and private addresses are allowed for
    insecure hosts, which are in lower case.
    """
    if not url.isprintable() or " " in url or "\\" in url:
        return "holds a space, a backslash or a control character"  # parsers disagree on what these mean
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not host or parts.scheme not in {"http", "https"}:
        return "is not an https URL"
    if parts.username is not None or parts.password is not None:
        return "carries a user name or password"
    if host in insecure_hosts:
        return None
    if parts.scheme != "https":
        return "is plain http; https is needed"
    return None if _is_public_host(host) else "does not name a public host"


def _is_public_host(host: str) -> bool:
    """Return whether a host name or address is a public one, without asking DNS."""
    try:
        return is_public_address(host)
    except ValueError:
        *parents, last = host.rstrip(".").split(".")
    # Clients read 127.1 and 0x7f.0.0.1 as addresses, and fold letters outside of ASCII into others: xn-- is needed.
    is_number = last.isdigit() or last.startswith("0x")
    return bool(parents) and host.isascii() and not is_number and last not in {"localhost", "local", "internal"}


def redacted(text: str, secrets: Iterable[str] = (), limit: int | None = None) -> str:
    """Return a text without secrets, so that it can be logged and stored.

    It loses the queries of URLs, which hold signatures, the names and passwords in URLs, the tokens of callback URLs,
    the given secrets, and half surrogate pairs, which JSON can hold and UTF-8 cannot. The time is proportional to the
    length of the text.

    Args:
        secrets: They are found where they are quoted or escaped, too, as in Python, JSON or a URL.
        limit: The most characters of the answer. The text may then be of any length: only its beginning is searched.
    """
    forms = _longest_first(tuple(secrets))
    if limit is not None and len(text) > max(_SEARCHED, limit):
        text = _beginning(text, max(_SEARCHED, limit), forms)
    for form in forms:
        text = text.replace(form, "***")
    text = _ENCODED_URL.sub(r"\1", _URL.sub(_bare, text))
    text = _CALLBACK_TOKEN.sub(r"\1***", _SIGNATURE.sub(r"\1\2***", text))
    return text[:limit].encode(errors="replace").decode()


def _bare(url: re.Match[str]) -> str:
    """Return a URL without query, fragment, and the name and password before its host."""
    authority, slash, path = url[2].partition("/")
    before, at, host = authority.rpartition("@")
    return f"{url[1]}***@{host}{slash}{path}" if at and before else f"{url[1]}{url[2]}"


def _beginning(text: str, length: int, forms: Iterable[str]) -> str:
    """Return the beginning of a text, without the part of a secret that the cut leaves: no search finds half of one."""
    across_the_cut = (text.find(form, max(0, length - len(form) + 1), length + len(form) - 1) for form in forms)
    cut = min([length, *(start for start in across_the_cut if start >= 0)])
    return _AUTHORITY_AT_THE_END.sub(r"\1", text[:cut])


@lru_cache(maxsize=16)
def _longest_first(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return all forms of secrets. One can be in another, which must go first."""
    return tuple(sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True))


@lru_cache(maxsize=16)
def _forms(secret: str) -> frozenset[str]:
    """Return the forms in which a secret can appear in other texts. White space around it is not part of it."""
    secret = secret.strip()
    encoded = secret.encode(errors="surrogatepass")
    quoted = {quote(encoded, safe=""), quote(encoded), quote_plus(encoded)}
    quoted |= {quote(form, safe="") for form in quoted}
    quoted |= {_PERCENT.sub(lambda part: part[0].lower(), form) for form in quoted}
    escaped = {"".join(repr(letter)[1:-1] for letter in secret), secret.replace("/", "\\/")}
    escaped |= {"".join(repr(bytes([byte]))[2:-1] for byte in encoded)}
    escaped |= {json.dumps(secret, ensure_ascii=ascii_alone)[1:-1] for ascii_alone in (True, False)}
    # Whether Python escapes this depends on the rest of the text.
    escaped |= {form.replace("'", "\\'") for form in escaped}
    # A text that was quoted is often quoted once more.
    twice = {form.replace("\\", "\\\\") for form in escaped}
    escaped |= twice | {form.replace(mark, f"\\{mark}") for form in twice for mark in "'\""}
    # As languages write HTML, and JSON that goes into a page.
    in_pages = {html.escape(secret), html.escape(secret, quote=False)}
    for ascii_alone, letters in product((True, False), ("&<>", "&<>'")):
        as_json = json.dumps(secret, ensure_ascii=ascii_alone)[1:-1]
        in_pages.add(as_json.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in letters}))
    return frozenset({secret} | quoted | escaped | in_pages | _encodings(encoded)) - {""}


def _encodings(secret: bytes) -> set[str]:
    """Return a secret in hex, and as a part of texts in Base64; nothing for one so short that others look like it."""
    if len(secret) < _LEAST_ENCODED:
        return set()
    encodings = {secret.hex(), secret.hex().upper()}
    for before in range(3):
        # Of three bytes come four letters: those that hold bits of the neighbours are left out.
        letters = slice(-(-before * 8 // 6), (before + len(secret)) * 8 // 6)
        text = bytes(before) + secret
        encodings |= {b64encode(text).decode()[letters], urlsafe_b64encode(text).decode()[letters]}
    return encodings
