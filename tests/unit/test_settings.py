"""The environment: defaults, what is refused at start-up, and that secrets do not print."""

from __future__ import annotations

import json
import os
import re

import pytest
from pydantic import ValidationError

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.settings import Settings

CALLBACKS = {
    "SEEDANCE_CALLBACK_URL": "https://relay.example.com/hooks",
    "SEEDANCE_CALLBACK_SECRET": "hush-1-hush-1-hush",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.upper().startswith(("ARK_", "SEEDANCE_")):
            monkeypatch.delenv(name)


def settings(monkeypatch: pytest.MonkeyPatch, *required: str, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment(*required)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    default = settings(monkeypatch)
    assert default.ark_route == "byteplus"
    assert default.base_url == "https://ark.ap-southeast.bytepluses.com/api/v3"
    assert default.seedance_prefix == "seedance"
    assert (default.seedance_relay_host, default.seedance_relay_port) == ("127.0.0.1", 8088)
    assert default.seedance_insecure_hosts == frozenset()
    assert default.seedance_poll_first_seconds is None
    assert (default.seedance_poll_max_seconds, default.seedance_poll_with_callbacks_seconds) == (300, 300)
    assert (default.seedance_create_timeout_seconds, default.seedance_recovery_seconds) == (120, 600)
    assert default.secrets == ()


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings(
        monkeypatch,
        **CALLBACKS,
        ARK_API_KEY="hush-2-hush",
        ARK_ROUTE="volcengine",
        SEEDANCE_CALLBACK_SECRET_PREVIOUS="hush-3-hush-3-hush",
        SEEDANCE_BUCKET="videos",
        SEEDANCE_PREFIX="/staging/eu/",
        SEEDANCE_INSECURE_HOSTS=" LocalHost, 127.0.0.1 ,,",
        SEEDANCE_POLL_FIRST_SECONDS="1.5",
    )
    assert read.base_url == "https://ark.cn-beijing.volces.com/api/v3"
    assert read.secrets == ("hush-2-hush", "hush-1-hush-1-hush", "hush-3-hush-3-hush")
    assert read.seedance_bucket == "videos"
    assert read.seedance_prefix == "staging/eu"
    assert read.seedance_insecure_hosts == {"localhost", "127.0.0.1"}
    assert read.seedance_poll_first_seconds == 1.5


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, ARK_API_KEY="", SEEDANCE_PREFIX="").ark_api_key is None
    with pytest.raises(InvalidSettings, match="ARK_API_KEY"):
        settings(monkeypatch, "ARK_API_KEY", ARK_API_KEY="")


def test_base_url_overrides_the_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, ARK_BASE_URL="https://gateway.example.com/v3/").base_url == (
        "https://gateway.example.com/v3"
    )


@pytest.mark.parametrize(
    ("given", "read"),
    [("localhost:9464", "127.0.0.1:9464"), ("0.0.0.0:80", "0.0.0.0:80"), ("[0::1]:9464", "[::1]:9464")],
)
def test_address_is_read(monkeypatch: pytest.MonkeyPatch, given: str, read: str) -> None:
    assert settings(monkeypatch, SEEDANCE_METRICS_ADDRESS=given).seedance_metrics_address == read


def test_all_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match=r"ARK_API_KEY, SEEDANCE_BUCKET$"):
        settings(monkeypatch, "ARK_API_KEY", "SEEDANCE_BUCKET", "ARK_ROUTE")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ARK_ROUTE": "bytedance"}, "ARK_ROUTE"),
        ({"SEEDANCE_PREFIX": "/"}, "SEEDANCE_PREFIX: must not be empty"),
        ({"SEEDANCE_RELAY_PORT": "http"}, "SEEDANCE_RELAY_PORT"),
        ({"SEEDANCE_RELAY_PORT": "65536"}, "SEEDANCE_RELAY_PORT"),
        ({"SEEDANCE_RELAY_PORT": "-1"}, "SEEDANCE_RELAY_PORT"),
        ({"SEEDANCE_CLOCK_SKEW_SECONDS": "-1"}, "SEEDANCE_CLOCK_SKEW_SECONDS"),
        ({"SEEDANCE_CREATES_PER_MINUTE": "inf"}, "SEEDANCE_CREATES_PER_MINUTE"),
        ({"SEEDANCE_POLL_MAX_SECONDS": "0"}, "SEEDANCE_POLL_MAX_SECONDS"),
        ({"SEEDANCE_POLL_MAX_SECONDS": "-1"}, "SEEDANCE_POLL_MAX_SECONDS"),
        ({"SEEDANCE_POLL_FIRST_SECONDS": "nan"}, "SEEDANCE_POLL_FIRST_SECONDS"),
        ({"SEEDANCE_PROBE_SECONDS": "1e308"}, "SEEDANCE_PROBE_SECONDS"),
        ({"SEEDANCE_MAX_USD_PER_DAY": "1e308"}, "SEEDANCE_MAX_USD_PER_DAY"),
        ({"SEEDANCE_LABEL_BUDGETS": '{"a=b": {"usd_per_day": 1e308}}'}, "SEEDANCE_LABEL_BUDGETS"),
        ({"SEEDANCE_POLL_MAX_SECONDS": "inf"}, "SEEDANCE_POLL_MAX_SECONDS"),
        ({"SEEDANCE_CREATE_TIMEOUT_SECONDS": "inf", "SEEDANCE_RECOVERY_SECONDS": "inf"}, "CREATE_TIMEOUT_SECONDS"),
        ({"SEEDANCE_COPIES_AT_ONCE": "0"}, "SEEDANCE_COPIES_AT_ONCE"),
        ({"ARK_BASE_URL": "http://ark.example.com"}, "ARK_BASE_URL is plain http"),
        ({"ARK_BASE_URL": "https://10.0.0.1"}, "ARK_BASE_URL does not name a public host"),
        ({**CALLBACKS, "SEEDANCE_CALLBACK_URL": "http://relay.example.com"}, "SEEDANCE_CALLBACK_URL is plain http"),
        ({**CALLBACKS, "SEEDANCE_CALLBACK_URL": "https://localhost:8088"}, "SEEDANCE_INSECURE_HOSTS"),
        ({**CALLBACKS, "SEEDANCE_CALLBACK_SECRET": ""}, "without SEEDANCE_CALLBACK_SECRET"),
        ({"SEEDANCE_REFERENCE_BUCKETS": ","}, "SEEDANCE_REFERENCE_BUCKETS: names no bucket"),
        ({"SEEDANCE_REFERENCE_BUCKETS": "media,gs://"}, "SEEDANCE_REFERENCE_BUCKETS: names no bucket"),
        ({"SEEDANCE_REFERENCE_BUCKETS": "*"}, "SEEDANCE_REFERENCE_BUCKETS: names no bucket"),
        ({"SEEDANCE_REFERENCE_BUCKETS": "media/*"}, "SEEDANCE_REFERENCE_BUCKETS: names no bucket"),
        ({**CALLBACKS, "SEEDANCE_CALLBACK_URL": "https://relay.example.com/?a=b"}, "SEEDANCE_CALLBACK_URL holds a [?]"),
        ({**CALLBACKS, "SEEDANCE_CALLBACK_URL": "https://relay.example.com/#x"}, "SEEDANCE_CALLBACK_URL holds a [?]"),
        ({"ARK_BASE_URL": "https://ark.example.com/api?v=3"}, "ARK_BASE_URL holds a [?] or #"),
        ({"SEEDANCE_BUCKET": "gs://videos"}, "SEEDANCE_BUCKET: is no name of a bucket"),
        ({"SEEDANCE_BUCKET": "videos/eu"}, "SEEDANCE_BUCKET: is no name of a bucket"),
        ({"SEEDANCE_INSECURE_HOSTS": "http://localhost:9000"}, "'http://localhost:9000' is no host"),
        ({"SEEDANCE_INSECURE_HOSTS": "localhost:9000"}, "'localhost:9000' is no host"),
        ({"SEEDANCE_INSECURE_HOSTS": "a;b"}, "'a;b' is no host"),
        ({"SEEDANCE_INSECURE_HOSTS": "*"}, "is no host"),
        ({"SEEDANCE_BUCKET": "a", "seedance_bucket": "b"}, "SEEDANCE_BUCKET is set in two spellings"),
        ({"SEEDANCE_CALLBACK_SECRET": "cgt"}, "SEEDANCE_CALLBACK_SECRET: has 3 characters; 16 are the least"),
        ({"ARK_API_KEY": "1"}, "ARK_API_KEY: has 1 characters; 10 are the least"),
        *(
            ({"SEEDANCE_METRICS_ADDRESS": address}, "SEEDANCE_METRICS_ADDRESS: is no IP address with a port: write")
            for address in ("9464", ":9464", "worker:9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "::1:9464")
        ),
        ({"SEEDANCE_HEALTH_ADDRESS": "http://127.0.0.1:8087"}, "SEEDANCE_HEALTH_ADDRESS: is no IP address"),
        ({"SEEDANCE_RECOVERY_SECONDS": "150"}, "SEEDANCE_RECOVERY_SECONDS must be longer"),
        ({"SEEDANCE_CREATE_TIMEOUT_SECONDS": "570"}, "SEEDANCE_RECOVERY_SECONDS must be longer"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        settings(monkeypatch, **variables)


WRONG_BUDGETS = {
    '{"project": {"usd_per_day": 1}}': "'project' is no label: write name=value",
    '{"Project=a": {"usd_per_day": 1}}': "'Project=a' is no label of a request: its name is no name of a label",
    '{"project= ": {"usd_per_day": 1}}': "its value must not be blank",
    '{"project=a": {}}': "project=a: limits nothing: give usd_per_day, usd_per_month, or both",
    '{"project=a": {"usd_per_week": 1}}': "project=a.usd_per_week: is not known; remove it",
    '{"project=a": {"usd_per_day": 0}}': "project=a.usd_per_day: Input should be greater than 0",
    '{"project=a": {"usd_per_day": "1"}}': "project=a.usd_per_day: must be a number",
    '{"project=a": 5}': "project=a: must be a JSON object",
    '{"project=a": {"usd_per_day": 1}, "project=a": {"usd_per_day": 9}}': "names 'project=a' more than once",
    "[]": "must be a JSON object",
    "budgets.json": "is not JSON",
}


@pytest.mark.parametrize("budgets", WRONG_BUDGETS)
def test_wrong_label_budget_is_one_sentence(monkeypatch: pytest.MonkeyPatch, budgets: str) -> None:
    with pytest.raises(InvalidSettings, match=re.escape(WRONG_BUDGETS[budgets])) as refused:
        settings(monkeypatch, SEEDANCE_LABEL_BUDGETS=budgets)
    assert str(refused.value).startswith("SEEDANCE_LABEL_BUDGETS")


def test_many_label_budgets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    many = json.dumps({f"project={number}": {"usd_per_day": 1} for number in range(101)})
    with pytest.raises(InvalidSettings, match="holds 101 labels; 100 are the most"):
        settings(monkeypatch, SEEDANCE_LABEL_BUDGETS=many)


@pytest.mark.parametrize(
    "name", ["SEEDANCE_MAX_USD_PER_DAY", "SEEDANCE_MAX_USD_PER_MONTH", "SEEDANCE_LABEL_BUDGETS", "NONE"]
)
def test_any_budget_counts_spending(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    value = '{"project=a": {"usd_per_day": 1}}' if name == "SEEDANCE_LABEL_BUDGETS" else "1"
    found = settings(monkeypatch, **({name: value} if name != "NONE" else {}))
    assert {found.has_budgets, found.counts_spending, found.limited} == {name != "NONE"}


def test_just_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = settings(
        monkeypatch,
        **(CALLBACKS | {"SEEDANCE_CALLBACK_URL": "http://localhost:8088"}),
        ARK_BASE_URL="http://127.0.0.1:8089",
        SEEDANCE_INSECURE_HOSTS="localhost,127.0.0.1",
        SEEDANCE_RECOVERY_SECONDS="150.5",
    )
    assert inside.claim_is_young_seconds == 150


def test_wrong_settings_are_named_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings) as refused:
        settings(monkeypatch, ARK_API_KEY="hush-hush-hush", ARK_ROUTE="x", SEEDANCE_RELAY_PORT="y", SEEDANCE_PREFIX="/")
    assert all(name in str(refused.value) for name in ("ARK_ROUTE", "SEEDANCE_RELAY_PORT", "SEEDANCE_PREFIX"))
    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_secrets_do_not_print(monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings(
        monkeypatch,
        **CALLBACKS,
        ARK_API_KEY="hush-2-hush",
        SEEDANCE_CALLBACK_SECRET_PREVIOUS="hush-3-hush-3-hush",
    )
    assert "hush" not in f"{read!r} {read} {read.model_dump_json()}"


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t"])
def test_any_variable_loses_white_space(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    """Values from files and Kubernetes secrets end in a line feed."""
    given = {
        "ARK_ROUTE": "volcengine",
        "ARK_BASE_URL": "https://ark.example.com",
        "SEEDANCE_BUCKET": "videos",
        "SEEDANCE_PREFIX": "staging",
        "SEEDANCE_CALLBACK_URL": "https://relay.example.com/hooks",
        "SEEDANCE_CALLBACK_SECRET": "hush-of-the-relay",
        "SEEDANCE_RELAY_HOST": "::1",
        "SEEDANCE_HASH_USERS": "true",
        "SEEDANCE_MAX_USD_PER_REQUEST": "2.5",
        "SEEDANCE_ENDPOINTS": "{}",
    }
    read = settings(monkeypatch, **{name: f"{around}{value}{around}" for name, value in given.items()})
    plain = Settings.model_validate({name.lower(): value for name, value in given.items()})
    assert read == plain
    assert (read.seedance_prefix, read.seedance_bucket) == ("staging", "videos")


def test_blank_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match="not set in the environment: SEEDANCE_BUCKET"):
        settings(monkeypatch, "SEEDANCE_BUCKET", SEEDANCE_BUCKET=" \n", SEEDANCE_MAX_USD_PER_REQUEST=" ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SEEDANCE_MAX_JOBS_PER_USERDAY", "SEEDANCE_MAX_JOBS_PER_USER_DAY is meant"),
        ("SEEDANCE_MAX_USD_PER_REQEST", "SEEDANCE_MAX_USD_PER_REQUEST is meant"),
        ("SEEDANCE_SOMETHING_ELSE", "remove it, or correct its name"),
        ("SEEDENCE_MAX_JOBS_PER_USER_DAY", "SEEDANCE_MAX_JOBS_PER_USER_DAY is meant"),
        ("SEEDANCEMAX_JOBS_PER_USER_DAY", "SEEDANCE_MAX_JOBS_PER_USER_DAY is meant"),
        ("seedance_max_usd_per_requst", "SEEDANCE_MAX_USD_PER_REQUEST is meant"),
        ("ARK_APIKEY", "ARK_API_KEY is meant"),
        ("TEMPORAL_ADRESS", "TEMPORAL_ADDRESS is meant"),
    ],
)
def test_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    """A limit that is misspelt would not hold, and an address would be that of the local server."""
    with pytest.raises(InvalidSettings, match=f"{name} is not known: {meant}"):
        settings(monkeypatch, **{name: "1"})


def test_variables_of_other_programs_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("ARK_OPTIONS", "ARK_SPEED", "ARK_APIKEY_PROJECT_NAME", "TEMPORAL_CLI_ADDRESS", "TEMPORAL_TLS_SERVER_NAME")
    settings(monkeypatch, **dict.fromkeys(others, "1"))


SECRETS = ["ARK_API_KEY", "SEEDANCE_CALLBACK_SECRET", "SEEDANCE_CALLBACK_SECRET_PREVIOUS"]


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t", "\u00a0", "\u2028"])
def test_secret_loses_white_space(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    read = settings(monkeypatch, **dict.fromkeys(SECRETS, f"{around}hush 1 of the relay{around}"))
    assert read.secrets == ("hush 1 of the relay",) * 3


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", [" ", "\n", "hush\nhush", "hush\x1b[0m", "hush\x7f", "hush\udcff", "hush\u200bhush"])
def test_unusable_secret_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match="printed" if value.strip() else "white space") as refused:
        settings(monkeypatch, **{name: value})
    assert str(refused.value).startswith(f"{name}: holds ")
    assert "hush" not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        Settings.model_validate({name.lower(): value})
    assert "hush" not in f"{invalid.value} {invalid.value!r}"


def test_only_the_key_has_to_fit_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match="ARK_API_KEY: holds a letter that no HTTP header can carry"):
        settings(monkeypatch, ARK_API_KEY="hüsh of the relay")
    monkeypatch.delenv("ARK_API_KEY")
    assert settings(monkeypatch, SEEDANCE_CALLBACK_SECRET="hüsh of the relay").secrets == ("hüsh of the relay",)


@pytest.mark.parametrize("prefix", ["p" * 201, "한" * 67, "a\nb", "a\udcffb"])
def test_unusable_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    with pytest.raises(InvalidSettings, match="SEEDANCE_PREFIX: must be printable, and have 200 bytes at most"):
        settings(monkeypatch, SEEDANCE_PREFIX=prefix)


def test_setting_does_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDANCE_PRICES", '{"\\u001b[2J": {"720p": "x"}}')
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment()
    assert "\x1b" not in str(caught.value)
