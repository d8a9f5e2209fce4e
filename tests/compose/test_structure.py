"""What ``docker-compose.yml`` says: everything that it refers to is there, pinned, waited for, and known."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Callable

import pytest
import yaml
from pydantic import SecretStr

from dev.stack import SERVER_OPTIONS
from seedance_temporal.settings import Settings
from seedance_temporal.urls import https_problem
from tests.compose import compose_file
from tests.compose.compose_file import ROOT, Missing, Service, local_variables, read_env, seconds, services
from workers.build import GRACE_BEYOND_CREATE
from workers.serve import REST_SECONDS

SECRETS = {"ARK_API_KEY", "SEEDANCE_CALLBACK_SECRET", "POSTGRES_PASSWORD", "SEEDANCE_BUCKET"}
REAL = {
    "POSTGRES_PASSWORD": "database-password",
    "ARK_API_KEY": "real-key-of-ark",
    "SEEDANCE_BUCKET": "real-bucket",
    "SEEDANCE_CALLBACK_SECRET": "real-callback-secret",
    "SEEDANCE_CALLBACK_URL": "https://callbacks.example.com",
}
# As the images read them: the server's embedded configuration template, temporal-sql-tool's options, the UI's
# configuration, and Google's libraries.
KNOWN = {
    "postgres": {"POSTGRES_USER", "POSTGRES_PASSWORD"},
    "temporalio/server": {
        *("DB", "DB_PORT", "POSTGRES_SEEDS", "POSTGRES_USER", "POSTGRES_PWD", "DBNAME", "VISIBILITY_DBNAME"),
        *("NUM_HISTORY_SHARDS", "BIND_ON_IP", "DYNAMIC_CONFIG_FILE_PATH", "LOG_LEVEL"),
    },
    "temporalio/ui": {
        *("TEMPORAL_ADDRESS", "TEMPORAL_DEFAULT_NAMESPACE"),
        *("TEMPORAL_CODEC_ENDPOINT", "TEMPORAL_CODEC_INCLUDE_CREDENTIALS"),
    },
    "fsouza/fake-gcs-server": set[str](),
}
OF_OURS = {
    *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST"),
    *(name.upper() for name in Settings.model_fields),
}


Started = Callable[[], dict[str, Service]]


def local() -> dict[str, Service]:
    return services(local_variables(), ["local", "encryption"])


def real() -> dict[str, Service]:
    return services(REAL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ${SET} b", "a value b"),
        ("${UNSET}|${EMPTY}", "|"),
        ("${SET:-x}${UNSET:-x:y}${EMPTY:-z}", "valuex:yz"),
        ("${SET:+x}${UNSET:+x}${EMPTY:+x}", "x"),
        ("${SET:?why}$$", "value$"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert compose_file.interpolate(text, {"SET": "value", "EMPTY": ""}) == expected


@pytest.mark.parametrize("text", ["$SET", "${SET-x}", "${SET:-${OTHER}}", "${SET"])
def test_unknown_compose_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not known here"):
        compose_file.interpolate(text, {"SET": "value"})


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""])
def test_required_variables_are_demanded(name: str, value: str | None) -> None:
    variables = {key: REAL[key] for key in REAL if key != name} | ({} if value is None else {name: value})
    with pytest.raises(Missing, match=name):
        services(variables)


def test_local_profile_needs_its_file_alone() -> None:
    assert {"ark", "bucket", "bucket-setup", "worker", "relay", "temporal-ui"} <= local().keys()
    variables = local_variables()
    assert variables["COMPOSE_PROFILES"] == "local"
    assert variables["COMPOSE_PROJECT_NAME"] != compose_file.raw()["name"], "it would use the real deployment's volume"


def test_real_deployment_has_nothing_local() -> None:
    assert local().keys() - real().keys() == {"ark", "bucket", "bucket-setup", "codec"}
    for service in real().values():
        for name, value in service.environment.items():
            assert not re.search(r"\b(ark|bucket):\d", value), f"{service.name}: {name}"
        assert "STORAGE_EMULATOR_HOST" not in service.environment
        assert "SEEDANCE_INSECURE_HOSTS" not in service.environment


def test_every_variable_of_the_files_is_used() -> None:
    used = set(re.findall(r"\$\{(\w+)", compose_file.FILE.read_text()))
    passed = {name for service in local().values() for name, value in service.given.items() if value is None}
    example = set(re.findall(r"^#?([A-Z]\w*)=", compose_file.EXAMPLE_ENV.read_text(), re.MULTILINE))
    assert example <= used | passed
    assert example >= SECRETS
    own = {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}  # Compose's own
    assert local_variables().keys() - own <= used | passed
    assert used - example <= local_variables().keys(), "a variable of the file that no example shows"


def test_example_has_no_secret_values() -> None:
    given = read_env(compose_file.EXAMPLE_ENV)
    assert not [name for name in SECRETS if given[name]]


def test_compose_file_holds_no_secret() -> None:
    for name, content in compose_file.raw()["services"].items():
        for variable, value in content.get("environment", {}).items():
            if re.search("KEY|SECRET|PASSWORD|PWD", variable):
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), f"{name}: {variable}"
    for name, service in services({key: f"<{key}>" for key in REAL}).items():
        for part in [*service.content.get("command", []), *service.content.get("entrypoint", [])]:
            assert "<" not in part, f"{name}: an argument can be read by everybody on the host"


def test_every_image_is_pinned() -> None:
    for service in local().values():
        assert re.fullmatch(r"[a-z][a-z0-9./-]*:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?", service.image), service.image
    tags = {service.image.split(":")[1] for service in local().values() if "temporalio/" in service.image}
    assert len(tags) == 2, "server and admin-tools have one version, the UI another"


def test_our_image_has_project_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = [service for service in local().values() if service.is_ours]
    assert {service.name for service in ours} == {"worker", "relay", "codec", "ark", "bucket-setup"}
    for service in ours:
        assert service.image == f"{compose_file.OURS}:{version}"
        assert service.content["build"] == "."


@pytest.mark.parametrize("started", [local, real])
def test_awaited_services_exist(started: Started) -> None:
    found = started()
    for service in found.values():
        for name, wait in service.depends_on.items():
            if name not in found:
                assert wait.get("required") is False, f"{service.name} waits for {name}, which is not started"
                continue
            match wait["condition"]:
                case "service_healthy":
                    assert "healthcheck" in found[name].content, f"{name} has no health check"
                case "service_completed_successfully":
                    assert found[name].is_one_shot, f"{name} does not end"
                case condition:
                    assert condition == "service_started"
                    assert not found[name].is_one_shot
                    assert "healthcheck" not in found[name].content, f"{service.name} could wait for more of {name}"


def test_one_shot_jobs_are_awaited() -> None:
    found = local()
    for name, service in found.items():
        waits = [other.depends_on[name]["condition"] for other in found.values() if name in other.depends_on]
        if service.is_one_shot:
            assert waits, f"nobody waits for {name}"
            assert set(waits) == {"service_completed_successfully"}
        else:
            assert service.content["restart"] == "unless-stopped", name


def test_nothing_waits_in_a_circle() -> None:
    left = {name: set(service.depends_on) for name, service in local().items()}
    while ready := {name for name, waits in left.items() if not waits & left.keys()}:
        left = {name: waits for name, waits in left.items() if name not in ready}
    assert not left


def test_worker_and_relay_await_the_namespace() -> None:
    for name in ("worker", "relay", "temporal-ui"):
        assert "temporal-namespace" in real()[name].depends_on
    chain = ["temporal-namespace", "temporal", "temporal-schema", "postgres"]
    for name, before in itertools.pairwise(chain):
        assert before in real()[name].depends_on


def test_volumes_and_files_are_there() -> None:
    named = compose_file.raw()["volumes"]
    used = set()
    for service in local().values():
        assert not service.content.keys() & {"env_file", "configs", "secrets", "networks", "extends"}, (
            "this test does not know how to follow these"
        )
        for volume in service.content.get("volumes", []):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"]
            elif not source.startswith("/"):
                assert source in named, source
                used.add(source)
    assert used == set(named)
    assert "postgres:/var/lib/postgresql/data" in real()["postgres"].content["volumes"]


def test_our_services_are_bounded() -> None:
    """None may write to its image, nor take a host's memory or process table; the worker has a place for videos."""
    for service in local().values():
        if service.is_ours:
            assert service.content["read_only"] is True
            assert re.fullmatch(r"\d+[mg]", service.content["mem_limit"])
            assert service.content["pids_limit"] <= 1000
    assert "temporary:/tmp" in real()["worker"].content["volumes"]
    assert local()["ark"].content["tmpfs"], "it draws its videos there"


def test_ports_are_published_on_loopback() -> None:
    published = [port for service in local().values() for port in service.content.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published), published
    hosts = [port.split(":")[1] for port in published]
    assert len(hosts) == len(set(hosts))
    relay = services({**REAL, "RELAY_PUBLISHED": "10.0.0.5:443"})["relay"]
    assert relay.content["ports"] == ["10.0.0.5:443:8088"]


def test_addresses_name_ports_of_services() -> None:
    listens = {"postgres": {5432}, "temporal": {7233}, "temporal-ui": {8080}}
    for service in local().values():
        ports = {int(port.rsplit(":", 1)[1]) for port in service.content.get("ports", [])}
        assert listens.setdefault(service.name, ports) >= ports
    for service in local().values():
        for text in [*service.environment.values(), *service.content.get("command", [])]:
            for host, port in re.findall(r"(?:^|//|=)([a-z][a-z-]*):(\d+)\b", text):
                assert int(port) in listens[host], f"{service.name}: {text}"
    server = real()["temporal"].environment
    assert server["POSTGRES_SEEDS"] == real()["temporal-schema"].environment["SQL_HOST"] == "postgres"
    assert server["DB_PORT"] == real()["temporal-schema"].environment["SQL_PORT"] == "5432"
    assert server["DB"] == real()["temporal-schema"].environment["SQL_PLUGIN"]


def test_services_know_their_variables() -> None:
    for service in local().values():
        image = service.image.split(":")[0]
        known = OF_OURS if service.is_ours else KNOWN.get(image)
        if known is None:
            continue  # the jobs of admin-tools: their scripts are run, in test_jobs.py
        assert service.given.keys() <= known, f"{service.name}: {service.given.keys() - known}"


def test_worker_accepts_every_setting() -> None:
    of_others = {"SEEDANCE_RELAY_HOST", "SEEDANCE_RELAY_PORT", "TEMPORAL_API_KEY"}
    settings = {name.upper() for name in Settings.model_fields} - of_others
    of_codec = {name for name in settings if name.startswith("SEEDANCE_CODEC_")}
    assert of_codec | {"SEEDANCE_ENCRYPTION_KEYS"} == local()["codec"].given.keys()
    assert settings - of_codec <= real()["worker"].given.keys()
    chosen = services({**REAL, "SEEDANCE_POLL_MAX_SECONDS": "77"})["worker"]
    assert chosen.environment["SEEDANCE_POLL_MAX_SECONDS"] == "77"
    assert "SEEDANCE_POLL_MAX_SECONDS" not in real()["worker"].environment


@pytest.mark.parametrize("started", [local, real])
@pytest.mark.parametrize("name", ["worker", "relay"])
def test_settings_accept_composed_variables(started: Started, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = started()[name]
    for variable, value in service.environment.items():
        monkeypatch.setenv(variable, value)
    settings = Settings.from_environment(*(["ARK_API_KEY", "SEEDANCE_BUCKET"] if name == "worker" else []))
    for field, value in settings.model_dump().items():
        if field.upper() in service.environment:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            assert plain == type(plain)(service.environment[field.upper()]) or isinstance(plain, frozenset)


def test_relay_has_no_provider_key() -> None:
    assert not real()["relay"].given.keys() & {"ARK_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "SEEDANCE_BUCKET"}


def test_local_hosts_are_insecure_hosts() -> None:
    worker, ark = local()["worker"], local()["ark"]
    hosts = worker.environment["SEEDANCE_INSECURE_HOSTS"].split(",")
    (results,) = [part.partition("=")[2] for part in ark.command if part.startswith("--public-url=")]
    for url in (results, worker.environment["ARK_BASE_URL"], worker.environment["SEEDANCE_CALLBACK_URL"]):
        assert https_problem(url, hosts) is None, url


def test_google_credentials_are_mounted() -> None:
    given = services({**REAL, "GOOGLE_APPLICATION_CREDENTIALS": "./key.json"})["worker"]
    path = given.environment["GOOGLE_APPLICATION_CREDENTIALS"]
    assert f"./key.json:{path}:ro" in given.content["volumes"]
    assert real()["worker"].environment["GOOGLE_APPLICATION_CREDENTIALS"] == "", "Google's library takes it for unset"
    assert f"/dev/null:{path}:ro" in real()["worker"].content["volumes"]


def test_stop_grace_period_covers_a_create() -> None:
    worker = real()["worker"]
    settings = Settings.model_fields["seedance_create_timeout_seconds"].default
    needed = settings + GRACE_BEYOND_CREATE.total_seconds() + REST_SECONDS
    assert seconds(worker.content["stop_grace_period"]) >= needed + 15
    longer = services({**REAL, "WORKER_STOP_GRACE_PERIOD": "10m"})["worker"]
    assert seconds(longer.content["stop_grace_period"]) == 600


def test_queues_are_fair_and_keep_rates() -> None:
    server = real()["temporal"]
    path = server.environment["DYNAMIC_CONFIG_FILE_PATH"]
    (source,) = [v.split(":")[0] for v in server.content["volumes"] if v.split(":")[1] == path]
    config = yaml.safe_load((ROOT / source).read_text())
    # What the tests of rates and fairness ran with: dev/stack.py.
    given = {name: values[0]["value"] for name, values in config.items()}
    options = [word for word in SERVER_OPTIONS if not word.startswith("--")]
    assert sorted(f"{name}={str(value).lower()}" for name, value in given.items()) == sorted(options)


def test_history_lasts_for_years() -> None:
    assert seconds(real()["temporal-namespace"].environment["NAMESPACE_RETENTION"]) >= 5 * 365 * 86_400
