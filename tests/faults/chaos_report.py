"""The report of a campaign of chaos."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.chaos_plan import Plan


@dataclass
class Report:
    """The results of a round of chaos, or of several."""

    seeds: list[int]
    jobs: int
    minutes: float
    armed: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    resolved: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    posts: int = 0
    paid: int = 0
    grants: int = 0
    billed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan) -> Report:
        return cls([plan.seed], len(plan.jobs), plan.minutes)

    def add(self, other: Report) -> None:
        """Add the results of another round."""
        for name, value in vars(other).items():
            if isinstance(value, dict):
                for key, number in value.items():
                    vars(self)[name][key] = vars(self)[name].get(key, 0) + number
            else:
                vars(self)[name] += value

    def markdown(self) -> str:
        """Return the run as tables."""
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        verdict = f"BROKEN: {len(self.problems)}." if self.problems else "Every invariant held."
        lines = [
            f"Seeds {', '.join(map(str, self.seeds))}; {self.jobs} jobs, {self.minutes:.1f} minutes of trouble "
            f"({spent}). "
            f"{self.posts} POSTs reached the provider, {self.paid} made a task, {self.grants} further attempts were "
            f"asked for, {self.billed} tasks were billed. {verdict}",
            *_table("the job ended", "jobs", self.outcomes),
            *_table("settled by an operator", "times", self.resolved),
            *_table("done to processes, runs and accounts", "times", self.done),
            "",
            "| fault | armed | fired |",
            "| -- | -- | -- |",
            *(f"| {name} | {times} | {self.fired[name]} |" for name, times in sorted(self.armed.items())),
        ]
        return "\n".join(lines) + "\n"


def _table(title: str, counted: str, counts: Counter[str]) -> list[str]:
    rows = [f"| {name} | {times} |" for name, times in sorted(counts.items())]
    return ["", f"| {title} | {counted} |", "| -- | -- |", *rows]
