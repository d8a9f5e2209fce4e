"""A sealed object shows every flipped byte by itself."""

from __future__ import annotations

import json

import pytest

from seedance_temporal.ledger.checksummed_json import opened, sealed
from seedance_temporal.storage.bucket import as_json

VALUE = {"prompt": "a cät", "cost_usd": 0.25, "attempt": 1, "note": None, "rights": {}, "tasks": ["cgt-1", "cgt-2"]}


def test_sealed_value_is_opened() -> None:
    assert opened(sealed(VALUE)) == VALUE
    assert json.loads(sealed(VALUE)).keys() == {*VALUE, "sha256"}


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_every_flipped_byte_shows(bit: int) -> None:
    content = sealed(VALUE)
    for at in range(len(content)):
        damaged = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        try:
            value = opened(damaged)
        except ValueError:
            continue
        # The name of the seal itself was hit: a reader of the object's fields meets an unknown one.
        assert value.keys() - VALUE.keys(), f"byte {at}"


def test_white_space_and_double_names_show() -> None:
    content = sealed(VALUE)
    for damaged in (content + b"\n", content.replace(b'"attempt": 1', b'"attempt": 2,\n  "attempt": 1')):
        with pytest.raises(ValueError, match="SHA-256"):
            opened(damaged)


def test_object_without_seal_is_opened() -> None:
    assert opened(as_json(VALUE)) == VALUE


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "is no JSON object"), (b'{"a":1}', "not written as")],
)
def test_other_content_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        opened(content)
