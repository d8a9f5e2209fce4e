"""The log of a UTC day: a numbered entry for each paid create that was allowed, and later what it cost.

All users, accounts and labels share it, so that one create-only write reserves in all of them, or in none. Two workers
cannot both create one number: the one that comes second reads on, and decides again by what it read.
"""

from __future__ import annotations

import asyncio
import re
import time
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from seedance_temporal.identity import limits_folder
from seedance_temporal.job import Moment
from seedance_temporal.ledger.facts import ActualCost, Fact
from seedance_temporal.ledger.store import LedgerDamaged
from seedance_temporal.storage.bucket import Bucket, as_json

MICRO = 1_000_000
_NUMBERED = re.compile(r"[0-9]{6,}\.json")
_DIGITS = 6
_BLOCK = 100
_M = TypeVar("_M", bound=BaseModel)


class QuotaEntry(Fact):
    """The permission for one paid create.

    Attributes:
        resubmits: How many resubmits had been granted: with the job, it names the attempt that may be paid for.
        usd: The most that it should cost, of CNY by the rate of that time; None where that was not known.
        user: The user, as a hash: a user id can name a person.
        at: When it was added.
        payers: What it counts for: the account, and the labels.
        closes: Whether it permits nothing, and ends the log: later entries belong to later days.
    """

    job_id: str
    resubmits: int
    usd: float | None
    at: Moment
    user: str = ""
    payers: tuple[str, ...] = ()
    closes: bool = False

    @property
    def micro(self) -> int:
        """The highest cost in millionths of a USD: floats do not add up exactly."""
        return round(self.usd * MICRO) if self.usd is not None else 0

    @property
    def key(self) -> tuple[str, int, frozenset[str]]:
        """What it permits: the same job with other labels needs an entry of its own, which counts for those."""
        return self.job_id, self.resubmits, frozenset(self.payers)


class SpendingLog:
    """The log of one day, as far as this process has read it. Entries never change, so each is read once.

    Attributes:
        entries: By number, from 1 on.
        actual: The costs that are known, by number, in millionths of a USD.
        closed: Whether the log is known to have ended.
        read_since, corrected_since: When the newest reading of entries, and of costs, began, by the monotonic clock.
        turns: For those in this process that want to add an entry: they need not race each other.
    """

    def __init__(self, bucket: Bucket, prefix: str, day: date) -> None:
        self._bucket = bucket
        folder = limits_folder(prefix, day.isoformat())
        self._log, self._actual = f"{folder}log/", f"{folder}actual/"
        self._keys: dict[tuple[str, int, frozenset[str]], int] = {}
        self.day = day
        self.entries: dict[int, QuotaEntry] = {}
        self.actual: dict[int, int] = {}
        self.closed = False
        self.read_since = self.corrected_since = float("-inf")
        self.turns = asyncio.Lock()
        self._reading = asyncio.Lock()

    def find(self, entry: QuotaEntry) -> int | None:
        """Return the number of the entry that permits the same, as far as the log was read."""
        return self._keys.get(entry.key)

    def counted(self, number: int) -> int:
        """Return what an entry counts for, in millionths of a USD: what was billed, or the most that may be."""
        return self.actual.get(number, self.entries[number].micro)

    def used_by(self, payer: str) -> int:
        """Return what the entries of an account or a label count for, in millionths of a USD."""
        return sum(self.counted(number) for number, entry in self.entries.items() if payer in entry.payers)

    def reference(self, number: int) -> str:
        """Return the name by which a claim refers to an entry."""
        return f"{self.day.isoformat()}/{number:06d}"

    async def add(self, entry: QuotaEntry) -> int | None:
        """Add an entry after those that are known.

        None where another one is there, or our own after a lost answer, and where the log is closed.
        """
        if self.closed:
            return None
        number = len(self.entries) + 1
        if not await self._bucket.create(self._name(number), as_json(entry.model_dump(mode="json"))):
            return None
        self._take(number, entry)
        return number

    async def read_on(self) -> None:
        """Read the entries that this process does not know."""
        since = time.monotonic()
        if self.closed:
            pass
        elif self.entries:
            while await self._read_block():
                pass
        else:
            # From the beginning, what must not be in it is seen as well.
            await self._read(await self._list(1))
        self.read_since = since

    async def read_after(self, asked: float) -> None:
        """Read on, unless a reading began after a time by the monotonic clock: all who wait share the next one."""
        async with self._reading:
            if self.read_since < asked:
                await self.read_on()

    async def close(self, now: datetime) -> None:
        """End the log, so that what was read of it stays all that is in it; those who add an entry race this one."""
        while not self.closed:
            await self.read_on()
            await self.add(QuotaEntry(job_id="", resubmits=0, usd=0, at=now, closes=True))

    async def read_actual(self) -> None:
        """Read the costs that this process does not know, from one listing."""
        since = time.monotonic()
        for stored in await self._bucket.list(self._actual):
            number = self._number(stored.name, self._actual)
            if number not in self.actual:
                micro = int(stored.kind) if stored.kind and stored.kind.isdecimal() else await self._cost(stored.name)
                self.actual[number] = micro
        self.corrected_since = since

    async def _list(self, first: int, beginning: str = "") -> list[int]:
        """List the numbers of entries from one on, of those whose names begin so; none of them may be missing."""
        listed = await self._bucket.list(self._log + beginning)
        numbers = [number for stored in listed if (number := self._number(stored.name, self._log)) >= first]
        if missing := set(range(first, max(numbers, default=0) + 1)) - set(numbers):
            raise LedgerDamaged(self._bucket.name, self._name(min(missing)), "is missing: put it back")
        return numbers

    async def _read_block(self) -> bool:
        """Read the entries of the block that the next one is in; return whether there can be more in the block after.

        A log of thousands takes several requests to be listed, and its newest block takes one.
        """
        first = len(self.entries) + 1
        await self._read(await self._list(first, f"{first // _BLOCK:0{_DIGITS - 2}d}"))
        return not self.closed and (len(self.entries) + 1) // _BLOCK > first // _BLOCK

    async def _read(self, numbers: list[int]) -> None:
        # What was read is kept where an activity runs out of time, so that the next one ends with more.
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK]
            for number, entry in zip(block, await asyncio.gather(*map(self._entry, block)), strict=True):
                self._take(number, entry)

    def _take(self, number: int, entry: QuotaEntry) -> None:
        if entry.closes:
            self.closed = True
            return
        self.entries[number] = entry
        self._keys[entry.key] = number

    def _name(self, number: int) -> str:
        return f"{self._log}{number:0{_DIGITS}d}.json"

    def _number(self, name: str, folder: str) -> int:
        if not _NUMBERED.fullmatch(name.removeprefix(folder)):
            raise LedgerDamaged(self._bucket.name, name, "is no entry of a quota: move it away")
        return int(PurePosixPath(name).stem)

    async def _entry(self, number: int) -> QuotaEntry:
        return await self._fact(self._name(number), QuotaEntry)

    async def _cost(self, name: str) -> int:
        return round((await self._fact(name, ActualCost)).usd * MICRO)

    async def _fact(self, name: str, model: type[_M]) -> _M:
        content = await self._bucket.read(name)
        if content is None:
            raise FileNotFoundError(f"{name} was listed, and cannot be read")
        try:
            return model.model_validate_json(content)
        except ValidationError:
            raise LedgerDamaged(self._bucket.name, name, "is no entry of a quota, or is cut: put it back") from None
