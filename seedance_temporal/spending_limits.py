"""The settings that limit what may be spent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from seedance_temporal.json_settings import LabelBudget, check_budgets, decode

# In millionths of a USD, or as a time, a number that is much larger overflows.
Positive = Annotated[float, Field(gt=0, le=1_000_000_000, allow_inf_nan=False)]


class SpendingLimits(BaseSettings):
    """The part of ``Settings`` that limits what may be spent."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    seedance_max_usd_per_request: Positive | None = None
    """A request whose estimate is higher is refused; unset: no limit."""
    seedance_max_jobs_per_user_day: Annotated[int, Field(gt=0)] | None = None
    """Paid creates that a user is allowed in a UTC day; unset: no limit."""
    seedance_max_usd_per_user_day: Positive | None = None
    """The most that a user's creates of a UTC day may cost together, by estimate, in USD; unset: no limit."""
    seedance_max_usd_per_day: Positive | None = None
    """The budget of the route's account for a UTC day, in USD; unset: none."""
    seedance_max_usd_per_month: Positive | None = None
    """The same for a UTC month."""
    seedance_label_budgets: Annotated[dict[str, LabelBudget], NoDecode, Field(default_factory=dict)]
    """Budgets of labels, of both routes, as JSON: ``{"project=alpha": {"usd_per_day": 20, "usd_per_month": 300}}``."""
    seedance_over_budget: Literal["refuse", "wait"] = "refuse"
    """Whether a job over a budget ends (``refuse``), or waits until there is room again (``wait``)."""

    @field_validator("seedance_label_budgets", mode="before")
    @classmethod
    def _read_budgets(cls, value: object) -> object:
        return decode(value, or_file=False) if isinstance(value, str) else value

    @field_validator("seedance_label_budgets")
    @classmethod
    def _of_labels(cls, budgets: dict[str, LabelBudget]) -> dict[str, LabelBudget]:
        return check_budgets(budgets)

    @property
    def limited(self) -> bool:
        """Whether any limit is set on what may be spent."""
        return self.counts_spending or self.seedance_max_usd_per_request is not None

    @property
    def counts_spending(self) -> bool:
        """Whether a limit is set that needs the creates of a day to be counted."""
        limits = (self.seedance_max_jobs_per_user_day, self.seedance_max_usd_per_user_day)
        return self.has_budgets or any(limit is not None for limit in limits)

    @property
    def has_budgets(self) -> bool:
        """Whether the account or a label has a budget."""
        of_account = (self.seedance_max_usd_per_day, self.seedance_max_usd_per_month)
        return bool(self.seedance_label_budgets) or any(budget is not None for budget in of_account)
