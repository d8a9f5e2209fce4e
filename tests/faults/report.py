"""The results of a run of the fault tests, as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

AddRow = Callable[[str, dict[str, object]], None]


@dataclass
class Report:
    """Tables by their title, in the order of their first rows."""

    columns: dict[str, Sequence[str]] = field(default_factory=dict)
    rows: dict[str, list[list[str]]] = field(default_factory=dict)

    def add(self, title: str, row: dict[str, object]) -> None:
        """Add a row; its keys are the table's columns."""
        self.columns.setdefault(title, list(row))
        self.rows.setdefault(title, []).append([str(value) for value in row.values()])

    def markdown(self) -> str:
        """Return all tables."""
        parts = []
        for title, rows in self.rows.items():
            lines = [self.columns[title], ["--"] * len(self.columns[title]), *sorted(rows)]
            parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
        return "\n".join(parts)
