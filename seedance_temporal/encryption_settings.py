"""The settings of the encryption of payloads, and of the codec endpoint that shows them to those who may read them."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from seedance_temporal.encryption_keys import EncryptionKey, named_values, parse_keys
from seedance_temporal.errors import InvalidSettings
from seedance_temporal.identity import user_hash

ENCRYPTION_SECRETS = ("seedance_encryption_keys", "seedance_codec_tokens")
# A shorter token can be guessed.
_LEAST_LETTERS = 32
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_HOW = f"write NAME:TOKEN with commas between them, where TOKEN has {_LEAST_LETTERS} letters or more"


class EncryptionSettings(BaseSettings):
    """The part of ``Settings`` that keeps requests out of Temporal's database."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    seedance_encryption_keys: SecretStr | None = None
    """Keys that encrypt all payloads before Temporal has them, as ``ID:KEY`` with commas between them, where KEY is the
    base64 of 32 random bytes. The first one encrypts, all of them decrypt. Workers, command line and backends need the
    same; unset: nothing is encrypted.
    """
    seedance_codec_tokens: SecretStr | None = None
    """Who may read payloads through ``codec.py``, as ``NAME:TOKEN`` with commas between them; it needs at least
    one.
    """
    seedance_codec_origin: str | None = None
    """The origin of Temporal's UI, such as ``https://temporal.example.com``, whose pages may ask the codec endpoint;
    unset: none.
    """
    seedance_codec_host: str = "127.0.0.1"
    """The address that ``codec.py`` listens on."""
    seedance_codec_port: Annotated[int, Field(ge=0, le=65_535)] = 8090
    """The port that ``codec.py`` listens on."""

    @field_validator("seedance_encryption_keys")
    @classmethod
    def _keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keys(value.get_secret_value())
        return value

    @field_validator("seedance_codec_tokens")
    @classmethod
    def _tokens(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        tokens = list(named_values(value.get_secret_value(), _HOW))
        for place, _, token in tokens:
            if len(token) < _LEAST_LETTERS:
                raise ValueError(f"{place} has a token of {len(token)} letters; {_LEAST_LETTERS} are the least")
            if not _TOKEN.fullmatch(token):
                raise ValueError(f"{place} has a token with a letter that no header Authorization can carry")
        if len({token for _, _, token in tokens}) < len(tokens):
            raise ValueError("gives the same token to several names")
        return value

    @field_validator("seedance_codec_origin")
    @classmethod
    def _bare_origin(cls, value: str | None) -> str | None:
        if value is None:
            return value
        origin = value.strip().rstrip("/").lower()
        try:
            parts = urlsplit(origin)
            known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or "@" in origin or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("is no origin: write scheme, host and port alone, such as https://temporal.example.com")
        return origin

    @classmethod
    def of_environment(cls) -> Self:
        """Read these settings alone: what connects to Temporal needs no others.

        Raises:
            InvalidSettings: One of them is wrong.
        """
        try:
            return cls()
        except ValidationError as error:
            problems = [f"{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
            raise InvalidSettings("; ".join(problems)) from None

    @cached_property
    def encryption_keys(self) -> tuple[EncryptionKey, ...]:
        """The keys, of which the first one encrypts; none: nothing is encrypted."""
        given = self.seedance_encryption_keys
        return parse_keys(given.get_secret_value()) if given is not None else ()

    @cached_property
    def codec_tokens(self) -> dict[str, str]:
        """The tokens of those who may read payloads, by their names."""
        given = self.seedance_codec_tokens
        return {n: token for _, n, token in named_values(given.get_secret_value(), _HOW)} if given is not None else {}

    def user_key(self, user_id: str) -> str:
        """Return a name of a user that holds no id, by which jobs of the same user are found to be that."""
        return self.encryption_keys[0].pseudonym(user_id) if self.encryption_keys else user_hash(user_id)
