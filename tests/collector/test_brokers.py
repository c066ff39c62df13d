"""`[kafka]` in the words of kafka_client: what of it proves who we are, and that none of it shows."""

from pathlib import Path

import pytest
import trio.testing

from collector.brokers import producer_config
from collector.config import Config, KafkaConfig
from collector.config_load import ConfigFault, load_config
from collector.topic_check import check_topics
from kafka_client.network.client_credentials import ClientCredentials, TokenFile
from kafka_client.testing import open_fake_cluster
from kafka_client.testing.sasl import FakeSasl

SCRAM = KafkaConfig(
    security_protocol="SASL_SSL",
    ssl_cafile="ca.pem",
    ssl_keyfile_password="hunter1",
    sasl_mechanism="SCRAM-SHA-512",
    sasl_username="ada",
    sasl_password="hunter2",
)
ENDPOINT = KafkaConfig(
    security_protocol="SASL_SSL",
    sasl_mechanism="OAUTHBEARER",
    sasl_oauth_token_endpoint_url="https://login.example.com/token",
    sasl_oauth_client_id="ada",
    sasl_oauth_client_secret="hunter3",
    sasl_oauth_scope="kafka",
)


def test_user_and_password_are_passed_on() -> None:
    security = producer_config(Config(kafka=SCRAM)).security
    assert (security.protocol, security.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (security.sasl_username, security.sasl_password, security.sasl_password_file) == ("ada", "hunter2", None)
    assert security.sasl_oauth_token is None


def test_token_endpoint_makes_a_provider_of_tokens() -> None:
    provider = producer_config(Config(kafka=ENDPOINT)).security.sasl_oauth_token
    assert isinstance(provider, ClientCredentials)
    assert repr(provider) == "<ClientCredentials 'ada' at login.example.com, 0 requests>"


def test_token_file_makes_a_provider_of_tokens() -> None:
    kafka = KafkaConfig(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file="/run/token")
    assert isinstance(producer_config(Config(kafka=kafka)).security.sasl_oauth_token, TokenFile)


@pytest.mark.parametrize("kafka", [SCRAM, ENDPOINT])
def test_secrets_are_in_no_repr(kafka: KafkaConfig) -> None:
    config = Config(kafka=kafka)
    assert "hunter" not in repr(config)
    assert "hunter" not in repr(producer_config(config))


def test_secrets_of_a_wrong_type_are_not_repeated(tmp_path: Path) -> None:
    for key in ("sasl_password", "sasl_oauth_client_secret"):
        file = tmp_path / "collector.toml"
        file.write_text(f'[kafka]\n{key} = ["hunter2"]')
        with pytest.raises(ConfigFault) as caught:
            load_config(str(file), {})
        assert caught.value.path == f"kafka.{key}"
        assert "hunter2" not in str(caught.value)


def test_passwords_of_the_environment_are_taken_as_they_are(tmp_path: Path) -> None:
    environ = {
        "COLLECTOR__KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "COLLECTOR__KAFKA__SASL_MECHANISM": "PLAIN",
        "COLLECTOR__KAFKA__SASL_USERNAME": "ada",
        "COLLECTOR__KAFKA__SASL_PASSWORD": "0123",
    }
    assert load_config(None, environ).kafka.sasl_password == "0123"


async def test_check_works_over_sasl_and_says_who_we_are(autojump_clock: trio.testing.MockClock) -> None:
    sasl = FakeSasl(users={"ada": "hunter2"})
    async with open_fake_cluster(sasl=sasl, topics={"events": 12, "events-bad": 1}) as cluster:
        kafka = KafkaConfig(
            bootstrap_servers=tuple(cluster.bootstrap_servers),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username="ada",
            sasl_password="hunter2",
        )
        found = await check_topics(Config(kafka=kafka), connector=cluster.connector)
        assert str(found[0]) == (
            "ok: connected to fake-1:9092: SASL_PLAINTEXT, SCRAM-SHA-256 as user 'ada', not encrypted"
        )
        assert "ok: topic events: 12 partitions" in map(str, found)

        sasl.users["ada"] = "changed"
        [refused] = await check_topics(Config(kafka=kafka), connector=cluster.connector)
    assert refused.level == "error"
    assert "the broker refused user 'ada' with SCRAM-SHA-256" in refused.text
