"""The settings of all processes, read from the environment. Secrets are ``SecretStr``: they do not print.

``TEMPORAL_*`` is read by Temporal's own environment configuration, Google's variables by Google's library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from seedance_temporal.encryption_settings import ENCRYPTION_SECRETS, EncryptionSettings
from seedance_temporal.errors import InvalidSettings
from seedance_temporal.identity import key_fingerprint, user_hash
from seedance_temporal.json_settings import decode
from seedance_temporal.listen_address import Address
from seedance_temporal.provider.known_models import KNOWN
from seedance_temporal.provider.model_rows import ModelRow, PricePair, models_with
from seedance_temporal.provider.models import ENDPOINT, Model, Price
from seedance_temporal.provider.prices import Cost
from seedance_temporal.provider.rules import Rules
from seedance_temporal.spending_limits import Positive, SpendingLimits
from seedance_temporal.urls import https_problem, printable
from seedance_temporal.variable_names import misspelt

BASE_URLS = {
    "byteplus": "https://ark.ap-southeast.bytepluses.com/api/v3",
    "volcengine": "https://ark.cn-beijing.volces.com/api/v3",
}
Route = Literal["byteplus", "volcengine"]

# The name of an object has 1,024 bytes, of which the longest task id takes half.
_LONGEST_PREFIX = 200

# A shorter secret can be guessed, and is found in texts that do not hold it: those are cleared of it.
_LEAST_LETTERS = {
    "ark_api_key": 10,
    "seedance_callback_secret": 16,
    "seedance_callback_secret_previous": 16,
    "temporal_api_key": 10,
}
_SECRETS = tuple(_LEAST_LETTERS)
# In place of pydantic's words, by its name of the error.
_IN_OUR_WORDS = {
    "extra_forbidden": "is not known; remove it, or correct its name",
    "missing": "is missing",
    "list_type": "must be a list, […]",
    "tuple_type": "must be a list of two prices, without and with a reference video, such as [6.3, 3.9]",
    "string_type": "must be a text",
    **dict.fromkeys(("dict_type", "model_type"), "must be a JSON object, {…}"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
}
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,221}")
_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/|\Z)")


class Settings(SpendingLimits, EncryptionSettings):
    """Every variable of the project. The field's name in capitals is the variable's."""

    ark_api_key: SecretStr | None = None
    """The provider's key of the route; the worker needs it."""
    ark_route: Route = "byteplus"
    """The provider's service: ``byteplus`` or ``volcengine``."""
    ark_base_url: str | None = None
    """Base URL of the provider's API in place of the route's own, for gateways and the local Ark."""
    seedance_bucket: str | None = None
    """The bucket that videos and the ledger go to; the worker needs it."""
    seedance_prefix: str = "seedance"
    """For several environments in one bucket."""
    seedance_callback_url: str | None = None
    """The relay's public base URL; unset: polling alone."""
    seedance_callback_secret: SecretStr | None = None
    """The HMAC secret of callback URLs; the relay needs it."""
    seedance_callback_secret_previous: SecretStr | None = None
    """Still accepted during a rotation."""
    temporal_api_key: SecretStr | None = None
    """The key of Temporal Cloud. Temporal's own configuration reads it; it is known here so that no text holds it."""
    seedance_relay_host: str = "127.0.0.1"
    """The address that ``relay.py`` listens on."""
    seedance_relay_port: Annotated[int, Field(ge=0, le=65_535)] = 8088
    """The port that ``relay.py`` listens on."""
    seedance_metrics_address: Address | None = None
    """The address and port, such as ``127.0.0.1:9464``, at which this process exposes metrics to Prometheus, as
    ``/metrics``; unset: there are none. A worker and a relay on one host need one each.
    """
    seedance_metrics_look_seconds: Annotated[float, Field(ge=1, le=300)] = 60
    """Wait between two looks of a worker at Temporal and the bucket, for the metrics that need one."""
    seedance_health_address: Address | None = None
    """The address and port, such as ``127.0.0.1:8087``, at which the worker answers ``/healthz`` and ``/readyz``;
    unset: it does not. The relay answers both beside its callbacks.
    """
    seedance_insecure_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Hosts, comma separated, for which plain http and private addresses are allowed."""
    seedance_reference_buckets: Annotated[tuple[str, ...], NoDecode] = ()
    """Buckets, or ``bucket/prefix``, comma separated, that ``gs://`` references may be in, beside the uploads
    in the prefix's own folder of media; unset: any that the worker can read. Set it where users name references.
    """
    seedance_poll_first_seconds: Positive | None = None
    """Seconds until the first poll, without callbacks; unset: by how long tasks of the same shape took, or estimated
    from model, resolution and length where too few are known. Each further wait is some 7 % of the task's age.
    """
    seedance_poll_max_seconds: Positive = 300
    """Longest wait between two polls, without callbacks, after the first one."""
    seedance_poll_with_callbacks_seconds: Positive = 300
    """Wait between two polls, with callbacks: they only catch a callback that was lost."""
    seedance_create_timeout_seconds: Positive = 120
    """Total time of the paid POST, during which the provider downloads references; each of them is given the same
    time when it is checked before.
    """
    seedance_recovery_seconds: Positive = 600
    """How long the job searches for the task of an unknown create before the attempt can count as absent; longer than
    the time for a create and the skew of clocks together. An operator is asked at once after it where absence cannot be
    proven, else after half as long again.
    """
    seedance_clock_skew_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    """How far the clocks of worker, bucket and provider may be apart."""
    seedance_automatic_resubmits: Annotated[int, Field(ge=0)] = 0
    """How often a task that expired, or failed at the provider, is followed by another paid attempt without being
    asked.
    """
    seedance_creates_per_minute: Positive = 180
    """The account's rate for creates, over all workers of a route, but for those at 4k."""
    seedance_creates_per_minute_4k: Positive = 15
    """The same of videos at 4k, which the provider counts apart."""
    seedance_tasks_at_once: Annotated[int, Field(gt=0)] | None = None
    """The most tasks that jobs of a route have at the provider at once, but for those at 4k; unset: any number. The
    provider queues tasks over its running limit, where they can expire: set it to that limit.
    """
    seedance_tasks_at_once_4k: Annotated[int, Field(gt=0)] | None = None
    """The same of videos at 4k, which the provider counts apart."""
    seedance_probe_seconds: Positive = 30
    """Wait for the first probe of a closed account; waits double, up to 120 times that. A ramp's step takes two."""
    seedance_copies_at_once: Annotated[int, Field(gt=0)] = 4
    """Copies into the bucket at once, per worker."""
    seedance_download_seconds: Positive = 1800
    """Total time for one download of a video."""
    seedance_max_video_bytes: Annotated[int, Field(gt=0)] = 2 * 1024**3
    """A larger result is not downloaded."""
    seedance_models: Annotated[dict[str, ModelRow], NoDecode, Field(default_factory=dict)]
    """Models that are new, or changed, as JSON, or the path of a file that holds it."""
    seedance_prices: Annotated[dict[str, dict[str, PricePair]], NoDecode, Field(default_factory=dict)]
    """Prices that override the provider's list, as JSON."""
    seedance_cny_per_usd: Positive | None = None
    """How many CNY make a USD: for limits in USD on jobs that are billed in CNY, and for one sum in reports. Unset:
    nothing is ever converted.
    """
    seedance_endpoints: Annotated[dict[str, str], NoDecode, Field(default_factory=dict)]
    """The model behind each inference endpoint, as JSON."""
    seedance_hash_users: bool = False
    """Whether Temporal's list and summaries name a user by a hash instead of the id."""

    @field_validator(*_SECRETS)
    @classmethod
    def _plain_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Files and terminals add a line feed, which is no part of a secret."""
        if value is None:
            return None
        secret = value.get_secret_value().strip()
        if not secret:
            raise ValueError("holds nothing but white space")
        name = str(info.field_name)
        if not secret.isprintable():
            raise ValueError("holds a character that cannot be printed; copy it again")
        if name == "ark_api_key" and not secret.isascii():
            raise ValueError("holds a letter that no HTTP header can carry; copy it again")
        if len(secret) < _LEAST_LETTERS[name]:
            raise ValueError(f"has {len(secret)} characters; {_LEAST_LETTERS[name]} are the least")
        return SecretStr(secret)

    @field_validator("seedance_insecure_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return frozenset(host.strip().lower() for host in value.split(",") if host.strip())
        return value

    @model_validator(mode="before")
    @classmethod
    def _without_white_space(cls, given: dict[str, object]) -> dict[str, object]:
        """Values from files and Kubernetes secrets end in a line feed. A blank one counts as unset; no secret is."""
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        return {
            name: value for name, value in stripped.items() if value != "" or name in (*_SECRETS, *ENCRYPTION_SECRETS)
        }

    @field_validator("seedance_reference_buckets", mode="before")
    @classmethod
    def _split_buckets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        places = [place.strip().removeprefix("gs://").strip("/") for place in value.split(",") if place.strip()]
        if value.strip() and not all(_BUCKET.match(place) and "*" not in place for place in places or [""]):
            raise ValueError("names no bucket: write bucket, or bucket/prefix, with commas between them")
        return tuple(f"{place}/" for place in places)

    @field_validator("seedance_models")
    @classmethod
    def _fitting_rows(cls, rows: dict[str, ModelRow]) -> dict[str, ModelRow]:
        models_with(rows)
        return rows

    @field_validator("seedance_models", "seedance_prices", "seedance_endpoints", mode="before")
    @classmethod
    def _read_json(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        return decode(value, or_file=info.field_name == "seedance_models")

    @field_validator("seedance_prices")
    @classmethod
    def _of_known_models(cls, prices: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        models = _models(info)
        for model_id, by_resolution in prices.items():
            known = _model(models, model_id).resolutions
            unknown = [resolution for resolution in by_resolution if resolution not in known]
            if unknown:
                raise ValueError(f"{model_id} has no resolution {unknown[0]!r}; it has {', '.join(known)}")
        return prices

    @field_validator("seedance_endpoints")
    @classmethod
    def _of_endpoints(cls, endpoints: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        models = _models(info)
        for endpoint, model_id in endpoints.items():
            if not ENDPOINT.fullmatch(endpoint):
                raise ValueError(f"{endpoint!r} is not an endpoint id (ep-…)")
            _model(models, model_id)
        return endpoints

    @field_validator("seedance_bucket")
    @classmethod
    def _bare_bucket(cls, value: str | None) -> str | None:
        if value is not None and not _BUCKET_NAME.fullmatch(value):
            raise ValueError("is no name of a bucket: write it without gs:// and without a path")
        return value

    @field_validator("seedance_insecure_hosts")
    @classmethod
    def _bare_hosts(cls, hosts: frozenset[str]) -> frozenset[str]:
        for host in sorted(hosts):
            if not _HOST.fullmatch(host):
                shown = printable(host[:100])
                raise ValueError(f"{shown!r} is no host: write names or addresses alone, with commas between them")
        return hosts

    @field_validator("seedance_prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        prefix = value.strip("/")
        if not prefix:
            raise ValueError("must not be empty")
        if not prefix.isprintable() or len(prefix.encode()) > _LONGEST_PREFIX:
            raise ValueError(f"must be printable, and have {_LONGEST_PREFIX} bytes at most")
        return prefix

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        urls = {"SEEDANCE_CALLBACK_URL": self.seedance_callback_url, "ARK_BASE_URL": self.ark_base_url}
        for name, url in urls.items():
            if url is not None and (problem := https_problem(url, self.seedance_insecure_hosts)):
                raise ValueError(f"{name} {problem}. For a local stack, name its host in SEEDANCE_INSECURE_HOSTS.")
            if url is not None and ("?" in url or "#" in url):
                raise ValueError(f"{name} holds a ? or #; paths are added at its end, so give it without")
        if self.seedance_callback_url is not None and self.seedance_callback_secret is None:
            raise ValueError("SEEDANCE_CALLBACK_URL is set without SEEDANCE_CALLBACK_SECRET")
        if self.seedance_recovery_seconds <= self.claim_is_young_seconds:
            raise ValueError(
                "SEEDANCE_RECOVERY_SECONDS must be longer than SEEDANCE_CREATE_TIMEOUT_SECONDS and "
                "SEEDANCE_CLOCK_SKEW_SECONDS together: a create that is still under way would count as absent"
            )
        return self

    @classmethod
    def from_environment(cls, *required: str) -> Self:
        """The settings of this process.

        Args:
            required: Variables that this process cannot do without, such as ``ARK_API_KEY``.

        Raises:
            InvalidSettings: One is missing or wrong; the message names all of them, and no value of a secret.
        """
        if found := misspelt(name.upper() for name in cls.model_fields):
            raise InvalidSettings("; ".join(found))
        try:
            settings = cls()
        except ValidationError as error:
            problems = [
                (f"{_variable(e['loc'])}: " if e["loc"] else "")
                + _IN_OUR_WORDS.get(e["type"], e["msg"].removeprefix("Value error, "))
                for e in error.errors()
            ]
            raise InvalidSettings(printable("; ".join(problems))) from None
        missing = [name for name in required if getattr(settings, name.lower()) is None]
        if missing:
            raise InvalidSettings(f"not set in the environment: {', '.join(missing)}")
        return settings

    @property
    def base_url(self) -> str:
        """The provider's base URL, without a closing slash."""
        return (self.ark_base_url or BASE_URLS[self.ark_route]).rstrip("/")

    @cached_property
    def rules(self) -> Rules:
        """The rules that these settings make: models, endpoints, prices and insecure hosts."""
        models = dict(models_with(self.seedance_models))
        for model_id, prices in self.seedance_prices.items():
            own = {resolution: Price(*pair) for resolution, pair in prices.items()}
            models[model_id] = replace(models[model_id], prices={**models[model_id].prices, **own})
        return Rules(
            models=models,
            endpoints=self.seedance_endpoints,
            insecure_hosts=self.seedance_insecure_hosts,
            reference_buckets=self.seedance_reference_buckets,
            own_objects=f"{self.seedance_bucket}/{self.seedance_prefix}/" if self.seedance_bucket is not None else "",
        )

    def shown_user(self, user_id: str) -> str:
        """Return the name of a user in Temporal's list, which is never encrypted."""
        return self.user_key(user_id) if self.encryption_keys or self.seedance_hash_users else user_id

    def listed_as(self, user_id: str) -> tuple[str, ...]:
        """Return all names that Temporal's list can have of a user, by the keys and by none."""
        pseudonyms = (key.pseudonym(user_id) for key in self.encryption_keys)
        return *pseudonyms, user_hash(user_id) if self.seedance_hash_users else user_id

    def in_usd(self, cost: Cost) -> float | None:
        """Return a cost in USD, of CNY by the rate; None where price or rate are not known."""
        if cost.cny is not None and self.seedance_cny_per_usd is not None:
            return round(cost.cny / self.seedance_cny_per_usd, 6)
        return cost.usd

    @property
    def claim_is_young_seconds(self) -> float:
        """Up to this age of a claim, the process that made it may still be sending."""
        return self.seedance_create_timeout_seconds + self.seedance_clock_skew_seconds

    @property
    def search_seconds(self) -> float:
        """How old a claim must be, by any of the clocks, before its attempt can count as absent."""
        return self.seedance_recovery_seconds + self.seedance_clock_skew_seconds

    @property
    def key_fingerprint(self) -> str:
        """The name of the API key in claims, listings and messages; empty where there is no key."""
        return key_fingerprint(self.ark_api_key.get_secret_value()) if self.ark_api_key is not None else ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must not appear in any text, log or object."""
        given: tuple[SecretStr | None, ...] = tuple(getattr(self, name) for name in _SECRETS)
        return (
            *(secret.get_secret_value() for secret in given if secret is not None),
            *(key.text for key in self.encryption_keys),
            *self.codec_tokens.values(),
        )


def _models(info: ValidationInfo) -> Mapping[str, Model]:
    """Return the models of settings that are being read; those of this release where their rows are wrong."""
    rows = info.data.get("seedance_models")
    return KNOWN if rows is None else models_with(rows)


def _model(models: Mapping[str, Model], model_id: str) -> Model:
    if model_id not in models:
        raise ValueError(f"{model_id!r} is not a model id; use one of {', '.join(models)}")
    return models[model_id]


def _variable(at: tuple[int | str, ...]) -> str:
    """The variable that an error is about, and what of it."""
    name, *parts = at
    return ".".join([str(name).upper(), *map(str, parts)])
