"""A configuration on its way to the workers."""

import os
from pathlib import Path

import msgspec
import pytest

from collector.config import AppKeys, Config, KafkaConfig, KeysConfig, WorkersConfig
from collector.config_load import ConfigFault
from collector.workers.settings import Refused, Settings, check_fixed, main, read_anew, read_config

FILE = '[keys]\nopen = true\n[http]\nbind = "127.0.0.1:18080"\n[workers]\ncount = 2\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("COLLECTOR__"):
            monkeypatch.delenv(name)
    path = tmp_path / "collector.toml"
    path.write_text(FILE)
    return path


def write(file: Path, text: str) -> None:
    file.write_text(text)


def test_settings_arrive_whole_secrets_included() -> None:
    config = Config(
        kafka=KafkaConfig(sasl_password="geheim", bootstrap_servers=("a:1", "b:2"), bad_topic=None),
        keys=KeysConfig(apps={"shop": AppKeys(write_keys=("w",))}),
        workers=WorkersConfig(count="auto"),
    )
    settings = Settings.of(config)
    with settings.as_file() as handed:
        arrived = Settings.decode(handed.read())
    assert arrived.config == config
    assert arrived.encoded == settings.encoded


def test_keys_of_newer_code_go_through_unseen() -> None:
    newer = msgspec.json.decode(Settings.of(Config()).encoded)
    newer["http"]["novelty"] = newer["novelties"] = {"a": 1}
    settings = Settings.decode(msgspec.json.encode(newer))
    assert settings.config == Config()
    assert b"novelty" in settings.encoded


async def test_file_is_read_again_by_a_process_of_its_own(file: Path) -> None:
    running = Settings.of(read_config(str(file)))
    write(file, FILE.replace("count = 2", "count = 3") + "[kafka]\ntopic = 'other'\n")
    settings = await read_anew(str(file), running)
    assert (settings.config.workers.count, settings.config.kafka.topic) == (3, "other")
    assert settings.config == read_config(str(file))


async def test_configuration_that_cannot_work_is_refused_with_its_one_line(file: Path) -> None:
    running = Settings.of(read_config(str(file)))
    write(file, FILE + "[workers.x]\n")
    with pytest.raises(Refused, match=r"^workers\.x: unknown key"):
        await read_anew(str(file), running)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[admin]\nbind = '127.0.0.1:18099'", "admin.bind: is 127.0.0.1:8081 for as long as this supervisor runs"),
        ("[metrics]\nbind = '127.0.0.1:18098'", "metrics.bind: is None"),
        ("[http]\nbind = '127.0.0.1:18097'", "http.bind: is 127.0.0.1:8080"),
    ],
)
def test_address_stays_for_as_long_as_the_supervisor(file: Path, text: str, words: str) -> None:
    write(file, "[keys]\nopen = true\n" + text)
    with pytest.raises(Refused) as refused:
        check_fixed(Settings.of(Config()), Settings.of(read_config(str(file))))
    assert str(refused.value).startswith(words)


def test_reading_process_says_in_one_line_what_it_refuses(
    file: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(str(file)) == 0
    assert Settings.decode(capfdbinary.readouterr().out).config == read_config(str(file))
    file.write_text("[keys]\n")
    assert main(str(file)) == 2
    said = capfdbinary.readouterr()
    assert said.out == b""
    assert said.err.startswith(b"keys: no app is listed")
    assert said.err.count(b"\n") == 1


def test_broken_chain_of_deadlines_is_a_fault_of_the_configuration(file: Path) -> None:
    file.write_text(FILE + "[deadlines]\nstall_s = 30\n")
    with pytest.raises(ConfigFault, match="stall_s"):
        read_config(str(file))
