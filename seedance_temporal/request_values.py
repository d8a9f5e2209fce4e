"""The values of a request that are known, as types. Any other text is a value as well: rules are checked elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue


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
        "dreamina-seedance-2-5-premium-260915",
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
