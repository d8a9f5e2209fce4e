"""What an answer to a create means for the money, held against the local Ark and its faults."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from dev.ark.control import ArkControl
from dev.ark.ledger import CreateEntry
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.provider.create_answer import CreateAnswer
from tests.support.jobs import BODY, KEY, a_client, present
from tests.support.raw_host import RawHost

TOKEN = "0123456789abcdef" * 4
CALLBACK = f"https://relay.example.com/callbacks/seedance-{'a' * 64}/1/{TOKEN}"


async def the_post(ark: ArkControl, before: int) -> CreateEntry:
    """The one POST that came since, once its outcome is known."""
    async with asyncio.timeout(10):
        while any(entry.answer is None for entry in await ark.ledger()):
            await asyncio.sleep(0.02)
    entries = (await ark.ledger())[before:]
    assert len(entries) == 1, "a create is one POST"
    return entries[0]


def envelope(code: Any, message: str = "no") -> str:
    return json.dumps({"error": {"code": code, "message": message, "param": "", "type": "x"}})


# --- create: the table ---------------------------------------------------------------------------------------------


async def test_create_returns_task_id(ark: ArkControl) -> None:
    before = len(await ark.ledger())
    answer = await a_client(ark).create(BODY)
    entry = await the_post(ark, before)
    assert answer == CreateAnswer("created", task_id=entry.task_id)
    assert (entry.body, entry.committed) == (BODY, True)


@dataclass(frozen=True)
class Row:
    """A fault on the create, and what its answer means. ``committed``: whether a task exists in truth."""

    fault: str
    kind: str
    code: str
    committed: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    failure_class: str | None = None
    attention: str | None = None
    retry_after: float | None = None

    def __str__(self) -> str:
        return "-".join([self.fault, *(str(value)[:30] for value in self.fields.values())])


def not_sent(code: str, attention: str | None = None, fault: str = "429", **fields: Any) -> Row:
    fields = {"code": code} | fields
    return Row(fault, "not_sent", code, fields=fields, attention=attention, retry_after=fields.get("retry_after"))


def refused(fault: str, code: str, failure_class: str) -> Row:
    return Row(fault, "refused", code, fields={"code": code}, failure_class=failure_class)


TABLE = [
    *(Row("lost_after_commit", "unknown", "answer_lost", True, {"close": close}) for close in ("rst", "fin")),
    *(Row("reset_before_commit", "unknown", "answer_lost", fields={"close": close}) for close in ("rst", "fin")),
    Row("hang_after_commit", "unknown", "answer_lost", True, {"seconds": 0.1}),
    Row("500_before_commit", "unknown", "InternalServiceError"),
    Row("500_after_commit", "unknown", "InternalServiceError", True),
    *(Row(f"{status}_before_commit", "unknown", f"http_{status}") for status in (502, 503, 504)),
    *(Row(f"{status}_after_commit", "unknown", f"http_{status}", True) for status in (502, 503, 504)),
    Row("cut_body", "accepted_without_id", "no_task_id", True),
    Row("cut_json", "accepted_without_id", "no_task_id", True),
    Row("no_id", "accepted_without_id", "no_task_id", True),
    Row("slow", "created", "", True, {"seconds": 0.1}),
    *(
        not_sent(code)
        for code in (
            "RateLimitExceeded.EndpointRPMExceeded",
            "ModelAccountRpmRateLimitExceeded",
            "RequestBurstTooFast",
            "ServerOverloaded",
            "InflightBatchsizeExceeded",
        )
    ),
    not_sent("RateLimitExceeded", retry_after=7),
    not_sent("RateLimitExceeded", retry_after=0),
    not_sent("QuotaExceeded", message="The task queue of your account is full."),
    not_sent("QuotaExceeded", "account", message="Your free Trial quota has been used up."),
    not_sent("SetLimitExceeded", "account"),
    not_sent("AuthenticationError", "credentials", "401"),
    not_sent("InvalidAccountStatus", "credentials", "401"),
    not_sent("AccountOverdueError", "account", "403"),
    not_sent("OperationDenied.ServiceOverdue", "account", "403"),
    not_sent("AccessDenied", "account", "403"),
    refused("400", "InvalidParameter.Duration", "invalid"),
    refused("400", "MissingParameter.content", "invalid"),
    refused("400", "InputTextSensitiveContentDetected", "moderation"),
    refused("400", "InputImageSensitiveContentDetected.PrivacyInformation", "moderation"),
    refused("400", "InputVideoSensitiveContentDetected.PolicyViolation", "moderation"),
    refused("404", "ModelNotOpen", "invalid"),
    refused("404", "InvalidEndpointOrModel.NotFound", "invalid"),
    refused("404", "UnsupportedModel", "invalid"),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_create_answer_is_classified(ark: ArkControl, row: Row) -> None:
    before = len(await ark.ledger())
    fault_id = await ark.fault("create", row.fault, **row.fields)

    answer = await a_client(ark).create(BODY)

    assert len(await ark.fired(fault_id)) == 1
    entry = await the_post(ark, before)
    assert entry.committed is row.committed
    assert (answer.kind, answer.code) == (row.kind, row.code)
    assert (answer.failure_class, answer.attention) == (row.failure_class, row.attention)
    assert answer.retry_after == row.retry_after
    assert answer.task_id == (entry.task_id if row.kind == "created" else None)
    if row.committed:
        assert answer.kind in {"created", "accepted_without_id", "unknown"}, "a task exists: no answer may deny it"


@pytest.mark.parametrize("fault", ["hang_before_commit", "hang_after_commit"])
async def test_hanging_create_ends_in_time(ark: ArkControl, fault: str) -> None:
    before = len(await ark.ledger())
    fault_id = await ark.fault("create", fault)

    async def end_the_time() -> None:
        while not await ark.fired(fault_id):
            await asyncio.sleep(0.02)
        limit.reschedule(0)

    ending = asyncio.create_task(end_the_time())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30) as limit:
            await a_client(ark).create(BODY)
    await ending
    assert (await the_post(ark, before)).committed is (fault == "hang_after_commit")


async def test_other_route_key_is_not_sent(ark: ArkControl) -> None:
    answer = await a_client(ark, key="local-ark-key-cn").create(BODY)
    assert (answer.kind, answer.attention, answer.code) == ("not_sent", "credentials", "AuthenticationError")


async def test_refusals_of_the_service_are_classified(ark: ArkControl) -> None:
    for change, failure_class in (({"duration": 99}, "invalid"), ({"model": "seedance-9"}, "invalid")):
        answer = await a_client(ark).create(BODY | change)
        assert (answer.kind, answer.failure_class) == ("refused", failure_class)
        assert answer.message


# --- create: what never reached the provider -----------------------------------------------------------------------


async def test_refused_connection_is_not_sent() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        answer = await Ark(f"http://127.0.0.1:{closed.getsockname()[1]}", KEY).create(BODY)
    assert (answer.kind, answer.code, answer.attention) == ("not_sent", "not_connected", None)


async def test_unknown_host_is_not_sent() -> None:
    answer = await Ark("http://ark.invalid/api/v3", KEY).create(BODY)
    assert (answer.kind, answer.code) == ("not_sent", "not_connected")


async def test_host_without_tls_is_not_sent(raw: RawHost) -> None:
    answer = await Ark(raw.url.replace("http:", "https:"), KEY).create(BODY)
    assert (answer.kind, answer.code, raw.requests) == ("not_sent", "not_connected", [])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError, "not_sent"),
        (httpx.ConnectTimeout, "not_sent"),
        (httpx.WriteError, "unknown"),
        (httpx.WriteTimeout, "unknown"),
        (httpx.ReadError, "unknown"),
        (httpx.ReadTimeout, "unknown"),
        (httpx.CloseError, "unknown"),
        (httpx.RemoteProtocolError, "unknown"),
        (httpx.DecodingError, "unknown"),
        (httpx.PoolTimeout, "unknown"),
    ],
)
async def test_broken_exchange_is_unknown_after_sending(error: type[httpx.TransportError], kind: str) -> None:
    sent = []

    def exchange(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        raise error(f"broken while {KEY} was sent", request=request)

    answer = await Ark("http://ark.test", KEY, (KEY,), lambda: httpx.MockTransport(exchange)).create(BODY)
    assert (answer.kind, answer.task_id, len(sent)) == (kind, None, 1)
    assert KEY not in answer.message


# --- create: answers by something in between -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, "<html><h1>400 Bad Request</h1></html>", "unknown", "http_400"),
        (401, "", "unknown", "http_401"),
        (403, "<html>blocked by the firewall</html>", "unknown", "http_403"),
        (404, '{"detail": "not found"}', "unknown", "http_404"),
        (413, "<html>too large</html>", "unknown", "http_413"),
        (429, "slow down", "unknown", "http_429"),
        (500, "<html>oops</html>", "unknown", "http_500"),
        (499, "", "unknown", "http_499"),
        (400, '{"error": "no code in here"}', "unknown", "http_400"),
        (400, '{"error": {"message": "no code in here"}}', "unknown", "http_400"),
        (400, '["error"]', "unknown", "http_400"),
        (429, envelope(429), "unknown", "http_429"),
        (400, envelope(None), "unknown", "http_400"),
        (404, envelope(""), "unknown", "http_404"),
        (413, envelope("RequestTooLarge"), "unknown", "RequestTooLarge"),
        (408, envelope("RequestTimeout"), "unknown", "RequestTimeout"),
        (409, envelope("Conflict"), "unknown", "Conflict"),
        (502, envelope("InternalServiceError"), "unknown", "InternalServiceError"),
        (503, envelope("ServerOverloaded"), "unknown", "ServerOverloaded"),
        (201, '{"id": "cgt-1"}', "unknown", "http_201"),
        (204, "", "unknown", "http_204"),
        (200, "", "accepted_without_id", "no_task_id"),
        (200, "<html>welcome</html>", "unknown", "http_200"),
        (200, "null", "accepted_without_id", "no_task_id"),
        (200, "[]", "accepted_without_id", "no_task_id"),
        (200, '{"id": ""}', "accepted_without_id", "no_task_id"),
        (200, '{"id": 7}', "accepted_without_id", "no_task_id"),
        (200, b'{"id": "\xff"}', "accepted_without_id", "no_task_id"),
        (200, f'{{"id": "{"x" * 513}"}}', "accepted_without_id", "unusable_task_id"),
        (200, '{"id": "\\ud800"}', "accepted_without_id", "unusable_task_id"),
        (200, f'{{"id": "{"한" * 57}"}}', "accepted_without_id", "unusable_task_id"),
        (200, '{"id": "cgt-1", "safety_identifier": "x", "more": {}}', "created", ""),
    ],
)
async def test_gateway_answer_is_classified(
    raw: RawHost, client: Ark, status: int, body: str | bytes, kind: str, code: str
) -> None:
    raw.answers(status, body, "Content-Type: application/json")
    answer = await client.create(BODY)
    assert (answer.kind, answer.code, answer.attention) == (kind, code, None)
    assert answer.task_id == ("cgt-1" if kind == "created" else None)
    assert raw.requests == ["POST /api/v3/contents/generations/tasks HTTP/1.1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(raw: RawHost, client: Ark, status: int) -> None:
    raw.answers(status, "", f"Location: {raw.url}/elsewhere")
    answer = await client.create(BODY)
    assert (answer.kind, answer.code, len(raw.requests)) == ("unknown", f"http_{status}", 1)


@pytest.mark.parametrize("status", [400, 429])
async def test_cut_refusal_is_unknown(raw: RawHost, client: Ark, status: int) -> None:
    raw.answers(status, envelope("InvalidParameter")[:-1], length=500)
    answer = await client.create(BODY)
    assert (answer.kind, len(raw.requests)) == ("unknown", 1)


async def test_undecodable_200_is_accepted_without_id(raw: RawHost, client: Ark) -> None:
    raw.answers(200, '{"id": "cgt-1"}', "Content-Encoding: gzip")
    assert (await client.create(BODY)).kind == "accepted_without_id"


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        (format_datetime(datetime.now(UTC) + timedelta(hours=10), usegmt=True), 30_000, 36_000),
        ("Fri, 01 Nov 2019 08:00:00 GMT", 0, 0),
    ],
    ids=["seconds", "date to come", "date gone by"],
)
async def test_retry_after_forms(raw: RawHost, client: Ark, value: str, least: float, most: float) -> None:
    raw.answers(429, envelope("RateLimitExceeded"), f"Retry-After: {value}")
    answer = await client.create(BODY)
    assert answer.kind == "not_sent"
    assert least <= present(answer.retry_after) <= most


@pytest.mark.parametrize("value", ["soon", "-5", "Sun, 99 Nov 2026 25:00:00 GMT", "1.5", "", "9" * 400])
async def test_odd_retry_after_breaks_nothing(raw: RawHost, client: Ark, value: str) -> None:
    raw.answers(429, envelope("RateLimitExceeded"), f"Retry-After: {value}")
    answer = await client.create(BODY)
    assert answer.kind == "not_sent"
    assert answer.retry_after is None or answer.retry_after > 0


# --- no secrets come through -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["400", "401", "429", "500"])
async def test_create_answer_shows_no_secret(ark: ArkControl, fault: str) -> None:
    signed = "https://storage.example.com/ref.png?X-Goog-Signature=5ec4e7#frag"
    message = f"Bearer {KEY} cannot fetch {signed}, nor call {CALLBACK}; hush"
    await ark.fault("create", fault, message=message)
    answer = await a_client(ark, "hush").create(BODY)
    assert "cannot fetch https://storage.example.com/ref.png" in answer.message
    for secret in (KEY, "hush", "5ec4e7", "X-Goog", TOKEN):
        assert secret not in repr(answer)


async def test_error_shows_no_secret(ark: ArkControl) -> None:
    message = f"{KEY} https://storage.example.com/ref.png?sig=5ec4e7 {CALLBACK}"
    client = a_client(ark)
    for on, call in (("get", client.get("cgt-1")), ("list", client.list(1, 10)), ("delete", client.delete("cgt-1"))):
        await ark.fault(on, "429", message=message)  # type: ignore[arg-type]
        with pytest.raises(ArkError) as caught:
            await call
        for secret in (KEY, "5ec4e7", TOKEN):
            assert secret not in str(caught.value)
            assert secret not in caught.value.message


async def test_long_message_is_cut(ark: ArkControl) -> None:
    await ark.fault("create", "400", message="x" * 5000)
    assert len((await a_client(ark).create(BODY)).message) == 1000


# --- get, list, delete -----------------------------------------------------------------------------------------------


async def a_task(ark: ArkControl, **fields: Any) -> str:
    answer = await a_client(ark).create(BODY | fields)
    return present(answer.task_id)


async def test_get_shows_the_task_as_it_came(ark: ArkControl) -> None:
    task_id = await a_task(ark, safety_identifier="u-1")
    payload = present(await a_client(ark).get(task_id))
    assert (payload["id"], payload["status"], payload["safety_identifier"]) == (task_id, "queued", "u-1")


async def test_get_of_unknown_task_is_none(ark: ArkControl) -> None:
    assert await a_client(ark).get("cgt-nobody") is None


@pytest.mark.parametrize(
    ("fault", "fields", "code", "attention"),
    [
        ("400", {}, "InvalidParameter", None),
        ("401", {}, "AuthenticationError", "credentials"),
        ("403", {}, "AccountOverdueError", "account"),
        ("404", {"code": "InvalidEndpointOrModel.NotFound"}, "InvalidEndpointOrModel.NotFound", None),
        ("429", {}, "RateLimitExceeded", None),
        ("429", {"code": "SetLimitExceeded"}, "SetLimitExceeded", "account"),
        ("500", {}, "InternalServiceError", None),
        ("502", {}, "", None),
    ],
)
@pytest.mark.parametrize("on", ["get", "list", "delete"])
async def test_question_error_is_classified(
    ark: ArkControl, on: str, fault: str, fields: dict[str, Any], code: str, attention: str | None
) -> None:
    task_id = await a_task(ark)
    client = a_client(ark)
    fault_id = await ark.fault(on, fault, **fields)  # type: ignore[arg-type]
    calls: dict[str, Any] = {"get": client.get, "list": lambda _: client.list(1, 10), "delete": client.delete}
    with pytest.raises(ArkError) as caught:
        await calls[on](task_id)
    assert len(await ark.fired(fault_id)) == 1
    assert (caught.value.status, caught.value.code, caught.value.attention) == (int(fault), code, attention)


@pytest.mark.parametrize("on", ["get", "delete"])
async def test_gateway_404_is_an_error(raw: RawHost, client: Ark, on: str) -> None:
    raw.answers(404, "<html>no such page</html>")
    with pytest.raises(ArkError) as caught:
        await (client.get if on == "get" else client.delete)("cgt-1")
    assert (caught.value.status, caught.value.code) == (404, "")


OTHER_CODES = ["NotFound", "ModelNotOpen", "InvalidEndpointOrModel.NotFound", "EndpointNotFound.x"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((200, body) for body in ("", "<html>", "[]", "{}", '{"id": 1, "status": "queued"}', '{"id": "cgt-1"}')),
        *((404, envelope(code)) for code in OTHER_CODES),
    ],
)
async def test_get_without_task_is_error(raw: RawHost, client: Ark, status: int, body: str) -> None:
    raw.answers(status, body)
    with pytest.raises(ArkError):
        await client.get("cgt-1")


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"items": []}', '{"items": {}, "total": 0}', '{"items": null}'])
async def test_list_without_page_is_error(raw: RawHost, client: Ark, body: str) -> None:
    raw.answers(200, body)
    with pytest.raises(ArkError):
        await client.list(1, 10)


async def test_redirected_get_is_an_error(raw: RawHost, client: Ark) -> None:
    raw.answers(302, "", f"Location: {raw.url}/elsewhere")
    with pytest.raises(ArkError):
        await client.get("cgt-1")
    assert len(raw.requests) == 1


async def test_broken_question_is_http_error(ark: ArkControl) -> None:
    task_id = await a_task(ark)
    for on, call in (("get", a_client(ark).get), ("delete", a_client(ark).delete)):
        await ark.fault(on, "reset")  # type: ignore[arg-type]
        with pytest.raises(httpx.HTTPError):
            await call(task_id)


async def test_list_gives_a_page_and_the_total(ark: ArkControl) -> None:
    ids = {await a_task(ark) for _ in range(3)}
    client = a_client(ark)
    total = (await client.list(1, 500)).total
    pages = [await client.list(page, total - 1) for page in (1, 2, 3)]
    assert [len(page.items) for page in pages] == [total - 1, 1, 0]
    assert {page.total for page in pages} == {total}
    assert ids <= {task["id"] for page in pages for task in page.items}


async def test_list_asks_for_one_service_tier(raw: RawHost, client: Ark) -> None:
    raw.answers(200, '{"items": [{"id": "a"}, 7], "total": 2}')
    page = await client.list(2, 500, "flex")
    assert page.items == [{"id": "a"}]  # what is no task is left out
    assert raw.requests[0].split("?")[1].split(" ")[0] == "page_num=2&page_size=500&filter.service_tier=flex"


async def test_lists_of_one_process_keep_the_rate(ark: ArkControl) -> None:
    await ark.configure(list_per_second=1)
    limited = (await ark.requests()).rate_limited.get("list", 0)
    client = Ark(ark.base_url("byteplus"), KEY)
    await asyncio.gather(client.list(1, 10), client.list(2, 10))
    assert (await ark.requests()).rate_limited.get("list", 0) == limited
    # The local Ark does say no, to a client that does not know of the others' calls.
    await ark.configure(list_per_second=0.001)
    with pytest.raises(ArkError) as caught:
        await a_client(ark).list(1, 10)
    assert caught.value.status == 429


async def test_delete_cancels_queued_task_only(ark: ArkControl) -> None:
    client = a_client(ark)
    task_id = await a_task(ark)
    await client.delete(task_id)
    assert (await client.get(task_id) or {})["status"] == "cancelled"

    await ark.configure(queued_seconds=0)
    running = await a_task(ark)
    async with asyncio.timeout(10):
        while (await client.get(running) or {})["status"] != "running":
            await asyncio.sleep(0.02)
    with pytest.raises(ArkError) as caught:
        await client.delete(running)
    assert (caught.value.status, caught.value.code) == (409, "InvalidAction.RunningTaskDeletion")

    with pytest.raises(ArkError) as caught:
        await client.delete("cgt-nobody")
    assert (caught.value.status, caught.value.code) == (404, "ResourceNotFound")


ODD_IDS = [".", "..", "../tasks", "a/b", "a\\b", "a?b=c", "a#b", "a%2fb", "a b", "a\nb", "a\x00b", "CGT_1.2:3", "한"]


@pytest.mark.parametrize("task_id", [*ODD_IDS, "cgt-20260525143012-x7k2p", "..."])
async def test_task_id_is_one_part_of_the_path(raw: RawHost, client: Ark, task_id: str) -> None:
    raw.answers(200, json.dumps({"id": task_id, "status": "queued"}))
    assert await client.get(task_id) == {"id": task_id, "status": "queued"}
    await client.delete(task_id)
    for request, method in zip(raw.requests, ["GET", "DELETE"], strict=True):
        start, part = f"{method} /api/v3/contents/generations/tasks/", request.split("/")[-2].removesuffix(" HTTP")
        assert request == f"{start}{part} HTTP/1.1"
        assert unquote(part) == task_id
        assert part not in {".", ".."}


@pytest.mark.parametrize("task_id", ["", "\ud800", "x" * 513, "한" * 57])
async def test_impossible_task_id_is_not_requested(raw: RawHost, client: Ark, task_id: str) -> None:
    assert await client.get(task_id) is None
    with pytest.raises(ArkError):
        await client.delete(task_id)
    assert raw.requests == []


async def test_listed_unusable_id_is_cut(raw: RawHost, client: Ark) -> None:
    raw.answers(200, json.dumps({"items": [{"id": "x" * 100_000}, {"id": "\ud800"}, {"id": ""}], "total": 3}))
    assert (await client.list(1, 10)).items == [{"id": "x" * 512}, {"id": "?"}, {"id": ""}]


async def test_answer_about_another_task_is_none(raw: RawHost, client: Ark) -> None:
    raw.answers(200, '{"id": "cgt-2", "status": "queued"}')
    with pytest.raises(ArkError, match="another task"):
        await client.get("cgt-1")


@pytest.mark.parametrize("code", ["ResourceNotFound", "ResourceNotFound.Task", "NotFound.TaskId"])
async def test_codes_of_unknown_task(raw: RawHost, client: Ark, code: str) -> None:
    raw.answers(404, envelope(code))
    assert await client.get("cgt-1") is None
