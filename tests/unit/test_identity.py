"""The request hash: the vectors that other languages check against, and what the hash does and does not depend on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_temporal.errors import InvalidJobId
from seedance_temporal.identity import (
    ObjectNames,
    callback_token,
    callback_url,
    canonical_json,
    hash_of_job,
    id_prefix_from,
    job_id_from,
    job_id_of,
    request_hash,
    safety_identifier,
)
from seedance_temporal.request import VideoRequest

DOCS = Path(__file__).parents[2] / "docs/reference"
PAGE = (DOCS / "request-hash.md").read_text(encoding="utf-8")
VECTORS: list[dict[str, Any]] = json.loads(re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0])
EXAMPLE: dict[str, Any] = VECTORS[0]["request"]
TOKEN = "9ac9acbae36d7258513270238992c02f7581b53028dacb727136a72ee1edd70f"


def hash_of(**changes: Any) -> str:
    return request_hash(VideoRequest.model_validate(EXAMPLE | changes))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    request = VideoRequest.model_validate(vector["request"])
    assert canonical_json(request) == vector["canonical"].encode()
    assert request_hash(request) == vector["sha256"]


def test_page_has_distinct_vectors() -> None:
    assert len(re.findall(r"^```json$", PAGE, re.MULTILINE)) == 1
    assert len(VECTORS) >= 20
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)
    assert VECTORS[0]["sha256"] == "95c3ef118fb58f0ac4b99acd591d56dc271d9cd00502ddab390021d7c20672fa"


def in_javascript(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the page's script; skips the test where nothing can run it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine: the hash in JavaScript was not checked")
    command = [node, str(DOCS / "request-hash.mjs"), *arguments]
    return subprocess.run(command, input=given, capture_output=True, encoding="utf-8", timeout=60, check=False)


def test_javascript_gives_the_same() -> None:
    done = in_javascript(given=json.dumps([vector["request"] for vector in VECTORS]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"canonical": vector["canonical"], "sha256": vector["sha256"]} for vector in VECTORS
    ]


def test_javascript_checks_the_page(tmp_path: Path) -> None:
    done = in_javascript(str(DOCS / "request-hash.md"))
    assert (done.returncode, done.stdout) == (0, f"{len(VECTORS)} of {len(VECTORS)} vectors are right\n")
    spoilt = tmp_path / "page.md"
    spoilt.write_text(PAGE.replace(VECTORS[0]["sha256"], "0" * 64, 1), encoding="utf-8")
    done = in_javascript(str(spoilt))
    assert done.returncode == 1
    assert f"differs: {VECTORS[0]['name']}" in done.stdout


def test_hash_page_links_the_javascript() -> None:
    assert "](request-hash.mjs)" in PAGE
    assert not re.search(r"^```(js|javascript)$", PAGE, re.MULTILINE)


@given(st.permutations(list(EXAMPLE)))
def test_order_of_fields_does_not_count(names: list[str]) -> None:
    assert hash_of() == request_hash(VideoRequest.model_validate({name: EXAMPLE[name] for name in names}))


def test_hash_survives_temporal() -> None:
    request = VideoRequest.model_validate(EXAMPLE)
    assert request_hash(VideoRequest.model_validate_json(request.model_dump_json())) == request_hash(request)


@pytest.mark.parametrize("character", "\t\n\v\f\r \u00a0\u3000")
def test_white_space_folds(character: str) -> None:
    assert hash_of(prompt=f"{character}a{character * 3}b{character}") == hash_of(prompt="a b")


@pytest.mark.parametrize("character", "\u0085\u1680\u2000\u2003\u200b\u2028\u202f\u205f\ufeff\x1c\x1f")
def test_nothing_else_folds(character: str) -> None:
    assert hash_of(prompt=f"a{character}b") != hash_of(prompt="a b")
    assert hash_of(prompt=f"ab{character}") != hash_of(prompt="ab")


def test_job_id() -> None:
    request = VideoRequest.model_validate(EXAMPLE)
    assert job_id_of(request) == f"seedance-{VECTORS[0]['sha256']}"
    assert hash_of_job(job_id_of(request)) == VECTORS[0]["sha256"]


def test_texts_that_name_a_job() -> None:
    digits = "0123456789abcdef" * 4
    assert job_id_from(digits) == job_id_from(f"seedance-{digits}") == f"seedance-{digits}"
    assert id_prefix_from(digits[:6]) == id_prefix_from(f"seedance-{digits[:6]}") == "seedance-012345"
    assert id_prefix_from(digits) == f"seedance-{digits}"


WRONG_TEXTS = {
    hash_of_job: [
        *("", "seedance-", "a" * 64, " seedance-" + "a" * 64),
        *(f"seedance-{digits}" for digits in ("a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n")),
    ],
    job_id_from: ["", "seedance-", "a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n", "seedance_" + "a" * 64],
    id_prefix_from: ["", "seedance-", "a" * 5, "a" * 65, "A" * 6, "aaaaaa\n", "seedance-aaaaa", "aaaaa%", "aaaaag"],
}


@pytest.mark.parametrize(("read", "text"), [(read, text) for read, texts in WRONG_TEXTS.items() for text in texts])
def test_text_that_names_no_job_is_refused(read: Callable[[str], str], text: str) -> None:
    with pytest.raises(InvalidJobId, match="at least 6 hex digits" if read is id_prefix_from else "not a job id"):
        read(text)


def test_object_names() -> None:
    names = ObjectNames("seedance", "ab12")
    assert names.root == "seedance/ab12/"
    assert names.record == "seedance/ab12/record.json"
    assert names.attempt(1, "claim") == "seedance/ab12/attempts/0001.claim.json"
    assert names.late(12, "cgt-1") == "seedance/ab12/attempts/0012.late-cgt-1.json"
    assert names.of_task("cgt-1", "output.mp4") == "seedance/ab12/cgt-1/output.mp4"
    assert names.verified("cgt-1", "AAECAw==") == "seedance/ab12/cgt-1/verified-00010203.json"
    with pytest.raises(ValueError, match="base64"):
        names.verified("cgt-1", "AAEC?w==")


@pytest.mark.parametrize("task_id", ["../../other", "a/b", "a b", "%2e"])
def test_task_id_never_leaves_its_folder(task_id: str) -> None:
    names = ObjectNames("seedance", "ab12")
    assert names.of_task(task_id, "output.mp4").count("/") == 3
    assert names.late(1, task_id).count("/") == 3


def test_safety_identifier() -> None:
    nonce = "0123456789abcdef" * 2
    identifier = safety_identifier("user-42 é", nonce)
    user, _, rest = identifier.partition("-")
    assert user == hashlib.sha256("user-42 é".encode()).hexdigest()[:16]
    assert rest == nonce
    assert len(identifier) <= 64
    assert identifier.isascii()


def test_callback_token_is_hmac_sha256() -> None:
    # Computed with: printf 'seedance-x:1' | openssl dgst -sha256 -hmac secret
    assert callback_token("secret", "seedance-x", 1) == TOKEN
    others = {callback_token("Secret", "seedance-x", 1), callback_token("secret", "seedance-x", 11)}
    assert TOKEN not in others
    assert callback_url("https://relay.example.com/hooks/", "secret", "seedance-x", 1) == (
        f"https://relay.example.com/hooks/callbacks/seedance-x/1/{TOKEN}"
    )
