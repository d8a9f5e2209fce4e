"""The create request, as the service has read it: every default is filled in."""

from dataclasses import dataclass
from typing import Literal

from .media import FPS, Clip
from .references import MediaUrl


@dataclass(frozen=True)
class Doom:
    """Why a task will fail, though its create is accepted."""

    code: str
    message: str


Scene = Literal["text", "first frame", "first and last frame", "references"]


@dataclass(frozen=True)
class TaskRequest:
    """One accepted create request. `model` is the model itself, also where the request named an endpoint."""

    model: str
    model_given: str
    scene: Scene
    ratio: str
    resolution: str
    size: tuple[int, int]
    duration: int
    generate_audio: bool
    watermark: bool
    return_last_frame: bool
    execution_expires_after: int
    priority: int
    service_tier: str
    draft: bool
    web_search: bool
    limited_as_4k: bool
    doom: Doom | None
    seed: int
    callback_url: str | None
    safety_identifier: str | None
    references: tuple[MediaUrl, ...]
    billed_reference_seconds: float

    @property
    def clip(self) -> Clip:
        """The shape of the video."""
        return Clip(*self.size, self.duration, self.generate_audio)

    @property
    def tokens(self) -> int:
        """The tokens that the service bills once the task has succeeded."""
        width, height = self.size
        return int(width * height * (FPS * (self.duration + self.billed_reference_seconds) + 1) / 1024)
