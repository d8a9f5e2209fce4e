"""Odd answers: too long, zipped, full of content that no history can hold, or with secrets in them."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedance_temporal.provider import answers
from seedance_temporal.provider.ark import Ark, ArkError, NoAnswer
from seedance_temporal.provider.create_answer import CreateAnswer
from seedance_temporal.provider.task import parse_task
from tests.support.jobs import BODY, KEY, present
from tests.support.raw_host import RawHost, serving
from workers.log_format import RedactingFormatter

TOO_LONG = answers.MOST_BYTES + 1
QUESTIONS: dict[str, Callable[[Ark], Awaitable[Any]]] = {
    "get": lambda client: client.get("cgt-1"),
    "list": lambda client: client.list(1, 10),
    "delete": lambda client: client.delete("cgt-1"),
}
TASK = '{"id": "cgt-1", "status": "queued"'


def through(exchange: Callable[[httpx.Request], httpx.Response], key: str = KEY) -> Ark:
    return Ark("http://ark.test", key, (), lambda: httpx.MockTransport(exchange), list_spacing=0)


# --- requests that were never sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}\r\nX: y", f"{KEY}\x00", f"{KEY}é", f"{KEY}\ud800"])
async def test_invalid_key_is_not_sent_or_shown(raw: RawHost, key: str) -> None:
    client = Ark(raw.url, key)
    answer = await client.create(BODY)
    assert (answer.kind, answer.code, answer.attention) == ("not_sent", "cannot_send", "credentials")
    assert "connection" not in answer.message
    assert KEY not in repr(answer)
    for ask in QUESTIONS.values():
        with pytest.raises(NoAnswer) as caught:
            await ask(client)
        assert KEY not in f"{caught.value!r} {caught.value}"
    assert raw.requests == []


@pytest.mark.parametrize("body", [{"prompt": "\ud800"}, {"duration": float("nan")}, {"more": object()}])
async def test_unbuildable_body_is_not_sent(raw: RawHost, client: Ark, body: dict[str, Any]) -> None:
    answer = await client.create(BODY | body)
    assert (answer.kind, answer.code, answer.attention, raw.requests) == ("not_sent", "cannot_send", None, [])


@pytest.mark.parametrize("url", ["http://[", "ftp://ark.test", "http://ark.test:port", "http://\n", "no url"])
async def test_invalid_address_is_not_sent(url: str) -> None:
    assert (await Ark(url, KEY).create(BODY)).kind == "not_sent"


class ReportingTransport(httpx.AsyncBaseTransport):
    """Reports its steps as the real one does, and then fails."""

    def __init__(self, steps: list[str], error: Exception) -> None:
        self.steps, self.error = steps, error

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for step in self.steps:
            await request.extensions["trace"](step, {})
        raise self.error


CONNECTING = ["connection.connect_tcp.started", "connection.connect_tcp.complete"]
STARTED = [*CONNECTING, "http11.send_request_headers.started"]
SENT = [*STARTED, "http11.send_request_headers.complete"]


@pytest.mark.parametrize(
    ("steps", "error", "kind"),
    [
        (CONNECTING, RuntimeError(KEY), "not_sent"),
        (CONNECTING, httpx.ReadError(KEY), "not_sent"),
        (STARTED, httpx.LocalProtocolError(KEY), "not_sent"),
        (STARTED, httpx.WriteError(KEY), "unknown"),
        (STARTED, httpx.ConnectError(KEY), "unknown"),
        (STARTED, RuntimeError(KEY), "unknown"),
        (SENT, httpx.LocalProtocolError(KEY), "unknown"),
        (SENT, UnicodeEncodeError("ascii", KEY, 0, 1, KEY), "unknown"),
        (SENT, httpx.ReadTimeout(KEY), "unknown"),
        ([], RuntimeError(KEY), "unknown"),
    ],
)
async def test_not_sent_needs_proof(steps: list[str], error: Exception, kind: str) -> None:
    answer = await Ark("http://ark.test", KEY, (), lambda: ReportingTransport(steps, error)).create(BODY)
    assert answer.kind == kind
    assert KEY not in repr(answer)


async def test_read_task_id_counts_when_closing_fails() -> None:
    class Transport(httpx.MockTransport):
        async def aclose(self) -> None:
            raise OSError("gone")

    client = Ark("http://ark.test", KEY, (), lambda: Transport(lambda _: httpx.Response(200, json={"id": "cgt-1"})))
    assert await client.create(BODY) == CreateAnswer("created", task_id="cgt-1")


# --- length of an answer ---------------------------------------------------------------------------------------------


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, 9)


LONG: list[tuple[bytes, tuple[str, ...]]] = [
    (TASK.encode() + b" " * TOO_LONG + b"}", ()),
    (zipped(TASK.encode() + b" " * TOO_LONG + b"}"), ("Content-Encoding: gzip",)),
    (zipped(zipped(b" " * 4 * TOO_LONG)), ("Content-Encoding: gzip, gzip",)),
    (zlib.compress(b" " * TOO_LONG), ("Content-Encoding: deflate",)),
]


@pytest.mark.parametrize(("content", "headers"), LONG, ids=["plain", "gzip", "gzip twice", "deflate"])
async def test_long_answer_is_not_read(raw: RawHost, client: Ark, content: bytes, headers: tuple[str, ...]) -> None:
    for status in (200, 400, 429):
        expected = ("accepted_without_id", "no_task_id") if status == 200 else ("unknown", f"http_{status}")
        raw.answers(status, content, *headers)
        answer = await client.create(BODY)
        assert (answer.kind, answer.code) == expected
        for name, ask in QUESTIONS.items():
            if (status, name) != (200, "delete"):
                with pytest.raises(ArkError):
                    await ask(client)


@pytest.mark.parametrize("status", [200, 500])
async def test_endless_answer_is_abandoned(raw: RawHost, client: Ark, status: int) -> None:
    raw.answers(status, "", "Transfer-Encoding: chunked")
    raw.repeats = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert (await client.create(BODY)).kind == ("accepted_without_id" if status == 200 else "unknown")
    with pytest.raises(ArkError):
        await client.get("cgt-1")
    assert raw.repeated < 2 * TOO_LONG + 16 * 1024 * 1024


async def test_endless_headers_are_abandoned(raw: RawHost, client: Ark) -> None:
    raw.answer, raw.repeats = b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"
    assert (await client.create(BODY)).kind == "unknown"
    with pytest.raises(NoAnswer):
        await client.get("cgt-1")
    assert raw.repeated < 32 * 1024 * 1024


async def test_zipped_answer_is_read(raw: RawHost, client: Ark) -> None:
    raw.answers(200, zipped(TASK.encode() + b"}"), "Content-Encoding: gzip")
    assert (await client.create(BODY)).task_id == "cgt-1"
    assert await client.get("cgt-1") == {"id": "cgt-1", "status": "queued"}


async def test_identity_encoding_is_requested() -> None:
    asked: list[httpx.Request] = []

    def exchange(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"id": "cgt-1", "status": "queued", "items": [], "total": 0})

    await through(exchange).create(BODY)
    for ask in QUESTIONS.values():
        await ask(through(exchange))
    assert {request.headers["accept-encoding"] for request in asked} == {"identity"}


# --- JSON that other readers cannot hold -----------------------------------------------------------------------------


ODD_VALUES = [
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "-" + "9" * 5000,
        "9" * 400,
        "9007199254740993",
        '"\\ud800"',
    ),
    *("[" * 900 + "]" * 900, '{"\\ud800": 1}', "[" + "0," * 10_000 + "0]", json.dumps("x" * 100_000)),
    '{"a":' * 900 + "0" + "}" * 900,
]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: value[:20])
async def test_odd_value_hides_no_other(raw: RawHost, client: Ark, value: str) -> None:
    raw.answers(200, f'{{"odd": {value}, "id": "cgt-1", "status": "succeeded", "usage": {{"total_tokens": 7}}}}')
    assert (await client.create(BODY)).task_id == "cgt-1"
    payload = present(await client.get("cgt-1"))
    json.dumps(payload, allow_nan=False, ensure_ascii=False).encode()
    usage = present(parse_task(payload).usage)
    assert usage.total_tokens == 7


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"a":' * 100_000, b"\xed\xa0\x80", '{"id": NaN}', '{"id": 1e999}', "{"]
)
async def test_unreadable_answer_is_error(raw: RawHost, client: Ark, body: str | bytes) -> None:
    raw.answers(200, body)
    assert (await client.create(BODY)).kind == "accepted_without_id"
    for name in ("get", "list"):
        with pytest.raises(ArkError):
            await QUESTIONS[name](client)


ODD_LEAVES = st.sampled_from([None, True, -1, 10**30, 2**53 + 1, float("nan"), "\ud800", "x" * 20_000, KEY, ""])
ODD_JSON = st.recursive(
    ODD_LEAVES | st.floats() | st.text(st.characters(codec=None), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["id", "status", "error", "content", "usage", "model", "created_at", "more", "items", "total"])


@given(st.one_of(ODD_JSON, st.dictionaries(NAMES, ODD_JSON)), st.sampled_from([200, 400, 404, 429, 500]))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_answer_is_task_error_or_nothing(odd: Any, status: int) -> None:
    if isinstance(odd, dict) and status == 200:
        odd = {"id": "cgt-1", "status": "queued"} | odd

    async def ask() -> None:
        client = through(lambda _: httpx.Response(status, content=json.dumps(odd).encode()))
        answer = await client.create(BODY)
        written = [repr(answer)]
        assert len(answer.message) <= 1000
        assert len(answer.code) <= 200
        for name in ("get", "list"):
            try:
                shown = await QUESTIONS[name](client)
            except ArkError as error:
                written.append(str(error)[:1300])
                continue
            if name == "get" and shown is not None:
                written.append(parse_task(shown).model_dump_json())
                written.append(json.dumps(shown, allow_nan=False, ensure_ascii=False))
        for text in written:
            text.encode()
            assert KEY not in text

    asyncio.run(ask())


# --- LIST: completeness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", ["true", "-1", "1.5", '"2"', "null", "9" * 5000, "NaN"])
async def test_invalid_total_is_error(raw: RawHost, client: Ark, total: str) -> None:
    raw.answers(200, f'{{"items": [], "total": {total}}}')
    with pytest.raises(ArkError):
        await client.list(1, 10)


async def test_contradicted_total_counts_as_larger(raw: RawHost, client: Ark) -> None:
    raw.answers(200, '{"items": [{"id": "a"}, 7, {"id": "b"}], "total": 2}')
    page = await client.list(1, 10)
    assert page.total > len(page.items) == 2


async def test_page_is_not_longer_than_requested(raw: RawHost, client: Ark) -> None:
    raw.answers(200, json.dumps({"items": [{"id": f"cgt-{n}"} for n in range(1000)], "total": 1000}))
    page = await client.list(1, 10)
    assert (len(page.items), page.total) == (10, 1000)


# --- secrets ---------------------------------------------------------------------------------------------------------


async def test_payload_keeps_only_result_urls(raw: RawHost, client: Ark) -> None:
    url = "https://cdn.example.com/v.mp4?X-Tos-Signature=5ec4e7"
    odd = {KEY: f"{KEY} {url}", "deep": [{"more": url}]}
    task = {"id": "cgt-1", "status": "failed", "error": {"code": KEY, "message": url}, "content": {"video_url": url}}
    raw.answers(200, json.dumps(task | odd))
    payload = await client.get("cgt-1")
    raw.answers(200, json.dumps({"items": [task | odd], "total": 1}))
    assert payload is not None
    needed = {name: payload[name] for name in ("id", "status")}
    assert (await client.list(1, 10)).items == [needed], "unneeded fields of a listed task are dropped"
    assert payload.pop("content") == {"video_url": url}
    assert KEY not in json.dumps(payload)
    assert "5ec4e7" not in json.dumps(payload)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_error_code_and_message_are_redacted_and_cut(raw: RawHost, client: Ark, status: int) -> None:
    code, message = f"Bad.{KEY}." + "c" * 5000, f"{json.dumps(KEY)} https://user:5ec4e7@x.example/ " + "m" * 5000
    raw.answers(status, json.dumps({"error": {"code": code, "message": message}}))
    answer = await client.create(BODY)
    texts = [repr(answer)]
    for ask in QUESTIONS.values():
        with pytest.raises(ArkError) as caught:
            await ask(client)
        texts.append(repr(caught.value))
    for text in texts:
        assert KEY not in text
        assert "5ec4e7" not in text
        assert len(text) < 1500


def test_log_redacts_tracebacks() -> None:
    url = "https://cdn.example.com/v.mp4?X-Tos-Signature=5ec4e7"
    try:
        raise httpx.LocalProtocolError(f"Illegal header value {f'Bearer {KEY}'.encode()!r} for {url}")
    except httpx.LocalProtocolError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "no answer", (), (type(error), error, None))
    written = RedactingFormatter((KEY,)).format(record)
    assert "no answer" in written
    assert "for https://cdn.example.com/v.mp4" in written
    assert KEY not in written
    assert "5ec4e7" not in written


async def test_identifier_survives_short_secret(raw: RawHost) -> None:
    """A secret of a few hex digits occurs in our identifiers by chance: redacted, our own task would seem foreign."""
    identifier = f"{'cafe' * 4}-{'0123cafe' * 4}"
    task = {"id": "cgt-1", "status": "queued", "safety_identifier": identifier}
    client = Ark(raw.url, KEY, secrets=("cafe",), list_spacing=0)
    raw.answers(200, json.dumps(task))
    assert (await client.get("cgt-1") or {})["safety_identifier"] == identifier
    raw.answers(200, json.dumps({"items": [task], "total": 1}))
    assert (await client.list(1, 10)).items[0]["safety_identifier"] == identifier


_FIELDS = ("id", "status", "model", "created_at", "safety_identifier")
JUNK = {
    "unknown fields": [{"id": "cgt-1"} | {f"field-{n}": ["aa"] * 200 for n in range(20)}] * 45,
    "odd fields": [{name: ["aa"] * 200 for name in _FIELDS}] * 180,
    "long texts": [dict.fromkeys(_FIELDS, "a" * 1500)] * 500,
    "numbers": [1.5] * 700_000,
    "names": [{str(number): 1 for number in range(190_000)}],
}
REFUSED_JUNK = {
    "objects": [{}] * 900_000,
    "lists": [[[]]] * 500_000,
    "more names": [{str(number): 1 for number in range(300_000)}],
}


@pytest.mark.parametrize("items", [*JUNK.values(), *REFUSED_JUNK.values()], ids=[*JUNK, *REFUSED_JUNK])
async def test_junk_page_does_not_block_loop(raw: RawHost, client: Ark, items: list[Any]) -> None:
    content = json.dumps({"items": items, "total": len(items)}).encode()
    assert 1_000_000 < len(content) < answers.MOST_BYTES_OF_LIST
    raw.answers(200, content)
    longest = 0.0

    async def ticks() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)

    ticking = asyncio.create_task(ticks())
    # To parse so many objects takes a second of the interpreter, and a hundred megabytes.
    is_refused = items in REFUSED_JUNK.values()
    with pytest.raises(ArkError, match="not a JSON object") if is_refused else nullcontext():
        await client.list(1, 500)
    ticking.cancel()
    assert longest < 1, "of some 0.1 s on a quiet machine"


async def test_key_as_task_id_is_not_written(raw: RawHost, client: Ark) -> None:
    raw.answers(200, json.dumps({"id": f"Bearer {KEY}"}))
    answer = await client.create(BODY)
    assert answer.kind == "accepted_without_id"
    assert KEY not in repr(answer)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (KEY, "***"),
        ("callback-secret", "***"),
        ("https://cdn.example.com/v.mp4?X-Tos-Signature=5ec4e7bad", "https://cdn.example.com/v.mp4"),
        ("https://user:word@cdn.example.com/v", "https://***@cdn.example.com/v"),
    ],
)
async def test_secret_in_listed_id_is_not_written(raw: RawHost, secret: str, shown: str) -> None:
    client = Ark(raw.url, KEY, ("callback-secret",), list_spacing=0)
    raw.answers(200, json.dumps({"items": [{"id": f"cgt {secret}", "status": "running"}], "total": 1}))
    (item,) = (await client.list(1, 500)).items
    assert item["id"] == f"cgt {shown}"


async def test_timeout_while_connecting_is_not_sent() -> None:
    """A host that accepts the connection, and never answers TLS."""
    async with serving(lambda reader, writer: asyncio.sleep(3600)) as port:
        answer = await Ark(f"https://127.0.0.1:{port}", KEY).create(BODY, 0.5)
    assert (answer.kind, answer.code) == ("not_sent", "not_connected")


@pytest.mark.parametrize(
    ("sent", "kind"), [(b"", "unknown"), (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "accepted_without_id")]
)
async def test_timeout_after_sending_is_unknown(sent: bytes, kind: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(3600)

    async with serving(serve) as port:
        assert (await Ark(f"http://127.0.0.1:{port}", KEY).create(BODY, 0.7)).kind == kind
