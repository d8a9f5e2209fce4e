"""Objects beside a video that say which contents were verified: only an object that equals one of them is committed.

They are written before the upload. So a later try, or an audit years later, can distinguish a verified video from a
damaged upload, and from a foreign object under its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from seedance_temporal.identity import ObjectNames
from seedance_temporal.job import Shape
from seedance_temporal.ledger.checksummed_json import opened, sealed
from seedance_temporal.ledger.record import RecordedObject
from seedance_temporal.storage.bucket import Bucket, Checksums, StoredObject


class OtherContent(Exception):
    """The object of a file was not verified. The message names it, in sentences."""


class Verified(Shape):
    """A content that was verified. The same content always gives the same object.

    Attributes:
        file: The name that it goes under, such as ``output.mp4``: a picture never counts as a video.
        size: Bytes.
        crc32c, md5: Base64, as the bucket gives them.
    """

    task_id: str
    file: str
    size: int
    crc32c: str
    md5: str

    def equals(self, stored: StoredObject | RecordedObject) -> bool:
        """Return whether an object has this content; the MD5 is compared where the object has one."""
        same = (stored.size, stored.crc32c) == (self.size, self.crc32c)
        return same and stored.md5 in {None, self.md5}


def is_verified_object(name: str) -> bool:
    """Return whether an object of this name should say that a content was verified."""
    return name.rpartition("/")[2].startswith("verified-")


def read_verified(names: ObjectNames, name: str, content: bytes) -> Verified:
    """Read the object of a job that says that a content was verified.

    Raises:
        ValueError: It is damaged or foreign. The message is the end of a sentence: "the object …".
    """
    value = opened(content)
    if sealed(value) != content:
        raise ValueError("carries no SHA-256")
    try:
        found = Verified.model_validate(value)
    except ValidationError:
        raise ValueError("lacks the fields of such an object") from None
    try:
        expected = names.verified(found.task_id, found.crc32c)
    except ValueError:
        raise ValueError("holds a CRC32C that is not base64") from None
    if name != expected:
        raise ValueError(f"is about the content of {expected}")
    return found


@dataclass
class TaskFiles:
    """The files of one task in the bucket, and which contents were verified for them.

    Attributes:
        verified: The verified contents, by the name of the object that says so.
        damaged: Why such an object does not count, by name.
    """

    bucket: Bucket
    names: ObjectNames
    task_id: str
    objects: dict[str, StoredObject] = field(default_factory=dict)
    verified: dict[str, Verified] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def name(self, file: str) -> str:
        return self.names.of_task(self.task_id, file)

    def uri(self, file: str) -> str:
        return f"gs://{self.bucket.name}/{self.name(file)}"

    @property
    def warnings(self) -> list[str]:
        """Sentences that name each damaged object."""
        return [f"gs://{self.bucket.name}/{name} {why}, and was ignored." for name, why in self.damaged.items()]

    def get(self, file: str) -> StoredObject | None:
        """Return the object of a file, verified or not."""
        return self.objects.get(self.name(file))

    async def read(self) -> None:
        """List the objects, and read which contents were verified."""
        self.objects = {stored.name: stored for stored in await self.bucket.list(self.name(""))}
        self.verified, self.damaged = {}, {}
        for name in filter(is_verified_object, self.objects):
            content = await self.bucket.read(name)
            if content is None:
                continue
            try:
                self.verified[name] = read_verified(self.names, name, content)
            except ValueError as error:
                self.damaged[name] = str(error)

    def find_verified(self, file: str) -> StoredObject | None:
        """Return the object of a file, if it equals a verified content.

        Another run may have verified it: two runs can be given different bytes.
        """
        stored = self.get(file)
        return stored if stored is not None and any(one.equals(stored) for one in self._verified(file)) else None

    def refuse_unverified(self, file: str) -> None:
        """Refuse an object that equals no verified content.

        Before any content was verified, the object may be the upload of an older worker, and is not refused.

        Raises:
            OtherContent: There is such an object.
        """
        stored = self.get(file)
        if stored is not None and self._verified(file) and self.find_verified(file) is None:
            raise self._other(stored, file, *self._verified(file))

    async def put(self, path: Path, file: str, content: Checksums, content_type: str) -> StoredObject | None:
        """Write that a file was verified, upload it if it has no object yet, and compare the object.

        If a foreign object has the name of the ``verified-…`` object, the file is uploaded all the same: this run has
        verified it, and a later one downloads it again.

        Returns:
            The object; None where it was removed meanwhile.

        Raises:
            OtherContent: The object equals no content that was verified.
        """
        verified = Verified(task_id=self.task_id, file=file, size=content.size, crc32c=content.crc32c, md5=content.md5)
        name = self.name(file)
        await self.bucket.create(self.names.verified(self.task_id, content.crc32c), sealed(verified.model_dump()))
        stored = await self.bucket.stat(name)
        stored = stored or await self.bucket.upload(name, path, content_type) or await self.bucket.stat(name)
        if stored is None or verified.equals(stored):
            return stored
        # Another run may have been given other bytes, and have verified and uploaded them.
        await self.read()
        if (found := self.find_verified(file)) is not None:
            return found
        raise self._other(stored, file, verified)

    def _verified(self, file: str) -> list[Verified]:
        return [one for one in self.verified.values() if one.file == file]

    def _other(self, stored: StoredObject, file: str, *verified: Verified) -> OtherContent:
        expected = " or ".join(f"{one.size} bytes with CRC32C {one.crc32c}" for one in verified)
        conflict = (
            f"{self.uri(file)} should hold {expected}, as verified, and holds {stored.size} bytes with CRC32C "
            f"{stored.crc32c}. Nothing was overwritten. Inspect the object, and move it away."
        )
        return OtherContent(" ".join([conflict, *self.warnings]))
