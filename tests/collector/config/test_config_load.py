"""Loading: file, environment, and what is refused with which words."""

from dataclasses import fields
from pathlib import Path

import pytest

from collector.config import AppKeys, Config
from collector.config_load import ConfigFault, check_servable, load_config


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "collector.toml"
    path.write_text(text)
    return str(path)


def fault_of(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None) -> ConfigFault:
    with pytest.raises(ConfigFault) as caught:
        load_config(write(tmp_path, text), environ or {})
    return caught.value


def test_load_without_file_and_environment_is_the_defaults() -> None:
    assert load_config(None, {}) == Config()


def test_load_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            """
            [http]
            bind = "0.0.0.0:80"
            [kafka]
            bootstrap_servers = ["a:9092", "b:9092"]
            bad_topic = ""
            linger_s = 0
            [keys.shop]
            write_keys = ["w1", "w2"]
            [keys."My App"]
            app_ids = ["11"]
            """,
        ),
        {},
    )
    assert config.http.bind == "0.0.0.0:80"
    assert config.kafka.bootstrap_servers == ("a:9092", "b:9092")
    assert config.kafka.bad_topic is None
    assert config.kafka.linger_s == 0.0
    assert config.keys.apps == {
        "shop": AppKeys(write_keys=("w1", "w2")),
        "My App": AppKeys(app_ids=("11",)),
    }
    assert config.limits == Config().limits


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("HTTP__BIND", "0.0.0.0:8080", "http", "bind", "0.0.0.0:8080"),
        ("HTTP__BIND", '"0.0.0.0:8080"', "http", "bind", "0.0.0.0:8080"),
        ("KAFKA__TOPIC", "2026", "kafka", "topic", "2026"),
        ("KAFKA__TOPIC", "true", "kafka", "topic", "true"),
        ("KAFKA__TOPIC", "2026-01-01", "kafka", "topic", "2026-01-01"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:1, b:2", "kafka", "bootstrap_servers", ("a:1", "b:2")),
        ("KAFKA__BOOTSTRAP_SERVERS", '["a:1"]', "kafka", "bootstrap_servers", ("a:1",)),
        ("KAFKA__BAD_TOPIC", "", "kafka", "bad_topic", None),
        ("METRICS__BIND", "", "metrics", "bind", None),
        ("KAFKA__LINGER_S", "1", "kafka", "linger_s", 1.0),
        ("LIMITS__BODY_BYTES", "1_000_000", "limits", "body_bytes", 1_000_000),
        ("WORKERS__COUNT", "auto", "workers", "count", "auto"),
        ("WORKERS__COUNT", "4", "workers", "count", 4),
        ("QUOTA__HEAP_PER_IDENTITY", "true", "quota", "heap_per_identity", True),
        ("PRIVACY__IP", "none", "privacy", "ip", "none"),
        ("KAFKA__SSL_CHECK_HOSTNAME", "false", "kafka", "ssl_check_hostname", False),
    ],
)
def test_environment_is_read_as_toml_where_that_fits_else_as_text(
    variable: str, text: str, section: str, key: str, value: object
) -> None:
    config = load_config(None, {f"COLLECTOR__{variable}": text})
    assert getattr(getattr(config, section), key) == value


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[kafka]\ntopic = "from-file"\nbad_topic = "kept"')
    config = load_config(path, {"COLLECTOR__KAFKA__TOPIC": "from-environment"})
    assert (config.kafka.topic, config.kafka.bad_topic) == ("from-environment", "kept")


def test_environment_reaches_keys_of_an_app_whatever_its_letters(tmp_path: Path) -> None:
    path = write(tmp_path, '[keys."My Shop"]\nwrite_keys = ["a"]\n[keys.other]\nwrite_keys = ["b"]')
    config = load_config(
        path,
        {
            "COLLECTOR__KEYS__MY SHOP__WRITE_KEYS": "c,d",
            "COLLECTOR__KEYS__NEW__APP_IDS": '["11"]',
            "COLLECTOR__KEYS__OPEN": "true",
        },
    )
    assert config.keys.open
    assert config.keys.apps == {
        "My Shop": AppKeys(write_keys=("c", "d")),
        "other": AppKeys(write_keys=("b",)),
        "new": AppKeys(app_ids=("11",)),
    }


def test_environment_of_others_is_left_alone() -> None:
    assert load_config(None, {"COLLECTOR_CONFIG": "x", "PATH": "y", "collector__http__bind": "z"}) == Config()


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("[kafak]\ntopic = 'x'", "kafak", "did you mean kafka?"),
        ("[kafka]\ntopik = 'x'", "kafka.topik", "did you mean topic?"),
        ("[http]\nzzz = 1", "http.zzz", "unknown key; allowed: backlog, bind"),
        ("http = 1", "http", "is a section"),
        ("[http]\nbacklog = 'many'", "http.backlog", "expected a whole number, got 'many'"),
        ("[http]\nbacklog = 99999999999", "http.backlog", "expected 1 to 2147483647"),
        ("[http]\nsend_timeout_s = 9999999", "http.send_timeout_s", "expected 0.001 to 2000000"),
        ("[http]\nsend_timeout_s = 0.0004", "http.send_timeout_s", "expected 0.001 to 2000000"),
        ("[http]\nbacklog = 1.5", "http.backlog", "expected a whole number"),
        ("[nginx]\nupstreams = ['a']", "nginx.upstreams", "expected host:port"),
        ("[nginx]\nupstreams = ['a:0']", "nginx.upstreams", "a port of 1 to 65535"),
        ("[nginx]\nupstreams = ['a;b:1']", "nginx.upstreams", "expected host:port"),
        ("[nginx]\nupstreams = ['a:1', 'a:1']", "nginx.upstreams", "expected each collector once"),
        ("[nginx]\nlast_resort = 'on'", "nginx.last_resort", "accept"),
        ("[nginx]\nlast_resort_file = 'kept.log'", "nginx.last_resort_file", "expected an absolute path"),
        ("[nginx]\nlast_resort_file = '/a b'", "nginx.last_resort_file", "expected an absolute path"),
        ("[nginx]\nlast_resort_file = '/a;b'", "nginx.last_resort_file", "expected an absolute path"),
        ("[nginx]\nlast_resort_body_bytes = 0", "nginx.last_resort_body_bytes", "expected more than 0"),
        ("[http]\nbacklog = true", "http.backlog", "expected a whole number"),
        ("[http]\nserver = 'uvicorn'", "http.server", 'expected one of "lane", "stock"'),
        ("[kafka]\nkey = 'id'", "kafka.key", 'expected one of "identity", "app+identity", "hash", "none"'),
        ("[kafka]\ntopic = 1", "kafka.topic", "expected a string, got 1"),
        ("[kafka]\nbad_topic = 1", "kafka.bad_topic", "expected a string, or empty for none"),
        ("[kafka]\nbootstrap_servers = [1]", "kafka.bootstrap_servers", "expected a list of strings"),
        ("[kafka]\nbootstrap_servers = []", "kafka.bootstrap_servers", "is empty"),
        ("[kafka]\nbootstrap_servers = ['nohost']", "kafka.bootstrap_servers", "expected host:port, got 'nohost'"),
        ("[kafka]\nlinger_s = -1", "kafka.linger_s", "expected 0 or more, got -1"),
        ("[kafka]\nlinger_s = inf", "kafka.linger_s", "expected a finite number"),
        ("[kafka]\nlinger_s = nan", "kafka.linger_s", "expected a finite number"),
        ("[kafka]\ntopic = 'a b'", "kafka.topic", "expected 1 to 249 of letters"),
        ("[kafka]\ntopic = '..'", "kafka.topic", "expected 1 to 249 of letters"),
        ("[kafka]\nbad_topic = 'events'", "kafka.bad_topic", "expected another topic"),
        ("[kafka]\nrequest_timeout_s = 5", "kafka.request_timeout_s", "produce_timeout_s < request_timeout_s"),
        ("[kafka]\nssl_cafile = 'ca.pem'", "kafka.ssl_cafile", "is used only with"),
        ("[kafka]\nsecurity_protocol = 'SSL'\nssl_keyfile = 'k'", "kafka.ssl_keyfile", "needs kafka.ssl_certfile"),
        ("[limits]\nbody_bytes = 0", "limits.body_bytes", "expected more than 0"),
        ("[limits]\nin_work_bytes = 1000", "limits.in_work_bytes", "expected at least limits.body_bytes (4194304)"),
        ("[retry_memory]\nminutes = 0", "retry_memory.minutes", "expected more than 0"),
        ("[retry_memory]\nmax_bytes = 600_000", "retry_memory.max_bytes", "expected at least 640000"),
        ("[deadlines]\nkafka_s = 0", "deadlines.kafka_s", "expected more than 0"),
        ("[http]\nbind = '8080'", "http.bind", "expected host:port"),
        ("[http]\nbind = 'h:65536'", "http.bind", "port of 0 to 65535"),
        ("[http]\nbind = '::1:80'", "http.bind", "in brackets"),
        ("[http]\nbind = 'h:٣'", "http.bind", "expected host:port"),
        ("[http]\ntrusted_proxies = ['10.0.0.1/8']", "http.trusted_proxies", "expected networks such as"),
        ("[http]\ncors_origins = ['example.com']", "http.cors_origins", "expected"),
        ("[spool]\nmax_bytes = 1000", "spool.max_bytes", "at least limits.event_bytes (1000000), got 1000"),
        ("[spool]\nreplay_bytes = 1000", "spool.replay_bytes", "at least limits.event_bytes"),
        ("[spool]\nreplay_bytes = 100_000_000", "spool.replay_bytes", "at most limits.queue_bytes (67108864)"),
        ("[deadlines]\nspool_s = 0", "deadlines.spool_s", '[spool] path = ""'),
        ("[workers]\ncount = 0", "workers.count", "expected more than 0"),
        ("[workers]\ncount = 257", "workers.count", 'expected 1 to 256 or "auto", got 257'),
        ("[workers]\ncount = 'many'", "workers.count", "expected a whole number or \"auto\", got 'many'"),
        ("[workers]\nhung_s = 0", "workers.hung_s", "expected more than 0"),
        ("[workers]\nhung_s = 0.3", "workers.hung_s", "expected more than limits.max_lag_s (0.3)"),
        ("[keys]\nopen = 'yes'", "keys.open", "expected true or false"),
        ("[keys]\nshop = 'w'", "keys.shop", "[keys.shop] with write_keys"),
        ("[keys.shop]", "keys.shop", "at least one of write_keys, app_ids"),
        ("[keys.shop]\nkeys = ['a']", "keys.shop.keys", "allowed: app_ids, write_keys"),
        ("[keys.shop]\nwrite_keys = [1]", "keys.shop.write_keys", "expected a list of strings"),
        ("[keys.shop]\nwrite_keys = ['']", "keys.shop.write_keys", "1 to 255 printable"),
        ('[keys.shop]\nwrite_keys = ["a\\u0007"]', "keys.shop.write_keys", "1 to 255 printable"),
    ],
)
def test_bad_value_is_refused_with_path_and_what_is_allowed(tmp_path: Path, text: str, path: str, words: str) -> None:
    fault = fault_of(tmp_path, text)
    assert fault.path == path
    assert words in fault.message
    assert str(fault) == f"{path}: {fault.message}"


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("COLLECTOR__KAFKA__TOPIK", "x", "kafka.topik"),
        ("COLLECTOR__KAFKA", "x", "kafka"),
        ("COLLECTOR__KAFKA__A__B", "x", "kafka.a.b"),
        ("COLLECTOR__NOPE__A", "x", "nope.a"),
        ("COLLECTOR__HTTP__BACKLOG", "x", "http.backlog"),
        ("COLLECTOR__HTTP__BACKLOG", "[" * 5000, "http.backlog"),
        ("COLLECTOR__HTTP__BACKLOG", "1\nbind = 'x'", "http.backlog"),
        ("COLLECTOR__KEYS", "true", "keys"),
        ("COLLECTOR__KEYS__OPEN", "maybe", "keys.open"),
        ("COLLECTOR__KEYS__SHOP", "a", "keys.shop"),
        ("COLLECTOR__KEYS__SHOP__NOPE", "a", "keys.shop.nope"),
        ("COLLECTOR__", "a", ""),
    ],
)
def test_bad_variable_is_refused_and_named(tmp_path: Path, variable: str, value: str, path: str) -> None:
    fault = fault_of(tmp_path, environ={variable: value})
    assert fault.path == path
    assert f"(environment: {variable})" in fault.message


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("COLLECTOR__HTTP__BACKLOG", "99999999999", "http.backlog"),
        ("COLLECTOR__KAFKA__LINGER_S", "-1", "kafka.linger_s"),
        ("COLLECTOR__HTTP__BIND", "8080", "http.bind"),
        ("COLLECTOR__LIMITS__BODY_BYTES", "900_000_000", "limits.in_work_bytes"),
        ("COLLECTOR__KEYS__SHOP__WRITE_KEYS", "", "keys.Shop"),
    ],
)
def test_value_of_the_environment_that_is_out_of_range_names_its_variable(
    tmp_path: Path, variable: str, value: str, path: str
) -> None:
    environ = {variable: value, "COLLECTOR__HTTP__SEND_TIMEOUT_S": "5"}
    fault = fault_of(tmp_path, '[keys.Shop]\nwrite_keys = ["a"]', environ)
    assert fault.path == path
    assert fault.message.endswith(f" (environment: {variable})")


def test_value_of_the_file_that_is_out_of_range_names_no_variable(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, "[kafka]\nlinger_s = -1", {"COLLECTOR__KAFKA__TOPIC": "x"})
    assert "environment" not in fault.message


def test_one_key_of_two_apps_is_refused_without_saying_it(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, '[keys.a]\nwrite_keys = ["secret"]\n[keys.b]\nwrite_keys = ["secret"]')
    assert fault.path == "keys.b.write_keys"
    assert "keys.a" in fault.message
    assert "secret" not in str(fault)


def test_secrets_are_not_repeated(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, '[kafka]\nssl_keyfile_password = ["hunter2"]')
    assert "hunter2" not in str(fault)
    fault = fault_of(tmp_path, "[keys.a]\nwrite_keys = {hunter2 = 1}")
    assert "hunter2" not in str(fault)


def test_missing_file_and_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"cannot read .*absent\.toml: No such file"):
        load_config(str(tmp_path / "absent.toml"), {})
    assert "is not TOML" in str(fault_of(tmp_path, "[http"))
    (tmp_path / "latin.toml").write_bytes(b'[http]\nbind = "\xe9"')
    with pytest.raises(ConfigFault, match="is not TOML"):
        load_config(str(tmp_path / "latin.toml"), {})


def test_serving_needs_keys_or_openness(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"keys: no app is listed.*open = true"):
        check_servable(Config())
    check_servable(load_config(None, {"COLLECTOR__KEYS__OPEN": "true"}))
    check_servable(load_config(write(tmp_path, '[keys.a]\napp_ids = ["1"]'), {}))


def test_every_default_passes_its_own_rules_when_written_down(tmp_path: Path) -> None:
    lines = []
    for section in fields(Config):
        if section.name == "keys":
            continue
        lines.append(f"[{section.name}]")
        for member in fields(getattr(Config(), section.name)):
            value = getattr(getattr(Config(), section.name), member.name)
            if isinstance(value, bool):
                lines.append(f"{member.name} = {str(value).lower()}")
            elif isinstance(value, tuple):
                lines.append(f"{member.name} = {list(value)!r}")
            elif value is None or isinstance(value, str):
                lines.append(f"{member.name} = {value or ''!r}")
            else:
                lines.append(f"{member.name} = {value!r}")
    assert load_config(write(tmp_path, "\n".join(lines)), {}) == Config()
