"""The local Ark's clock: limits, deadlines, and switches that are changed under way; and its callbacks."""

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from dev.ark.control import ArkControl
from dev.ark.errors import ArkError
from dev.ark.faults import Faults
from dev.ark.keys import Key
from dev.ark.media import Clip, last_frame
from dev.ark.provider import Provider
from dev.ark.results import Results
from dev.ark.settings import Settings
from dev.ark.validate import read_request
from dev.process import running_ark
from tests.support.ark_api import Api
from tests.support.jobs import BODY
from tests.support.raw_host import serving

SWITCHES = {
    "speed": 1,
    "queued_seconds": 0,
    "running_seconds": 0,
    "callback_retry_seconds": 0,
    "callback_timeout_seconds": 5,
    "running_limit": 10,
    "callbacks": "on",
    "callback_queued": False,
    "list_per_second": None,
    "get_per_second": None,
    "allow_http_references": False,
    "fetch_references": False,
    "inspect_references": False,
}


class Receiver(ThreadingHTTPServer):
    """Takes callbacks, and answers with the statuses it was given, then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/callbacks/job"

    async def wait_for(self, count: int) -> list[str]:
        """The statuses received, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.received) < count:
                await asyncio.sleep(0.02)
        return [task["status"] for task in self.received]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/there" else 404)

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.server.received.append(json.loads(self.rfile.read(size)))
        self._answer(self.server.answers.pop(0) if self.server.answers else 200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it inherits
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with running_ark() as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.clear_faults()
    await server.configure(**SWITCHES)
    return server


# --- a task's life ---------------------------------------------------------------------------------------------


def test_speed_divides_defaults() -> None:
    settings = Settings.model_validate({"speed": 60, "running_seconds": 7})
    assert (settings.queued_seconds, settings.running_seconds) == (0.05, 7)
    assert (settings.url_seconds, settings.kept_seconds) == (1440, 10_080)
    settings.apply({"speed": 30, "queued_seconds": 1})
    assert (settings.queued_seconds, settings.running_seconds) == (1, 4)


async def test_more_than_the_limit_stay_queued(ark: ArkControl, api: Api) -> None:
    await ark.configure(running_limit=1, running_seconds=3600)
    first = await api.create()
    await api.until(first, "running")
    second, third = await api.create(), await api.create()
    await ark.configure(running_limit=2)
    await api.until(second, "running")  # first come, first served
    assert (await api.get(third)).json()["status"] == "queued"
    await ark.configure(running_seconds=0)
    for task_id in (first, second, third):
        await api.until(task_id, "succeeded")


async def test_updated_at_follows_status_only(ark: ArkControl, api: Api) -> None:
    await ark.fault("task", "stay_running")
    task = await api.create_until("running")
    await asyncio.sleep(1.1)  # its clock is in seconds
    assert await api.until(task["id"], "running") == task
    await ark.release(task["id"])
    done = await api.until(task["id"], "succeeded")
    assert done["updated_at"] > task["updated_at"]
    assert done["created_at"] == task["created_at"]


async def test_task_expires_at_its_deadline(ark: ArkControl, api: Api) -> None:
    await ark.configure(running_seconds=3600)
    early = await api.create(execution_expires_after=3600)
    late = await api.create(execution_expires_after=259_200)
    await api.until(late, "running")
    await ark.configure(**SWITCHES | {"speed": 36_000, "running_seconds": 3600})  # an hour takes 0.1 s
    expired = await api.until(early, "expired")
    assert expired["execution_expires_after"] == 3600
    assert (await api.get(late)).json()["status"] == "running"
    await ark.configure(**SWITCHES)
    await api.until(late, "succeeded")


async def test_tasks_are_forgotten(ark: ArkControl, api: Api) -> None:
    done = await api.create()
    await api.until(done, "succeeded")
    await ark.fault("task", "stay_queued")
    cancelled = await api.create()
    await api.delete(cancelled)

    async def known() -> list[bool]:
        return [(await api.get(one)).status_code == 200 for one in (done, cancelled)]

    assert await known() == [True, True]
    await ark.configure(cancelled_kept_seconds=0)
    assert await known() == [True, False]
    await ark.configure(kept_seconds=0)
    assert await known() == [False, False]
    assert (await api.page()).json()["total"] == 0


@pytest.mark.parametrize("speed", [1, 60])
def test_tasks_and_results_go_by_the_scaled_clock(speed: float) -> None:
    settings, day = Settings(speed=speed), 86_400 / speed
    provider, results = Provider(settings, Faults(), lambda task: None), Results(settings)
    request, key = read_request("byteplus", BODY, settings), Key(key="one")

    def known(status: str, age: float) -> bool:
        task = provider.add_foreign("byteplus", key.project, request, status, age)
        try:
            provider.find("byteplus", key, task.id)
        except ArkError:
            return False
        return True

    assert [known("succeeded", age * day) for age in (0, 6.99, 7.01)] == [True, True, False]
    assert [known("failed", age * day) for age in (6.99, 7.01)] == [True, False]
    assert [known("cancelled", age * day) for age in (0, 0.99, 1.01)] == [True, True, False]
    for age, alive in ((0.99, True), (1.01, False)):
        task = provider.add_foreign("byteplus", key.project, request, "succeeded", age * day)
        signature = parse_qs(urlsplit(results.urls(task)["video_url"]).query)["X-Tos-Signature"][0]
        with contextlib.nullcontext() if alive else pytest.raises(ArkError, match="expired"):
            assert results.redeem(task, "video.mp4", signature) is task


async def test_creates_have_a_rate_limit(ark: ArkControl, api: Api) -> None:
    await ark.configure(create_per_minute=0)
    answer = await api.post()
    await ark.configure(create_per_minute=None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "RateLimitExceeded")
    assert (await api.post()).status_code == 200


async def test_references_are_fetched_when_set(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    root = receiver.url.removesuffix("/callbacks/job")

    async def create(url: str) -> int:
        item = {"type": "image_url", "image_url": {"url": url}, "role": "reference_image"}
        return (await api.post(content=[item])).status_code

    assert await create(f"{root}/there") == 400  # http
    await ark.configure(allow_http_references=True)
    assert await create(f"{root}/gone") == 200  # nobody checks
    await ark.configure(fetch_references=True)
    assert [await create(f"{root}/there"), await create(f"{root}/gone"), await create("asset://a")] == [200, 400, 200]


async def test_references_are_checked_when_set(ark: ArkControl, api: Api) -> None:
    async def create(size: int) -> httpx.Response:
        picture = base64.b64encode(last_frame(Clip(size, size, 4, audio=False), "cgt-1")).decode()
        url = {"url": f"data:image/png;base64,{picture}"}
        return await api.post(content=[{"type": "image_url", "image_url": url}])

    assert (await create(200)).status_code == 200  # nobody checks
    await ark.configure(inspect_references=True)
    assert (await create(300)).status_code == 200
    refused = await create(298)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "content")


async def test_inner_state_shows_hidden_fields(ark: ArkControl, api: Api) -> None:
    await ark.fault("task", "stay_queued")
    task_id = await api.create(watermark=True, callback_url="https://relay.example.com/x")
    (inside,) = [task for task in await ark.tasks() if task["id"] == task_id]
    assert (inside["status"], inside["fault"], inside["route"]) == ("queued", "stay_queued", "byteplus")
    assert (inside["watermark"], inside["callback_url"]) == (True, "https://relay.example.com/x")
    await api.delete(task_id)


# --- callbacks -------------------------------------------------------------------------------------------------


async def quiet(ark: ArkControl, task_id: str, count: int) -> list[tuple[str, int, int | None]]:
    """Status, attempt and answer of each try for a task, once so many have ended; and no more came."""
    async with asyncio.timeout(10):
        while True:
            tries = [one for one in await ark.deliveries() if one.task_id == task_id]
            if len([one for one in tries if one.answer or one.error]) >= count:
                break
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    tries = [one for one in await ark.deliveries() if one.task_id == task_id]
    return [(one.status, one.attempt, one.answer) for one in tries]


async def test_callbacks_announce_running_and_end(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.fault("task", "stay_running")
    task_id = await api.create(callback_url=receiver.url, safety_identifier="who")
    assert await receiver.wait_for(1) == ["running"]
    await ark.release(task_id)
    assert await receiver.wait_for(2) == ["running", "succeeded"]
    assert receiver.received[1] == (await api.get(task_id)).json()
    assert receiver.received[1]["safety_identifier"] == "who"
    assert await quiet(ark, task_id, 2) == [("running", 1, 200), ("succeeded", 1, 200)]


async def test_queued_callback_is_optional(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.configure(callback_queued=True)
    await ark.fault("task", "stay_queued")
    task_id = await api.create(callback_url=receiver.url)
    assert await receiver.wait_for(1) == ["queued"]
    await api.delete(task_id)
    assert await quiet(ark, task_id, 1) == [("queued", 1, 200)]  # cancelled is not announced


@pytest.mark.parametrize(("fault", "status"), [("fail", "failed"), ("expire", "expired")])
async def test_other_ends_are_called_back(
    ark: ArkControl, api: Api, receiver: Receiver, fault: Any, status: str
) -> None:
    await ark.fault("task", fault)
    await api.create(callback_url=receiver.url)
    assert status in await receiver.wait_for(2)


async def test_callbacks_of_end_only(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.configure(callbacks="ends", callback_queued=True)
    task_id = await api.create(callback_url=receiver.url)
    assert await receiver.wait_for(1) == ["succeeded"]
    assert await quiet(ark, task_id, 1) == [("succeeded", 1, 200)]


async def test_callbacks_off(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.configure(callbacks="off")
    task_id = await api.create(callback_url=receiver.url)
    await api.until(task_id, "succeeded")
    assert await quiet(ark, task_id, 0) == []
    assert receiver.received == []


async def test_callbacks_repeated(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.configure(callbacks="repeated")
    task_id = await api.create(callback_url=receiver.url)
    assert sorted(await receiver.wait_for(6)) == ["running"] * 3 + ["succeeded"] * 3
    assert len(await quiet(ark, task_id, 6)) == 6


async def test_callbacks_reversed(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.configure(callbacks="reversed")
    task_id = await api.create(callback_url=receiver.url)
    assert await receiver.wait_for(2) == ["succeeded", "running"]
    assert len(await quiet(ark, task_id, 2)) == 2


async def test_callbacks_are_tried_four_times(ark: ArkControl, api: Api, receiver: Receiver) -> None:
    await ark.fault("task", "stay_running")
    receiver.answers = [503, 404]
    task_id = await api.create(callback_url=receiver.url)
    assert await quiet(ark, task_id, 3) == [("running", 1, 503), ("running", 2, 404), ("running", 3, 200)]
    receiver.answers = [500] * 9
    await ark.release(task_id)
    assert (await quiet(ark, task_id, 7))[3:] == [("succeeded", n, 500) for n in (1, 2, 3, 4)]


async def test_silent_receiver_breaks_nothing(ark: ArkControl, api: Api) -> None:
    await ark.configure(callback_timeout_seconds=0.05)
    async with serving(lambda reader, writer: asyncio.sleep(3600)) as port:
        slow = await api.create(callback_url=f"http://127.0.0.1:{port}/")
        assert [answer for _, _, answer in await quiet(ark, slow, 8)] == [None] * 8
    away = await api.create(callback_url=f"http://127.0.0.1:{port}/")
    await api.until(away, "succeeded")
    assert [answer for _, _, answer in await quiet(ark, away, 8)] == [None] * 8
    assert {one.error for one in await ark.deliveries() if one.task_id == slow} == {"TimeoutError"}
    assert {one.error for one in await ark.deliveries() if one.task_id == away} == {"ConnectError"}
