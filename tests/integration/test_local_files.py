"""References that are files on the machine of the command line: found, refused, and brought into the bucket once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seedance_temporal.cli.local_files import RequestReader, Uploads, folder_of, spinner
from seedance_temporal.cli.runtime import BucketRefused
from seedance_temporal.errors import InvalidRequest, InvalidSettings
from seedance_temporal.identity import request_hash
from seedance_temporal.provider.models import MEDIA
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import GoogleBucket, StoredObject
from tests.support.command_line import run_command
from tests.support.jobs import some_settings
from tests.support.media_files import clip, picture, sound
from tests.support.memory_bucket import MemoryBucket

CONTENT = picture()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"seedance/media/{SHA256}.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shot.png").write_bytes(CONTENT)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "Same.PNG").write_bytes(CONTENT)
    (tmp_path / "pictures" / "other.webp").write_bytes(b"another")
    (tmp_path / "empty.png").touch()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MEDIA["image"].max_bytes + 1)
    return tmp_path


def a_reader(*, allow_any_path: bool = False, **fields: Any) -> RequestReader:
    return RequestReader(some_settings(**{"seedance_bucket": "videos"} | fields), allow_any_path=allow_any_path)


def with_urls(*urls: object, **changes: Any) -> bytes:
    references = [{"role": "reference_image", "url": url} for url in urls]
    fields = {"user_id": "u", "route": "byteplus", "model": "dreamina-seedance-2-0-260128", "references": references}
    return json.dumps(fields | changes).encode()


def good(reader: RequestReader, text: bytes, folder: Path) -> VideoRequest:
    """The request, whose files were read and not probed."""
    request, found = reader.inspect(text, folder)
    assert found == []
    return request


def problems(reader: RequestReader, text: bytes, folder: Path) -> dict[str, str]:
    """The problems before the files are probed."""
    try:
        _, found = reader.inspect(text, folder)
    except InvalidRequest as refused:
        found = [*refused.problems]
    assert found
    return {problem.at: problem.problem for problem in found}


async def unfit(reader: RequestReader, text: bytes, folder: Path) -> dict[str, str]:
    """All problems."""
    with pytest.raises(InvalidRequest) as refused:
        await reader.read(text, folder)
    return {problem.at: problem.problem for problem in refused.value.problems}


async def uploaded(bucket: MemoryBucket, reader: RequestReader, *requests: VideoRequest) -> list[VideoRequest]:
    with spinner() as progress:
        uploads = Uploads(bucket, reader.files, progress)
        return [*await asyncio.gather(*map(uploads.uploaded, requests))]


class Opened:
    """Record every path that this process opens in a block; ``followed``: those whose last link was followed.

    An audit hook is permanent, so that all tests share one.
    """

    def __init__(self) -> None:
        self._paths: list[str] | None = None
        self.followed: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._paths is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
            self._paths.append(os.fspath(arguments[0]))
            if not arguments[2] & os.O_NOFOLLOW:
                self.followed.append(self._paths[-1])

    @contextmanager
    def heard(self) -> Iterator[list[str]]:
        paths: list[str] = []
        self._paths, self.followed = paths, []
        try:
            yield paths
        finally:
            self._paths = None


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


# Found


@pytest.mark.parametrize("path", ["shot.png", "./shot.png", "pictures/../shot.png", "pictures/Same.PNG"])
def test_path_becomes_object_of_its_content(folder: Path, path: str) -> None:
    reader = a_reader()
    (reference,) = good(reader, with_urls(path), folder).references
    assert reference.url == f"gs://videos/{NAME}#1"
    assert reference.asset_id == f"sha256:{SHA256}"
    assert reader.files[reference.url].size == len(CONTENT)


def test_absolute_path_is_read(folder: Path, tmp_path: Path) -> None:
    (reference,) = good(a_reader(), with_urls(str(tmp_path / "shot.png")), Path("/")).references
    assert reference.asset_id == f"sha256:{SHA256}"


def test_prefix_comes_from_the_settings(folder: Path) -> None:
    (reference,) = good(a_reader(seedance_prefix="staging"), with_urls("shot.png"), folder).references
    assert reference.url == f"gs://videos/staging/media/{SHA256}.png#1"


def test_given_asset_id_is_unchanged(folder: Path) -> None:
    text = with_urls()[:-3] + b'[{"role": "reference_image", "url": "shot.png", "asset_id": "sku-7"}]}'
    (reference,) = good(a_reader(), text, folder).references
    assert reference.asset_id == "sku-7"


def test_job_depends_on_content_not_path(folder: Path) -> None:
    reader = a_reader()
    hashes = [request_hash(good(reader, with_urls(path), folder)) for path in ("shot.png", "pictures/Same.PNG")]
    elsewhere = good(a_reader(seedance_bucket="other", seedance_prefix="other"), with_urls("shot.png"), folder)
    assert {*hashes, request_hash(elsewhere)} == {hashes[0]}
    assert request_hash(good(reader, with_urls("pictures/other.webp"), folder)) != hashes[0]


def test_url_with_scheme_is_no_path(folder: Path) -> None:
    urls = ["https://cdn.example.com/a.png", "asset://a", "gs://b-1/a.png#7"]
    reader = a_reader(seedance_bucket=None)
    assert [one.url for one in good(reader, with_urls(*urls), folder).references] == urls
    assert reader.files == {}


def test_paths_are_relative_to_request_or_folder(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path / "request.json")) == tmp_path
    assert folder_of("-") is None


def test_standard_input_names_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = with_urls("shot.png")
    (problem,) = a_reader().inspect(text, None)[1]
    assert "standard input" in problem.problem
    assert "--allow-any-path" in problem.problem
    assert a_reader(allow_any_path=True).inspect(text, None)[1] == []


# Refused


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("none.png", "No such file"),
        ("pictures", "is a directory"),
        ("empty.png", "is empty"),
        ("large.png", f"{MEDIA['image'].max_bytes} are allowed"),
        ("shot.png/more", "Not a directory"),
        ("a\0b", "cannot be read"),
        ("file:///shot.png", "give the plain path"),
        ("FILE:shot.png", "give the plain path"),
        ("lone \ud800.png", "surrogates not allowed"),
        ("ftp://example.com/a.png", "not an https URL"),
        ("", "not an https URL"),
        ("~nobody/shot.png", "No such file"),
    ],
)
def test_path_without_usable_content_is_refused(folder: Path, url: str, says: str) -> None:
    found = problems(a_reader(), with_urls("shot.png", url), folder)
    assert found.keys() == {"references[1].url"}
    assert says in found["references[1].url"]


def test_all_problems_are_reported_at_once(folder: Path) -> None:
    text = with_urls("none.png", "data:x", duration=99, colour="red")
    assert problems(a_reader(), text, folder).keys() == {"references[0].url", "references[1].url", "duration", "colour"}


@pytest.mark.parametrize("references", ["shot.png", ["shot.png"], [None], [{"url": 7}], {"url": "shot.png"}])
def test_any_json_gives_an_error(folder: Path, references: object) -> None:
    assert any(at.startswith("references") for at in problems(a_reader(), with_urls(references=references), folder))
    assert problems(a_reader(), json.dumps([references]).encode(), folder) == {"": "the request must be a JSON object"}


def test_repeated_name_is_reported(folder: Path) -> None:
    text = with_urls()[:-3] + b'[{"role": "reference_image", "url": "shot.png", "url": "shot.png"}]}'
    assert "more than once" in problems(a_reader(), text, folder)["references[0].url"]


def test_missing_bucket_is_reported_alone(folder: Path) -> None:
    with pytest.raises(InvalidSettings, match="SEEDANCE_BUCKET"):
        good(a_reader(seedance_bucket=None), with_urls("shot.png", duration=99), folder)


def test_price_limits_hold_before_submit(folder: Path) -> None:
    reader = a_reader(seedance_max_usd_per_request=0.01)
    assert "SEEDANCE_MAX_USD_PER_REQUEST" in problems(reader, with_urls("shot.png"), folder)[""]


# Outside of the folder

SECRET = picture(700, 500)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a request, with files beside it that are not to be read."""
    outer = tmp_path_factory.mktemp("outer")
    folder = outer / "request"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "shot.png").write_bytes(CONTENT)
    (folder / "deep" / "shot.png").write_bytes(CONTENT)
    (folder / "near").symlink_to("deep/../shot.png")
    (outer / "elsewhere").mkdir()
    for path in (outer / "outside.png", outer / "elsewhere" / "outside.png"):
        path.write_bytes(SECRET)
    (folder / "link").symlink_to("../outside.png")
    (folder / "chain").symlink_to("deep/er/link")
    (folder / "deep" / "er" / "link").symlink_to("../../link")
    (folder / "absolute").symlink_to(outer / "outside.png")
    (folder / "up").symlink_to("..")
    (folder / "deep" / "up").symlink_to(outer / "elsewhere")
    (folder / "loop").symlink_to("loop")
    return folder


OUTSIDE = [
    *("/etc/passwd", "//etc/passwd", "/etc/../etc/passwd", "/", "..", "../..", "../request/../outside.png"),
    *("../outside.png", "./deep/../../outside.png", "deep/er/../../../outside.png/", "../" * 40 + "etc/passwd"),
    *("{outer}/outside.png", "{folder}/../outside.png", "{folder}x/outside.png", "none/../../outside.png"),
    *("link", "chain", "absolute", "./link/", "up/outside.png", "deep/up/outside.png", "up/elsewhere/../outside.png"),
    *("../e\u0301.png", "../\u202egnp.exe", "../\x1b]0;x\x07", "../a\0b", "/proc/self/environ", "/dev/zero"),
]


@pytest.mark.parametrize("url", OUTSIDE)
def test_path_outside_is_refused_unread(tree: Path, opened: Opened, url: str) -> None:
    path, reader = url.format(outer=tree.parent, folder=tree), a_reader()
    with opened.heard() as paths:
        (said,) = problems(reader, with_urls(path), tree).values()
    assert "leads out of the folder of the request" in said
    assert "--allow-any-path" in said
    assert said.isprintable()
    assert (paths, reader.files) == ([], {})


@pytest.mark.parametrize(
    ("there", "absent"), [("../outside.png", "../nothing.png"), ("/etc/passwd", "/etc/none"), ("link", "{outer}/none")]
)
def test_outside_sentence_hides_what_exists(tree: Path, there: str, absent: str) -> None:
    absent = absent.format(outer=tree.parent)
    first, second = (problems(a_reader(), with_urls(path), tree)["references[0].url"] for path in (there, absent))
    assert first.partition(" leads ")[2] == second.partition(" leads ")[2] != ""


STEPS = ["..", ".", "", "deep", "er", "up", "link", "chain", "absolute", "loop", "near", "shot.png", "outside.png"]
STEPS += ["elsewhere", "request", "none", "e\u0301", "\uff0e\uff0e", "~", "\0", "\x1b[2J", "etc", "passwd"]


@given(
    start=st.sampled_from(["", "./", "/", "//", "///", "{outer}/", "{folder}/", "/{folder}/", "{folder}"]),
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=9),
    end=st.sampled_from(["", "/", "/.", "\0", " "]),
)
@example(start="", steps=["up", "outside.png"], end="")
@example(start="./", steps=["none", "..", "..", "outside.png"], end="")
@settings(max_examples=400)
def test_no_spelling_reads_outside(tree: Path, opened: Opened, start: str, steps: list[str], end: str) -> None:
    path, reader = start.format(outer=tree.parent, folder=tree) + "/".join(steps) + end, a_reader()
    with opened.heard() as paths:
        _, found = reader.inspect(with_urls(path), tree)
    # From the folder on, name by name and through no link: nothing outside can be met.
    assert [path for path in paths if path == ".." or ("/" in path and path != str(tree))] == opened.followed == []
    assert [file.sha256 for file in reader.files.values()] in ([], [SHA256])
    assert all(problem.problem.isprintable() for problem in found)


@pytest.mark.parametrize(
    "url", ["near", "deep/er/../../shot.png", "../request/shot.png", "{folder}/shot.png", "none/../near"]
)
def test_path_that_comes_back_is_accepted(tree: Path, url: str) -> None:
    (reference,) = good(a_reader(), with_urls(url.format(folder=tree)), tree).references
    assert reference.asset_id == f"sha256:{SHA256}"


def test_folder_behind_a_link_is_the_folder(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tree)
    for path in ("shot.png", str(tmp_path / "other" / "shot.png"), str(tree / "shot.png")):
        good(a_reader(), with_urls(path), tmp_path / "other")
    assert problems(a_reader(), with_urls("../outside.png"), tmp_path / "other")


@pytest.mark.parametrize("url", ["../outside.png", "{outer}/outside.png", "link", "chain", "up/outside.png"])
async def test_any_path_may_be_allowed(tree: Path, url: str) -> None:
    text = with_urls(url.format(outer=tree.parent))
    (reference,) = (await a_reader(allow_any_path=True).read(text, tree)).references
    assert reference.asset_id == f"sha256:{hashlib.sha256(SECRET).hexdigest()}"


# No regular file, or no medium


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(path.parent)  # its path may have no more than 107 bytes
        try:
            one.bind(path.name)
        finally:
            os.chdir(before)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("allow_any_path", [False, True])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "a FIFO, a socket"),
        (a_socket, "a FIFO, a socket"),
        (Path.mkdir, "is a directory"),
        (lambda path: path.symlink_to(path.name), "a link"),
    ],
)
def test_irregular_file_is_refused_unopened(
    tmp_path: Path, opened: Opened, make: Callable[[Path], None], says: str, allow_any_path: bool
) -> None:
    make(tmp_path / "x.png")
    with opened.heard() as paths:
        found = problems(a_reader(allow_any_path=allow_any_path), with_urls("x.png"), tmp_path)
    assert says in found["references[0].url"]
    assert "x.png" not in paths


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/stdin", "/dev/tty", "/proc/self/environ", "/proc/kmsg", "/sys/power"]
)
def test_kernel_files_are_refused_with_any_path(tmp_path: Path, opened: Opened, path: str) -> None:
    (tmp_path / "link.png").symlink_to(path)
    reader = a_reader(allow_any_path=True)
    with opened.heard() as paths:
        found = problems(reader, with_urls(path, "link.png"), tmp_path)
    assert "no file on a disk" in found["references[0].url"]
    assert found.keys() == {"references[0].url", "references[1].url"}
    assert not {"zero", "environ", "kmsg", "stdin", "tty"} & {Path(each).name for each in paths}


async def test_media_of_each_kind_are_accepted(tmp_path: Path) -> None:
    contents = {"image": picture(), "video": clip(), "audio": sound()}
    for kind, content in contents.items():
        (tmp_path / kind).write_bytes(content)
    references = [{"role": f"reference_{kind}", "url": kind} for kind in contents]
    request = await a_reader().read(with_urls(references=references), tmp_path)
    assert len(request.references) == 3
    names = {"image": "video", "video": "audio", "audio": "image"}
    crossed = [{"role": f"reference_{kind}", "url": name} for kind, name in names.items()]
    found = await unfit(a_reader(), with_urls(references=crossed), tmp_path)
    assert found.keys() == {f"references[{index}].url" for index in range(3)}


@pytest.mark.parametrize(
    "content",
    [
        b"root:x:0:0:s3cret\n",
        b"BM" + bytes(12) + b"\x28\0\0\0" + b"s3" * 40,
        b"\x89PNG\r\n\x1a\n\0\0\0\x09s3cretxx",
        b"RIFFs3cretWAVE",
    ],
)
@pytest.mark.parametrize(
    ("role", "wanted"), [("image", "a picture as jpeg"), ("video", "a video as mp4"), ("audio", "a sound as")]
)
async def test_text_with_a_medium_name_is_refused(tmp_path: Path, content: bytes, role: str, wanted: str) -> None:
    (tmp_path / "notes.png").write_bytes(content)
    text = with_urls(
        references=[{"role": f"reference_{role}", "url": "notes.png"}, {"role": "reference_image", "url": "asset://a"}]
    )
    (said,) = (await unfit(a_reader(), text, tmp_path)).values()
    assert "notes.png" in said
    assert wanted in said
    assert "s3" not in said
    assert str(int.from_bytes(b"s3", "little")) not in said


async def test_machine_files_are_no_media_with_any_path(tmp_path: Path) -> None:
    found = await unfit(a_reader(allow_any_path=True), with_urls("/etc/passwd"), tmp_path)
    assert "is no picture" in found["references[0].url"]
    assert "root" not in found["references[0].url"]


async def test_media_limits_hold_before_upload(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(picture(9, 9))
    assert "each side must have" in (await unfit(a_reader(), with_urls("small.png"), tmp_path))["references[0]"]


# Swapped

Swap = Callable[[Path], object]


def link_to_text(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def link_to_the_same(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def folder_as_link(path: Path) -> None:
    path.parent.rename(path.parents[1] / "moved")
    path.parent.symlink_to("moved")


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SWAPS: dict[str, Swap] = {
    "other content": lambda path: path.write_bytes(picture(700, 500)),
    "same size": lambda path: path.write_bytes(CONTENT[:-1] + b"?"),
    "longer": lambda path: path.write_bytes(CONTENT + b"?"),
    "link to text": link_to_text,
    "link to the same": link_to_the_same,
    "folder as link": folder_as_link,
    "as FIFO": as_fifo,
    "removed": Path.unlink,
}
each_swap = pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS.keys())


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    path = tmp_path / "sub" / "shot.png"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.mark.timeout(20)
@each_swap
async def test_file_swapped_after_probe_is_not_uploaded(tmp_path: Path, shot: Path, swap: Swap) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    request = await reader.read(with_urls("sub/shot.png"), tmp_path)
    swap(shot)
    with pytest.raises(BucketRefused, match=r"was changed|cannot be read|is a FIFO"):
        await uploaded(bucket, reader, request)
    assert bucket.writes == []


@pytest.mark.timeout(20)
@each_swap
async def test_file_swapped_before_probe_is_refused(tmp_path: Path, shot: Path, swap: Swap) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    request = good(reader, with_urls("sub/shot.png"), tmp_path)
    swap(shot)
    media, found = await reader.media_of(request)
    assert (media, [problem.at for problem in found]) == ({}, ["references[0].url"])
    with pytest.raises(BucketRefused, match=r"was changed|cannot be read|is a FIFO"):
        await uploaded(bucket, reader, request)
    assert bucket.writes == []


class SlowBucket(MemoryBucket):
    """Something happens at the last moment: directly before a content is sent."""

    def __init__(self, meanwhile: Callable[[str], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    async def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        self._meanwhile(name)
        return await super().upload(name, path, content_type)


@each_swap
async def test_late_swap_of_file_changes_nothing(tmp_path: Path, shot: Path, swap: Swap) -> None:
    reader, bucket = a_reader(), SlowBucket(lambda _: swap(shot))
    await uploaded(bucket, reader, await reader.read(with_urls("sub/shot.png"), tmp_path))
    assert bucket.contents == {NAME: CONTENT}


async def test_no_copy_stays_behind(folder: Path, opened: Opened) -> None:
    reader = a_reader()
    with opened.heard() as paths:
        await uploaded(MemoryBucket(), reader, await reader.read(with_urls("shot.png"), folder))
    copies = {Path(path) for path in paths if Path(path).name == "reference"}
    assert len(copies) == 2
    assert not [copy for copy in copies if copy.parent.exists()]


# By the command


@pytest.mark.parametrize("command", ["submit", "check", "batch"])
@pytest.mark.parametrize(
    ("url", "options"),
    [("/etc/passwd", []), ("/etc/passwd", ["--allow-any-path"]), ("notes.png", []), ("../shot.png", [])],
)
async def test_refused_file_leaves_the_bucket_empty(
    tmp_path: Path, google: GoogleBucket, bucket_env: dict[str, str], command: str, url: str, options: list[str]
) -> None:
    (tmp_path / "shot.png").write_bytes(CONTENT)
    file = tmp_path / "request" / "request.json"
    file.parent.mkdir()
    file.with_name("notes.png").write_text("no picture at all")
    file.write_bytes(with_urls(url))
    options = [*options, "--yes"] if command == "batch" else options
    # No Temporal is there: what had come so far would end with another exit code.
    said = await run_command(None, command, str(file), "--json", *options, **bucket_env)
    assert said.code == 2, said.err
    assert said.document["error"]["code"] == "invalid_request"
    assert said.document["error"]["problems"][0]["at"].endswith("references[0].url")
    assert await google.list("") == []


STEERING = "a\x1b[2J\x07\u202e\r[red]b"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"references": [{"role": "reference_image", "url": f"{STEERING}.png"}]}, 2),
        ({"references": [{"role": "reference_image", "url": f"../{STEERING}.png"}]}, 2),
        ({STEERING: 1}, 2),
        ({"prompt": STEERING}, 0),
    ],
)
async def test_foreign_text_does_not_steer_the_terminal(tmp_path: Path, changes: dict[str, Any], code: int) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(with_urls(**{"references": [], "prompt": "a cat"} | changes))
    said = await run_command(None, "check", str(file), SEEDANCE_BUCKET="videos")
    assert said.code == code, said.err
    assert not {*"\x1b\x07\u202e\r"} & {*said.out, *said.err}
    assert r"a\x1b[2J" in said.out + said.err


# Uploaded


async def test_file_is_uploaded_once(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    requests = [good(reader, with_urls("shot.png", "pictures/other.webp", take=take), folder) for take in range(1, 9)]
    sent = await uploaded(bucket, reader, *requests)
    assert bucket.contents[NAME] == CONTENT
    assert len(bucket.writes) == 2
    for before, after in zip(requests, sent, strict=True):
        assert request_hash(after) == request_hash(before)
        assert after.references[0].url == f"gs://videos/{NAME}#{bucket.stored[NAME].generation}"
    # Another day, by another process.
    (again,) = await uploaded(bucket, reader, requests[0])
    assert again == sent[0]
    assert len(bucket.writes) == 2


async def test_lost_object_is_uploaded_again(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    request = good(reader, with_urls("shot.png"), folder)
    (first,) = await uploaded(bucket, reader, request)
    del bucket.stored[NAME]
    (second,) = await uploaded(bucket, reader, request)
    assert first.references[0].url != second.references[0].url
    assert request_hash(first) == request_hash(second)


async def test_other_urls_are_unchanged(folder: Path) -> None:
    reader = a_reader()
    request = good(reader, with_urls("https://cdn.example.com/a.png"), folder)
    bucket = MemoryBucket()
    assert await uploaded(bucket, reader, request) == [request]
    assert bucket.writes == []


async def test_object_with_other_content_is_refused(folder: Path) -> None:
    bucket, reader = MemoryBucket(), a_reader()
    await bucket.create(NAME, b"not what its name says")
    with pytest.raises(BucketRefused, match="exists with another content"):
        await uploaded(bucket, reader, good(reader, with_urls("shot.png"), folder))


async def test_existing_upload_of_same_content_is_used(folder: Path) -> None:
    reader = a_reader()
    bucket = SlowBucket(lambda name: bucket._put(name, CONTENT))
    (sent,) = await uploaded(bucket, reader, good(reader, with_urls("shot.png"), folder))
    assert sent.references[0].url == f"gs://videos/{NAME}#1"


async def test_broken_bucket_is_one_clear_error(folder: Path) -> None:
    reader = a_reader()
    bucket = MemoryBucket(broken=ConnectionError("no route to https://storage.example.com/o?upload_id=secret"))
    with pytest.raises(BucketRefused, match=r"shot.png' cannot be uploaded to gs://videos/.*no route") as refused:
        await uploaded(bucket, reader, good(reader, with_urls("shot.png"), folder))
    assert "secret" not in str(refused.value)
