"""`[kafka]`'s security keys: combinations that cannot work, by the path of the key to change."""

from pathlib import Path

import pytest

from collector.config_load import ConfigFault, load_config

PLAIN = ("security_protocol = 'SASL_SSL'", "sasl_mechanism = 'PLAIN'")
SCRAM = ("security_protocol = 'SASL_SSL'", "sasl_mechanism = 'SCRAM-SHA-256'")
OAUTH = ("security_protocol = 'SASL_SSL'", "sasl_mechanism = 'OAUTHBEARER'")
ENDPOINT = (*OAUTH, "sasl_oauth_token_endpoint_url = 'https://login.example.com/token'")


def load(tmp_path: Path, lines: tuple[str, ...]) -> None:
    file = tmp_path / "collector.toml"
    file.write_text("\n".join(("[kafka]", *lines)))
    load_config(str(file), {})


@pytest.mark.parametrize(
    "lines",
    [
        (*PLAIN, "sasl_username = 'u'", "sasl_password = 'p'"),
        (*PLAIN, "sasl_username = 'u'", "sasl_password_file = '/run/p'", "sasl_password = ''"),
        (*ENDPOINT, "sasl_oauth_client_id = 'i'", "sasl_oauth_client_secret_file = '/run/s'", "sasl_oauth_scope = 'k'"),
        (*OAUTH, "sasl_oauth_token_file = '/run/token'"),
    ],
)
def test_whole_combination_is_taken(tmp_path: Path, lines: tuple[str, ...]) -> None:
    load(tmp_path, lines)


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        (
            ("security_protocol = 'SASL'",),
            "security_protocol",
            'one of "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"',
        ),
        (("security_protocol = 'SASL_SSL'",), "sasl_mechanism", 'needs one of "PLAIN", "SCRAM-SHA-256"'),
        (("sasl_mechanism = 'GSSAPI'",), "sasl_mechanism", '"SCRAM-SHA-512", "OAUTHBEARER", or empty for none'),
        (("security_protocol = 'SASL_PLAINTEXT'", "ssl_cafile = 'ca'"), "ssl_cafile", "is used only with"),
        (("sasl_username = 'u'",), "sasl_username", 'only with kafka.security_protocol = "SASL_SSL"'),
        (PLAIN, "sasl_username", "is needed with kafka.sasl_mechanism = PLAIN"),
        ((*PLAIN, "sasl_username = 'u'"), "sasl_password", "either it or kafka.sasl_password_file is needed"),
        (
            (*PLAIN, "sasl_username = 'u'", "sasl_password = 'p'", "sasl_password_file = 'f'"),
            "sasl_password",
            "not both",
        ),
        (
            (*PLAIN, "sasl_username = 'u'", r'sasl_password = "hunter2\u0000"'),
            "sasl_password",
            "contains NUL, which PLAIN cannot send",
        ),
        (
            (*SCRAM, "sasl_username = 'u'", r'sasl_password = "hunter2\n"'),
            "sasl_password",
            "contains a control character",
        ),
        ((*SCRAM, r'sasl_username = "u\t"', "sasl_password = 'p'"), "sasl_username", "contains a control character"),
        (
            (
                *OAUTH,
                "sasl_oauth_token_endpoint_url = 'https://[::1/hunter2'",
                "sasl_oauth_client_id = 'i'",
                "sasl_oauth_client_secret = 's'",
            ),
            "sasl_oauth_token_endpoint_url",
            "expected https://host/path",
        ),
        ((*PLAIN, "sasl_oauth_scope = 's'"), "sasl_oauth_scope", "is used only with"),
        ((*OAUTH, "sasl_username = 'u'"), "sasl_username", "is used only with"),
        (OAUTH, "sasl_oauth_token_endpoint_url", "either it or kafka.sasl_oauth_token_file is needed"),
        ((*OAUTH, "sasl_oauth_token_file = 'f'", "sasl_oauth_scope = 's'"), "sasl_oauth_scope", "is used only with"),
        (ENDPOINT, "sasl_oauth_client_id", "is needed with kafka.sasl_oauth_token_endpoint_url"),
        ((*ENDPOINT, "sasl_oauth_client_id = 'i'"), "sasl_oauth_client_secret", "either it or"),
        (
            (
                *OAUTH,
                "sasl_oauth_token_endpoint_url = 'login/token'",
                "sasl_oauth_client_id = 'i'",
                "sasl_oauth_client_secret = 's'",
            ),
            "sasl_oauth_token_endpoint_url",
            "expected https://host/path",
        ),
    ],
)
def test_combination_that_cannot_work_is_refused(tmp_path: Path, lines: tuple[str, ...], key: str, words: str) -> None:
    with pytest.raises(ConfigFault) as caught:
        load(tmp_path, lines)
    assert caught.value.path == f"kafka.{key}"
    assert words in caught.value.message
    assert "hunter2" not in str(caught.value)


def test_password_of_the_environment_that_is_no_utf_8_is_refused_and_not_shown() -> None:
    environ = {
        "COLLECTOR__KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "COLLECTOR__KAFKA__SASL_MECHANISM": "PLAIN",
        "COLLECTOR__KAFKA__SASL_USERNAME": "u",
        "COLLECTOR__KAFKA__SASL_PASSWORD": b"hunter2\xff".decode(errors="surrogateescape"),
    }
    with pytest.raises(ConfigFault) as caught:
        load_config(None, environ)
    assert str(caught.value).startswith("kafka.sasl_password: is not text that UTF-8 can spell")
    assert "hunter2" not in str(caught.value)
