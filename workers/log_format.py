"""The format of the logs of worker and relay, without secrets."""

from __future__ import annotations

import logging

from seedance_temporal.urls import printable, redacted


class RedactingFormatter(logging.Formatter):
    """Format records without the given secrets, also in the tracebacks of other libraries."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        # The message of a record is one line; the traceback that is added to it has several.
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return redacted(printable(super().format(record), keep="\n"), self._secrets)
