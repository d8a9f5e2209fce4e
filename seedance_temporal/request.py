"""The request for one video. Shape only: what a model allows is the catalogue's business.

A request crosses Temporal, and is decoded again for as long as its run is kept. A rule in here that a later
release tightens would leave running jobs undecodable; so field types are all that is checked.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator


class _Given(BaseModel):
    """What a caller gave. Null counts as absent, as it does for the provider."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Reference(_Given):
    """A picture, video or sound that the model works from.

    Attributes:
        role: ``first_frame``, ``last_frame``, ``reference_image``, ``reference_video`` or ``reference_audio``.
        url: ``https://…``, ``gs://bucket/object#generation`` (signed by the worker) or ``asset://…``.
        asset_id: A stable name of the content. With it the request hash ignores the URL, which changes at
            every signing.
    """

    role: str
    url: str
    asset_id: str | None = None


class Rights(_Given):
    """What the caller declares about the people who are shown.

    Attributes:
        depicts_real_person: Whether a real person can be recognised.
        consent_reference: Where the consent is on file, such as a contract number.
    """

    depicts_real_person: bool = False
    consent_reference: str | None = None


class VideoRequest(_Given):
    """One video, as a backend asks for it. An unknown field is an error: the provider would ignore it, and bill.

    Attributes:
        user_id: The end user, in the backend's own terms.
        route: ``byteplus`` or ``volcengine``.
        model: A model id of that route, or an ``ep-…`` inference endpoint.
        prompt: The text; required where nothing else says what to show.
        references: Media to work from; their order counts.
        ratio: ``16:9`` and others; defaults to ``adaptive`` where there is a reference.
        resolution: ``480p``, ``720p``, ``1080p`` or ``4k``.
        duration: Seconds, or -1 to let the model choose.
        generate_audio: Whether the video has sound.
        watermark: Whether the provider's mark is shown.
        return_last_frame: Whether the last frame is stored as a picture as well.
        rights: What is declared about the people who are shown.
        take: Another rendition of the same request, on purpose.

    The remaining fields are sent only when given, and are the provider's own.
    """

    user_id: str
    route: str
    model: str
    prompt: str | None = None
    references: Annotated[tuple[Reference, ...], Strict(False)] = ()
    ratio: str = "16:9"
    resolution: str = "720p"
    duration: int = 5
    generate_audio: bool = False
    watermark: bool = False
    return_last_frame: bool = False
    seed: int | None = None
    camera_fixed: bool | None = None
    service_tier: str | None = None
    priority: int | None = None
    execution_expires_after: int | None = None
    draft: bool | None = None
    output_format: str | None = None
    omni_reference_task_type: str | None = None
    web_search: bool | None = None
    rights: Rights = Field(default_factory=Rights)
    take: int = 1

    @model_validator(mode="before")
    @classmethod
    def _adapt_to_references(cls, data: Any) -> Any:
        """The default ratio depends on the references."""
        if isinstance(data, dict) and data.get("references") and data.get("ratio") is None:
            return {**data, "ratio": "adaptive"}
        return data
