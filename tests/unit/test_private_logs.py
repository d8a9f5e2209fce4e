"""With encryption on, the logs hold no texts of exceptions and no URLs of requests."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from temporalio.exceptions import ApplicationError

from workers.log_format import RedactingFormatter
from workers.private_logs import keep_private


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that is kept private, and what it has written."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(RedactingFormatter())
    httpx, logger = logging.getLogger("httpx"), logging.getLogger("tests.private")
    level = httpx.level
    keep_private(handler)
    for each in (httpx, logger):
        each.addHandler(handler)
    yield logger, written
    httpx.setLevel(level)
    for each in (httpx, logger):
        each.removeHandler(handler)


def test_exception_keeps_type_and_lines(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    try:
        try:
            raise ValueError("inner basalt")
        except ValueError as inner:
            raise ApplicationError("outer basalt", type="Refused") from inner
    except ApplicationError:
        logger.warning("Completing activity as failed", exc_info=True)
    read = written.getvalue()
    assert "basalt" not in read.replace('raise ValueError("inner basalt")', "").replace(
        'raise ApplicationError("outer basalt", type="Refused") from inner', ""
    ), "lines of code hold no values"
    for words in (
        "Completing activity as failed",
        "ApplicationError Refused (",
        "ValueError (",
        "test_private_logs.py",
    ):
        assert words in read


def test_http_requests_are_not_logged(log: tuple[logging.Logger, io.StringIO]) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET https://cdn.example.com/basalt.png")
    assert log[1].getvalue() == ""


def test_other_records_are_written_as_they_are(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    logger.warning("task %s is not asked for", "cgt-1")
    assert written.getvalue().endswith("WARNING tests.private: task cgt-1 is not asked for\n")
