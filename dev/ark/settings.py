"""The switchboard: everything that can be set at start and changed while the server runs."""

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from .catalog import NewModel

Seconds = float
CallbackMode = Literal["on", "off", "repeated", "reversed", "ends"]

# What the real service takes, in its own seconds. `speed` divides them.
REAL_SECONDS: dict[str, float] = {
    "queued_seconds": 3,
    "running_seconds": 120,
    "url_seconds": 86_400,
    "kept_seconds": 7 * 86_400,
    "cancelled_kept_seconds": 86_400,
    "callback_retry_seconds": 5,
}


class Settings(BaseModel):
    """All switches. Fields named `…_seconds` are seconds of the wall clock, already divided by `speed`.

    Setting `speed` computes those in REAL_SECONDS anew, except the ones that are given beside it.
    """

    model_config = ConfigDict(extra="forbid")

    speed: PositiveFloat = 1
    queued_seconds: Seconds = Field(3, ge=0)
    running_seconds: Seconds = Field(120, ge=0)
    url_seconds: Seconds = Field(86_400, ge=0, description="how long a result URL lives, from success")
    kept_seconds: Seconds = Field(604_800, ge=0, description="how long a task is known, from its creation")
    cancelled_kept_seconds: Seconds = Field(86_400, ge=0)
    callback_retry_seconds: Seconds = Field(5, ge=0, description="between two tries of one callback")
    callback_timeout_seconds: Seconds = Field(5, gt=0, description="never divided by speed: a network's time")

    running_limit: int = Field(10, ge=0, description="tasks of one account that run at once")
    running_limit_4k: int = Field(1, ge=0, description="the same of 2.0 at 4k, which has a limit of its own")
    create_per_minute: int | None = Field(600, ge=0, description="null: no limit")
    create_per_minute_4k: int | None = Field(15, ge=0, description="the same of 2.0 at 4k")
    get_per_second: float | None = Field(20, gt=0)
    delete_per_second: float | None = Field(20, gt=0)
    list_per_second: float | None = Field(1, gt=0)
    downloads_per_url: int = Field(100, ge=0)

    callbacks: CallbackMode = "on"
    callback_queued: bool = False
    list_echo: bool = Field(True, description="LIST shows safety_identifier")
    list_of_other_models: Literal["refused", "none", "all"] = Field(
        "refused", description="what a Custom key gets that does not name filter.model: 404, nothing, all that it sees"
    )
    list_delay_seconds: Seconds = Field(0, ge=0, description="a task younger than this is not listed yet")
    list_order: Literal["newest", "oldest", "shuffled"] = Field(
        "newest", description="shuffled: anew for each request, so that pages can overlap and leave gaps"
    )
    list_failure_reason: bool = Field(False, description="LIST says failure_reason instead of error")
    create_echo: bool = Field(False, description="the answer to a create shows safety_identifier, too")
    extra_fields: dict[str, Any] = Field(default_factory=dict, description="undocumented, shown in every task")
    last_frame: Literal["png", "jpeg"] = "png"
    resign_urls: bool = Field(False, description="each GET of a task signs its URLs anew")
    allow_http_references: bool = False
    fetch_references: bool = Field(False, description="download http(s) references during the create call")
    inspect_references: bool = Field(False, description="download them, and refuse what the service would not take")
    chosen_duration: int = Field(5, ge=4, le=30, description="for duration -1, and when none is given")
    adaptive_ratio: Literal["16:9", "4:3", "1:1", "3:4", "9:16", "21:9"] = "16:9"
    reference_video_seconds: float = Field(5, ge=0, description="billed for each reference video")
    endpoints: dict[str, str] = Field(
        default_factory=dict, description="ep- id to the model behind it; others mean the route's 2.0"
    )
    models: dict[str, NewModel] = Field(default_factory=dict, description="more models, or others than it knows, by id")
    today: date | None = Field(None, description="the day by which models end; null: the day of the clock")
    public_url: str = Field("http://127.0.0.1:8089", description="what result URLs begin with")

    @model_validator(mode="before")
    @classmethod
    def _scale(cls, given: Any) -> Any:
        speed = given.get("speed", 1) if isinstance(given, dict) else None
        if not isinstance(speed, int | float) or speed <= 0:
            return given  # the field's own check says what is wrong
        return {name: real / speed for name, real in REAL_SECONDS.items()} | given

    def apply(self, changes: dict[str, Any]) -> None:
        """Change some switches in place, or none if one of them is wrong.

        Raises:
            pydantic.ValidationError: an unknown switch, or a value that does not fit.
        """
        kept = self.model_dump()
        if "speed" in changes:
            kept = {name: value for name, value in kept.items() if name not in REAL_SECONDS}
        checked = Settings.model_validate(kept | changes)
        for name in Settings.model_fields:
            setattr(self, name, getattr(checked, name))
