"""The keys of the encryption of payloads: how their setting is read, and the pseudonyms of users that they make."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from seedance_temporal.urls import printable

# The names of format and key in a payload's metadata, as Temporal's samples have them in all languages.
ENCODING = "binary/encrypted"
KEY_ID = "encryption-key-id"
# Others may write to the namespace: of a name that is none of ours, an error shows the beginning.
_SHOWN_LETTERS = 64
KEY_BYTES = 32
# Of what another program derives from the same key, none is equal to these.
_PURPOSE = b"seedance-temporal: pseudonyms of users"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOW = "write ID:KEY with commas between them, where KEY is the base64 of 32 random bytes"


@dataclass(frozen=True)
class EncryptionKey:
    """A key of AES-256.

    Attributes:
        id: The public name of the key, which every payload that is encrypted with it carries.
        secret: Its bytes.
        text: Its base64, as the setting has it: no text may hold it.
    """

    id: str
    secret: bytes = field(repr=False)
    text: str = field(repr=False)

    def pseudonym(self, user_id: str) -> str:
        """Return a user's pseudonym: 16 hex digits that nobody without the key can verify a guess of the id by."""
        purpose = hmac.new(self.secret, _PURPOSE, hashlib.sha256).digest()
        return hmac.new(purpose, user_id.encode(), hashlib.sha256).hexdigest()[:16]


def key_id_of(metadata: Mapping[str, bytes]) -> str:
    """Return the id of the key in the metadata of an encrypted payload."""
    return printable(metadata.get(KEY_ID, b"").decode(errors="replace")[:_SHOWN_LETTERS])


def parse_keys(text: str) -> tuple[EncryptionKey, ...]:
    """Read ``id:base64`` pairs with commas between them. No message holds a part of the text but the ids.

    Raises:
        ValueError: The text is no list of keys.
    """
    keys = tuple(_key(place, name, value) for place, name, value in named_values(text, _HOW))
    for secret, count in Counter(key.secret for key in keys).items():
        if count > 1:
            same = ", ".join(key.id for key in keys if key.secret == secret)
            raise ValueError(f"holds the same key under several ids: {same}")
    return keys


def named_values(text: str, how: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and value of ``name:value`` pairs with commas between them.

    Raises:
        ValueError: A pair is none, or a name is given twice. The message names it by its place: what is written where
            a name should be can be a secret.
    """
    seen: set[str] = set()
    for number, pair in enumerate(text.split(","), 1):
        name, colon, value = (part.strip() for part in pair.partition(":"))
        place = f"its entry {number}"
        if not colon or not value or not _NAME.fullmatch(name):
            raise ValueError(f"{place} is no pair: {how}")
        if name in seen:
            raise ValueError(f"{place} has the name of one before it")
        seen.add(name)
        yield place, name, value


def _key(place: str, name: str, text: str) -> EncryptionKey:
    try:
        secret = b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{place} is no base64: {_HOW}") from None
    if len(secret) != KEY_BYTES:
        raise ValueError(f"{place} has {len(secret)} bytes; {KEY_BYTES} are needed")
    if len(set(secret)) == 1:
        raise ValueError(f"{place} is one byte {KEY_BYTES} times; make one with: openssl rand -base64 {KEY_BYTES}")
    return EncryptionKey(name, secret, text)
