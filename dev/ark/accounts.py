"""The accounts, one for each route: their keys, their standing, and how often they may call."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .catalog import Route
from .errors import ArkError
from .keys import Key
from .settings import Settings

Operation = Literal["create", "get", "list", "delete"]

_STANDINGS = {
    "AuthenticationError": 401,
    "InvalidAccountStatus": 401,
    "AccountOverdueError": 403,
    "OperationDenied.ServiceNotOpen": 403,
    "AccessDenied": 403,
    "SetLimitExceeded": 429,
    "QuotaExceeded": 429,
}
# As a standing it is the free trial that is used up; that a queue is full passes by itself, and is a fault to arm.
_WORDS = {"QuotaExceeded": "The free trial quota of the account has been used up."}

_TOLERANCE = 0.05  # of a call: a client that keeps the pace to the letter must not be refused


class AccountChange(BaseModel):
    """A change of an account by the admin API; absent fields stay."""

    model_config = ConfigDict(extra="forbid")

    key_valid: bool | None = None  # false: every key of the account gets 401
    standing: str | None = None  # "ok", or the code that creates get instead; 401 codes hold for every call


@dataclass
class Pace:
    """Allow `rate` calls a second, and `burst` of them at once."""

    burst: int
    _saved: float = math.inf  # calls that may pass now; filled up to `burst`
    _looked: float = 0.0

    def allows(self, rate: float) -> bool:
        now = time.monotonic()
        self._saved = min(self.burst, self._saved + (now - self._looked) * rate)
        self._looked = now
        if self._saved < 1 - _TOLERANCE:
            return False
        self._saved -= 1
        return True


class Account:
    """One account: the keys of one route do not open the other. Standing and rate limits are those of all its keys."""

    def __init__(self, route: Route, keys: Iterable[Key], settings: Settings) -> None:
        self.route = route
        self.key_valid = True
        self.standing = "ok"
        self._keys = {key.key: key for key in keys}
        self._settings = settings
        self._paces = {"get": Pace(20), "delete": Pace(20), "list": Pace(1)}
        self._creates: dict[bool, list[float]] = {False: [], True: []}  # at 4k or not: monotonic times of a minute

    def change(self, change: AccountChange) -> None:
        """Revoke or restore the keys, or set the standing.

        Raises:
            ValueError: an unknown standing.
        """
        if change.standing not in (None, "ok", *_STANDINGS):
            raise ValueError(f"no standing {change.standing!r}; known: ok, {', '.join(_STANDINGS)}")
        if change.key_valid is not None:
            self.key_valid = change.key_valid
        if change.standing is not None:
            self.standing = change.standing

    def put_key(self, key: Key) -> None:
        """Add a key, or replace what the account knows of it. It holds from the next call on."""
        self._keys[key.key] = key

    def remove_key(self, key: str) -> None:
        """Remove a key: it gets 401 from now on, and its tasks stay in their project.

        Raises:
            ValueError: the account has no such key.
        """
        if self._keys.pop(key, None) is None:
            raise ValueError("the account has no such key")

    def state(self) -> dict[str, object]:
        """Return the account as the admin API shows it."""
        keys = [key.model_dump(mode="json") for key in self._keys.values()]
        return {"key_valid": self.key_valid, "standing": self.standing, "keys": keys}

    def admit(self, operation: Operation, authorization: str) -> Key:
        """Admit a call, and return its key.

        Args:
            operation: what is called.
            authorization: the header, "" if there was none.

        Raises:
            ArkError: 401 for a wrong key; what the account's standing says; 429 over the rate limit.
        """
        scheme, _, given = authorization.partition(" ")
        key = self._keys.get(given)
        if scheme.lower() != "bearer" or key is None or not self.key_valid:
            raise ArkError(401, "AuthenticationError", "The API key in the request is missing or invalid.")
        status = _STANDINGS.get(self.standing)
        if status == 401 or (status is not None and operation == "create"):
            raise ArkError(status, self.standing, _WORDS.get(self.standing, "The account cannot be used."))
        if operation != "create" and not self._in_time(operation):
            raise _too_fast(operation)
        return key

    def admit_create(self, *, is_4k: bool) -> None:
        """Admit a create that is valid. 2.0 at 4k has a rate of its own.

        Raises:
            ArkError: 429 over the rate limit.
        """
        limit = self._settings.create_per_minute_4k if is_4k else self._settings.create_per_minute
        now = time.monotonic()
        creates = self._creates[is_4k] = [at for at in self._creates[is_4k] if now - at < 60]
        if limit is not None and len(creates) >= limit:
            raise _too_fast("create")
        creates.append(now)

    def _in_time(self, operation: Operation) -> bool:
        rates = {
            "get": self._settings.get_per_second,
            "delete": self._settings.delete_per_second,
            "list": self._settings.list_per_second,
        }
        rate = rates[operation]
        return rate is None or self._paces[operation].allows(rate)


def _too_fast(operation: Operation) -> ArkError:
    return ArkError(429, "RateLimitExceeded", f"The account's rate limit for {operation} is exceeded.")
