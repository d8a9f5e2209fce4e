"""The request for one video. Shape only: what a model allows is checked by :class:`~seedance_temporal.Rules`.

A request crosses Temporal, and is decoded again for as long as its run is kept. A rule in here that a later
release tightens would leave running jobs undecodable; so field types are all that is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict, model_validator
from pydantic.json_schema import JsonSchemaValue

if TYPE_CHECKING:
    from seedance_temporal.provider.rules import Rules


class _AnyText:
    """Accepts any text, while editors and the JSON schema name the values that are known: ``Literal[...] | str``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        self._known = get_args(get_args(source)[0])
        return handler(str)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": list(self._known)}, handler(schema)]}


RouteName = Annotated[Literal["byteplus", "volcengine"] | str, _AnyText()]
ModelName = Annotated[
    Literal[
        "dreamina-seedance-2-0-260128",
        "dreamina-seedance-2-0-fast-260128",
        "dreamina-seedance-2-0-mini-260615",
        "dreamina-seedance-2-5-260628",
        "seedance-1-5-pro-251215",
        "doubao-seedance-2-0-260128",
        "doubao-seedance-2-0-fast-260128",
        "doubao-seedance-2-0-mini-260615",
        "doubao-seedance-2-5-260628",
        "doubao-seedance-1-5-pro-251215",
    ]
    | str,
    _AnyText(),
]
Role = Annotated[
    Literal["first_frame", "last_frame", "reference_image", "reference_video", "reference_audio"] | str, _AnyText()
]
Ratio = Annotated[Literal["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive"] | str, _AnyText()]
Resolution = Annotated[Literal["480p", "720p", "1080p", "4k"] | str, _AnyText()]
ServiceTier = Annotated[Literal["default", "flex"] | str, _AnyText()]
OutputFormat = Annotated[Literal["mp4", "mov"] | str, _AnyText()]
TaskType = Annotated[Literal["auto", "reference", "edit", "extend"] | str, _AnyText()]


class _Given(BaseModel, frozen=True, extra="forbid", strict=True):
    """The fields that a caller gave. Null counts as absent, as it does for the provider."""

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

    role: Role
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

    The constructor checks shapes; :meth:`from_json`, :meth:`from_dict` and ``VideoJobs.submit`` check the rules too.

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
    route: RouteName
    model: ModelName
    prompt: str | None = None
    references: Annotated[tuple[Reference, ...], Strict(False)] = ()
    ratio: Ratio = "16:9"
    resolution: Resolution = "720p"
    duration: int = 5
    generate_audio: bool = False
    watermark: bool = False
    return_last_frame: bool = False
    seed: int | None = None
    camera_fixed: bool | None = None
    service_tier: ServiceTier | None = None
    priority: int | None = None
    execution_expires_after: int | None = None
    draft: bool | None = None
    output_format: OutputFormat | None = None
    omni_reference_task_type: TaskType | None = None
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
