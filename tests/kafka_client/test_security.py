"""`SecurityConfig`: which settings belong together, and secrets in files."""

from pathlib import Path
from typing import Any

import pytest
import trio

from kafka_client.errors import ConfigError
from kafka_client.security import SECRET_MAX_BYTES, OAuthToken, SecurityConfig, read_secret

USER = {"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "ada"}


async def provide() -> OAuthToken:
    await trio.lowlevel.checkpoint()
    return OAuthToken(value="token")


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"protocol": "SSL", "ssl_certfile": "c", "ssl_keyfile": "k"},
        {**USER, "sasl_password": "p"},
        {**USER, "sasl_password_file": "/run/p"},
        {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token": provide},
    ],
)
def test_whole_combination_is_taken(members: dict[str, Any]) -> None:
    assert SecurityConfig(**members) == SecurityConfig(**members)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"protocol": "SASL"}, "security.protocol"),
        ({"protocol": "SASL_SSL"}, "sasl_mechanism"),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "sasl_mechanism"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism"),
        ({"protocol": "SSL", "sasl_username": "ada"}, "sasl_username"),
        ({**USER, "sasl_username": None, "sasl_password": "p"}, "sasl_username"),
        (USER, "sasl_password"),
        ({**USER, "sasl_password": "p", "sasl_password_file": "f"}, "sasl_password"),
        ({**USER, "sasl_password": ""}, "sasl_password"),
        ({**USER, "sasl_password": "p", "sasl_oauth_token": provide}, "sasl_oauth_token"),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "sasl_oauth_token"),
        ({**USER, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token": provide}, "sasl_username"),
    ],
)
def test_combination_that_cannot_work_is_refused(members: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        SecurityConfig(**members)


def told(error: BaseException | None) -> str:
    """Everything that an error and those behind it would show."""
    texts = []
    while error is not None:
        texts.append(f"{error!r} {getattr(error, 'object', '')!r}")
        error = error.__cause__ or error.__context__
    return " ".join(texts)


@pytest.mark.parametrize(
    ("mechanism", "secret", "words"),
    [
        ("PLAIN", "hunter2\0", "contains NUL"),
        ("SCRAM-SHA-256", "hunter2\0", "contains NUL"),
        ("SCRAM-SHA-512", "hunter2\n", "contains a control character"),
        ("SCRAM-SHA-256", "hunter2\x85", "contains a control character"),
        # What an environment variable with bytes that are not UTF-8 becomes.
        ("PLAIN", "hunter2\udcff", "is not text"),
        ("SCRAM-SHA-256", "hunter2\udcff", "is not text"),
    ],
)
@pytest.mark.parametrize("field", ["sasl_username", "sasl_password"])
def test_spelling_that_cannot_be_sent_is_refused_without_showing_it(
    mechanism: str, secret: str, words: str, field: str
) -> None:
    members: dict[str, Any] = {**USER, "sasl_mechanism": mechanism, "sasl_password": "p", field: secret}
    with pytest.raises(ConfigError, match=f"^{field}: {words}") as caught:
        SecurityConfig(**members)
    assert "hunter2" not in told(caught.value)


@pytest.mark.parametrize("password", ["\U0001f600", "a\ue000", "x\u0627", "\u200d", "\u00ad", "\ufdd0"])
def test_password_that_saslprep_prohibits_is_taken_since_kafka_stores_it(password: str) -> None:
    assert SecurityConfig(**USER, sasl_password=password).sasl_password == password  # type: ignore[arg-type]  # right ones


def test_secrets_are_in_no_repr() -> None:
    shown = repr(SecurityConfig(**USER, sasl_password="hunter2", ssl_keyfile_password="hunter3"))  # type: ignore[arg-type]  # right ones
    assert "ada" in shown
    assert "hunter" not in shown
    assert "hunter" not in repr(OAuthToken(value="hunter4"))


def test_secret_is_the_file_without_its_last_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content, secret in (
        (b"s", "s"),
        (b"s\n", "s"),
        (b"s\r\n", "s"),
        (b" s \n\n", " s \n"),
        ("\u00e9".encode(), "é"),
    ):
        file.write_bytes(content)
        assert read_secret("field", str(file)) == secret


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "is not UTF-8 text"),
        (b"x" * (SECRET_MAX_BYTES + 1), "is larger than 65536 bytes"),
    ],
)
def test_secret_that_cannot_be_read_is_named_by_its_field(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^sasl_password_file: '{file}' {words}") as caught:
        read_secret("sasl_password_file", str(file))
    assert "hunter2" not in told(caught.value)


def test_path_that_no_file_can_have_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^sasl_password_file: .* cannot be read: embedded null"):
        read_secret("sasl_password_file", "/run/\0")
