"""The local Ark's results: what a URL allows, and what the bytes are."""

import io
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import av
import httpx
import pytest

from dev.ark.control import ArkControl
from dev.ark.media import Clip, last_frame, last_frame_jpeg, video
from dev.process import running_ark
from tests.support.ark_api import Api, an_api
from tests.support.jobs import BODY, present

SWITCHES = {
    "url_seconds": 86_400,
    "downloads_per_url": 100,
    "resign_urls": False,
    "get_per_second": None,
    "last_frame": "png",
}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with running_ark("--queued-seconds", "0", "--running-seconds", "0") as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.clear_faults()
    await server.configure(**SWITCHES)
    return server


@pytest.fixture
async def api(ark: ArkControl) -> AsyncIterator[Api]:
    body = BODY | {"ratio": "16:9", "generate_audio": False, "return_last_frame": True}
    async with an_api(ark, body=body) as api:
        yield api


async def test_url_serves_get_only(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    url = task["content"]["video_url"]
    assert url.startswith(f"{ark.url}/results/{task['id']}/video.mp4?")
    assert parse_qs(urlsplit(url).query)["X-Tos-Expires"] == ["86400"]
    assert (await api.http.head(url)).status_code == 403
    answer = await api.http.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.content == await ark.video_bytes(task["id"])


async def test_url_needs_its_signature(api: Api) -> None:
    task, other = await api.create_until("succeeded"), await api.create_until("succeeded")
    url, query = task["content"]["video_url"], urlsplit(other["content"]["video_url"]).query
    bare = url.partition("?")[0]
    assert (await api.http.get(bare)).status_code == 403
    assert (await api.http.get(f"{bare}?{query}")).status_code == 403
    assert (await api.http.get(url.replace(task["id"], "cgt-none"))).status_code == 403
    assert (
        await api.http.get(task["content"]["last_frame_url"].replace("last_frame.png", "video.mp4"))
    ).status_code == 403


async def test_url_expires(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    url = task["content"]["video_url"]
    assert (await api.http.get(url)).status_code == 200
    await ark.configure(url_seconds=0)
    assert (await api.http.get(url)).status_code == 403


async def test_url_wears_out(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    url = task["content"]["video_url"]
    statuses = [(await api.http.get(url, headers={"Range": "bytes=0-0"})).status_code for _ in range(101)]
    assert statuses == [206] * 100 + [403]
    assert (await api.http.get(task["content"]["last_frame_url"])).status_code == 200
    assert (await ark.requests()).tasks[task["id"]].download == 102


async def test_url_changes_only_when_set(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    assert (await api.get(task["id"])).json()["content"] == task["content"]
    await ark.configure(resign_urls=True)
    again = (await api.get(task["id"])).json()["content"]["video_url"]
    assert again != task["content"]["video_url"]
    for url in (again, task["content"]["video_url"]):
        assert (await api.http.get(url)).status_code == 200


async def test_range_is_served(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    url = task["content"]["video_url"]
    whole = await ark.video_bytes(task["id"])

    async def part(asked: str, **headers: str) -> tuple[int, bytes, str | None]:
        answer = await api.http.get(url, headers={"Range": asked, **headers})
        return answer.status_code, answer.content, answer.headers.get("content-range")

    size = len(whole)
    assert await part("bytes=10-19") == (206, whole[10:20], f"bytes 10-19/{size}")
    assert await part("bytes=100-") == (206, whole[100:], f"bytes 100-{size - 1}/{size}")
    assert await part("bytes=-5") == (206, whole[-5:], f"bytes {size - 5}-{size - 1}/{size}")
    assert await part(f"bytes=0-{size + 9}") == (206, whole, f"bytes 0-{size - 1}/{size}")
    assert await part(f"bytes={size}-") == (416, b"", f"bytes */{size}")
    assert await part("bytes=0-1", **{"If-Range": '"another"'}) == (200, whole, None)
    etag = (await api.http.get(url)).headers["etag"]
    assert (await part("bytes=0-1", **{"If-Range": etag}))[0] == 206


async def test_key_at_result_url_is_leak(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    assert await ark.leaks() == []
    assert (await api.http.get(task["content"]["video_url"])).status_code == 200
    assert await ark.leaks() == []
    await api.http.get(task["content"]["video_url"], headers={"Authorization": "Bearer secret"})
    (leak,) = await ark.leaks()
    assert (leak.scheme, leak.path) == ("Bearer", f"/results/{task['id']}/video.mp4")


async def test_object_outlives_record(api: Api) -> None:
    task = await api.create_until("succeeded")
    await api.delete(task["id"])
    assert (await api.http.get(task["content"]["video_url"])).status_code == 200


async def test_last_frame_comes_on_request(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    picture = await api.http.get(task["content"]["last_frame_url"])
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == await ark.video_bytes(task["id"], "last_frame.png")
    without = await api.create_until("succeeded", return_last_frame=False)
    assert set(without["content"]) == {"video_url"}
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await ark.video_bytes(without["id"], "last_frame.png")


async def test_last_frame_can_be_jpeg(ark: ArkControl, api: Api) -> None:
    await ark.configure(last_frame="jpeg")
    task = await api.create_until("succeeded")
    picture = await api.http.get(task["content"]["last_frame_url"])
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content == await ark.video_bytes(task["id"], "last_frame.jpeg")


async def test_video_has_the_requested_shape(api: Api) -> None:
    task = await api.create_until("succeeded", resolution="720p", ratio="9:16", duration=15, generate_audio=True)
    with av.open(io.BytesIO((await api.http.get(task["content"]["video_url"])).content), "r") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (720, 1280)
        assert abs(present(container.duration) / 1e6 - task["duration"]) < 0.1


@pytest.mark.parametrize(
    "clip",
    [
        Clip(864, 496, 4, audio=False),
        Clip(1470, 630, 5, audio=True),
        Clip(834, 1112, 15, audio=True),
        Clip(3326, 2494, 4, audio=True),
    ],
)
def test_video_has_its_stated_properties(clip: Clip) -> None:
    data = video(clip, "cgt-1")
    assert data.index(b"moov") < data.index(b"mdat")  # it can start before it is all there
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (clip.width, clip.height)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 24
        assert [sound.codec_context.name for sound in container.streams.audio] == ["aac"] * int(clip.audio)
        assert [sound.codec_context.channels for sound in container.streams.audio] == [1] * int(clip.audio)
        assert sum(1 for _ in container.decode(video=0)) == 24 * clip.seconds + 1


def test_picture_moves() -> None:
    with av.open(io.BytesIO(video(Clip(640, 640, 4, audio=False), "cgt-1")), "r") as container:
        rows = [bytes(frame.planes[0])[:640] for frame in container.decode(video=0)]
    assert len(set(rows[:24])) == 24


def test_two_tasks_never_have_the_same_bytes() -> None:
    clip = Clip(640, 640, 4, audio=False)
    assert video(clip, "cgt-1") == video(clip, "cgt-1") != video(clip, "cgt-2")
    for picture in (last_frame, last_frame_jpeg):
        assert picture(clip, "cgt-1") == picture(clip, "cgt-1") != picture(clip, "cgt-2")


@pytest.mark.parametrize(
    ("make", "begins"), [(last_frame, b"\x89PNG"), (last_frame_jpeg, b"\xff\xd8\xff\xfe")], ids=["png", "jpeg"]
)
def test_last_frame_is_that_of_video(make: Callable[[Clip, str], bytes], begins: bytes) -> None:
    clip = Clip(640, 640, 4, audio=False)
    with av.open(io.BytesIO(video(clip, "cgt-1")), "r") as container:
        *_, end = container.decode(video=0)
    assert make(clip, "cgt-1").startswith(begins)
    with av.open(io.BytesIO(make(clip, "cgt-1")), "r") as container:
        (picture,) = container.decode(video=0)
    assert (picture.width, picture.height) == (640, 640)
    ours, theirs = (bytes(frame.reformat(format="gray").planes[0]) for frame in (picture, end))
    # Encoding loses a little; the next picture but one differs by far more.
    assert sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours) < 8
