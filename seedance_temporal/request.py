"""The request for one video. Shape only: what a model allows is checked by :class:`~seedance_temporal.Rules`.

A request crosses Temporal, and is decoded again for as long as its run is kept. A rule in here that a later
release tightens would leave running jobs undecodable; so field types are all that is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, Strict, model_validator

from seedance_temporal.request_values import (
    ModelName,
    OutputFormat,
    Ratio,
    Resolution,
    Role,
    RouteName,
    ServiceTier,
    TaskType,
)

if TYPE_CHECKING:
    from seedance_temporal.provider.rules import Rules


class _Given(BaseModel, frozen=True, extra="forbid", strict=True):
    """The fields that a caller gave. Null counts as absent, as it does for the provider."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Reference(_Given):
    """A picture, video or sound that the model works from."""

    role: Role
    """``first_frame``, ``last_frame``, ``reference_image``, ``reference_video`` or ``reference_audio``."""
    url: str
    """``https://…``, ``gs://bucket/object#generation`` (signed by the worker) or ``asset://…``."""
    asset_id: str | None = None
    """A stable name of the content. With it the request hash ignores the URL, which changes at every signing."""


class Rights(_Given):
    """The caller's declarations about the people who are shown."""

    depicts_real_person: bool = False
    """Whether a real person can be recognised."""
    consent_reference: str | None = None
    """Where the consent is on file, such as a contract number."""


class VideoRequest(_Given):
    """One video, as a backend asks for it. An unknown field is an error: the provider would ignore it, and bill.

    The constructor checks shapes; :meth:`from_json`, :meth:`from_dict` and ``VideoJobs.submit`` check the rules too.
    """

    user_id: str
    """The end user, in the backend's own terms."""
    route: RouteName
    """The provider's service: ``byteplus`` (international) or ``volcengine`` (China)."""
    model: ModelName
    """A model id of that route, or an ``ep-…`` inference endpoint."""
    prompt: str | None = None
    """The text; required where nothing else says what to show."""
    references: Annotated[tuple[Reference, ...], Strict(False)] = ()
    """Media to work from; their order counts."""
    ratio: Ratio = "16:9"
    """``16:9``, ``4:3``, ``1:1``, ``3:4``, ``9:16``, ``21:9``, or ``adaptive``: the default with references."""
    resolution: Resolution = "720p"
    """``480p``, ``720p``, ``1080p`` or ``4k``, as far as the model has it; ``1080p`` is the default of a final."""
    duration: int = 5
    """Seconds, 4 to 15 on Seedance 2.0, or -1 to let the model choose."""
    generate_audio: bool = False
    """Whether the video has sound."""
    watermark: bool = False
    """Whether the provider's mark is shown."""
    return_last_frame: bool = False
    """Whether the last frame is stored as a picture as well."""

    # Sent only when given; each model allows some of them. Any default but None would change the hash of every job.
    seed: int | None = None
    """-1 to 2,147,483,647; -1 lets the provider draw one."""
    camera_fixed: bool | None = None
    """Whether the camera keeps its position."""
    service_tier: ServiceTier | None = None
    """``default`` or ``flex``, which is cheaper and slower."""
    priority: int | None = None
    """0 to 9, the provider's own; no part of the request hash."""
    execution_expires_after: int | None = None
    """Seconds after which the provider gives the task up, 3,600 to 259,200; no part of the request hash."""
    draft: bool | None = None
    """Whether to make a preview at a low resolution."""
    draft_of: str | None = None
    """The job or task id of a draft, whose final is wanted. It has the draft's model, prompt, references, length, ratio
    and sound, so none of these but the model is given again.
    """
    output_format: OutputFormat | None = None
    """``mp4`` or ``mov``."""
    omni_reference_task_type: TaskType | None = None
    """The use of the references: ``auto``, ``reference``, ``edit`` or ``extend``."""
    web_search: bool | None = None
    """Whether the model may search the web."""

    rights: Rights = Field(default_factory=Rights)
    """The declarations about the people who are shown."""
    labels: dict[str, str] | None = None
    """Up to 16 names and values of the backend's own, such as ``{"project": "alpha"}``, for budgets; no part of the
    request hash. A name has 1 to 63 of ``a-z``, ``0-9``, ``_``, ``.`` and ``-``; a value up to 128 characters.
    """
    take: int = 1
    """Another rendition of the same request, on purpose: 2, 3, …"""

    @model_validator(mode="before")
    @classmethod
    def _fitting_defaults(cls, data: Any) -> Any:
        """The default ratio depends on the references, and the default resolution on whether it is a final."""
        if not isinstance(data, dict):
            return data
        defaults = {"ratio": "adaptive"} if data.get("references") else {}
        defaults |= {"resolution": "1080p"} if data.get("draft_of") is not None else {}
        return data | {name: value for name, value in defaults.items() if data.get(name) is None}

    @classmethod
    def from_json(cls, text: str | bytes, *, rules: Rules | None = None) -> VideoRequest:
        """Read a request from JSON text, such as the body of an HTTP request, and check the rules.

        Args:
            text: The document; bytes are UTF-8. A byte order mark is ignored.
            rules: Of the deployment; those of the environment by default.

        Raises:
            InvalidRequest: It is not a request, or not one that may be paid for; ``problems`` lists everything.
            InvalidSettings: The environment is read, and wrong.
        """
        from seedance_temporal.request_json import decode_json  # which imports this module

        return cls.from_dict(decode_json(text), rules=rules)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, rules: Rules | None = None) -> VideoRequest:
        """Read a request from decoded JSON, such as a web framework gives, and check the rules.

        Args:
            data: The fields. Null counts as absent, as it does for the provider.
            rules: Of the deployment; those of the environment by default.

        Raises:
            InvalidRequest: As :meth:`from_json`; the rules are checked of every field that has the right shape.
            InvalidSettings: The environment is read, and wrong.
        """
        from seedance_temporal.errors import InvalidRequest
        from seedance_temporal.request_json import read_request
        from seedance_temporal.settings import Settings

        request, problems = read_request(data, rules or Settings.from_environment().rules)
        if problems:
            raise InvalidRequest(problems)
        return request
