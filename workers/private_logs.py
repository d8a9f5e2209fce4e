"""Keep requests out of the logs where they are kept out of Temporal: failures quote prompts and URLs."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

# It logs the URL of every request.
_HTTP_LIBRARY = "httpx"
_LEFT_OUT = "(its text is in Temporal's UI: SEEDANCE_ENCRYPTION_KEYS keeps it out of logs)"


def keep_private(handler: logging.Handler) -> None:
    """Leave the texts of exceptions, and the URLs of requests, out of what a handler writes."""
    handler.addFilter(_without_texts)
    logging.getLogger(_HTTP_LIBRARY).setLevel(logging.WARNING)


def _without_texts(record: logging.LogRecord) -> bool:
    """Replace an exception by its type, and the places in the code that it passed."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.exc_info = None
        record.exc_text = "\n".join(_shown(error))
    return True


def _shown(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield from (line.rstrip("\n") for line in traceback.format_tb(following.__traceback__))
        kind = getattr(following, "type", None)
        yield f"{type(following).__name__}{f' {kind}' if isinstance(kind, str) else ''} {_LEFT_OUT}"
        following = following.__cause__
