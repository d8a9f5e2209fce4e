"""Read what a process exposes to Prometheus."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

import httpx

_LINE = re.compile(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Sample(NamedTuple):
    """A series and its value."""

    name: str
    labels: dict[str, str]
    value: float


class Scrape(list[Sample]):
    """The series of one scrape."""

    @classmethod
    def of(cls, text: str) -> Scrape:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        matches = [match for line in lines if (match := _LINE.fullmatch(line))]
        assert len(matches) == len(lines), text
        return cls(
            Sample(name, dict(_LABEL.findall(labels or "")), float(value))
            for name, labels, value in map(re.Match.groups, matches)
        )

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the series that have these labels; None where there is none."""
        found = [each.value for each in self if each.name == name and labels.items() <= each.labels.items()]
        return sum(found) if found else None


async def scrape(port: int) -> Scrape:
    """Scrape the process that exposes metrics on a port."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics")
    answer.raise_for_status()
    return Scrape.of(answer.text)


def base_name(series: str) -> str:
    """Return the metric that a series of a histogram belongs to, or its own name."""
    return re.sub(r"_(bucket|sum|count)$", "", series)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
