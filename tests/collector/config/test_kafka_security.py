"""`[kafka]`'s security keys: combinations that cannot work, by the path of the key to change."""

from pathlib import Path

import pytest

from collector.config_load import ConfigFault, load_config

PLAIN = ("security_protocol = 'SASL_SSL'", "sasl_mechanism = 'PLAIN'")
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
