"""SASLprep by RFC 4013's own examples, and what it prohibits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_client.errors import ConfigError
from kafka_client.network.saslprep import saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013 section 3: the soft hyphen is mapped to nothing
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),  # NFKC
        ("\u2168", "IX"),
        ("a\u00a0b\u3000c", "a b c"),  # other spaces are spaces
        ("e\u0301", "\u00e9"),
        ("\u0627\u0628", "\u0627\u0628"),  # Arabic alone
    ],
)
def test_examples(text: str, prepared: str) -> None:
    assert saslprep(text, "field") == prepared


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u0007", "a control character"),  # RFC 4013 section 3
        ("\u06271", "has to begin and end"),  # RFC 4013 section 3
        ("x\u0627", "mixes right-to-left and left-to-right"),
        ("a\u0080", "a control character"),
        ("a\ue000", "a private-use character"),
        ("a\ufdd0", "a non-character code point"),
        ("a\ud800", "a surrogate code point"),
        ("a\ufffd", "inappropriate for plain text"),
        ("a\u2ff0", "inappropriate for canonical representation"),
        ("a\u200e", "changes the display"),
        ("a\U000e0001", "a tagging character"),
        ("a\U0001f600", "a code point that Unicode 3.2 does not have"),
        ("\u00ad", "is empty after SASLprep"),
        ("", "is empty after SASLprep"),
    ],
)
def test_what_is_prohibited_is_named_by_its_kind_and_not_repeated(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^sasl_password: .*{words}") as caught:
        saslprep(f"{text}", "sasl_password")
    assert not text or text not in str(caught.value)


@given(st.text(min_size=1))
def test_prepared_text_is_prepared_already(text: str) -> None:
    try:
        once = saslprep(text, "field")
    except ConfigError:
        return
    assert saslprep(once, "field") == once
