"""SASLprep: one spelling for user names and passwords that mean the same.

Owns: RFC 4013 for stored strings. Refuses to know: what is prepared, so that no error can show a password.

Non-obvious: the tables are those of Unicode 3.2, as RFC 3454 demands; a code point assigned later (most emoji) is
refused by the letter of the RFC.

Source: RFC 4013; RFC 3454 sections 4, 6 and 7; RFC 5802 section 5.1 for its use.
"""

import stringprep
from unicodedata import ucd_3_2_0

from kafka_client.errors import ConfigError

__all__ = ["saslprep"]

# RFC 4013 section 2.3, with what each table is called there.
_PROHIBITED = (
    (stringprep.in_table_c12, "a space that is not ASCII"),
    (stringprep.in_table_c21_c22, "a control character"),
    (stringprep.in_table_c3, "a private-use character"),
    (stringprep.in_table_c4, "a non-character code point"),
    (stringprep.in_table_c5, "a surrogate code point"),
    (stringprep.in_table_c6, "a character inappropriate for plain text"),
    (stringprep.in_table_c7, "a character inappropriate for canonical representation"),
    (stringprep.in_table_c8, "a character that changes the display"),
    (stringprep.in_table_c9, "a tagging character"),
    (stringprep.in_table_a1, "a code point that Unicode 3.2 does not have"),
)


def saslprep(text: str, field_name: str) -> str:
    """Prepare ``text``; raises `ConfigError` that names the field and the kind of character, never the text."""
    if text.isascii() and text.isprintable() and text:
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        raise ConfigError(f"{field_name}: is empty after SASLprep (RFC 4013)")
    for char in prepared:
        for prohibits, kind in _PROHIBITED:
            if prohibits(char):
                raise ConfigError(f"{field_name}: contains {kind}, which SASLprep (RFC 4013) prohibits")
    _check_direction(prepared, field_name)
    return prepared


def _check_direction(prepared: str, field_name: str) -> None:
    """RFC 3454 section 6: right-to-left text stands alone, from the first character to the last."""
    if not any(map(stringprep.in_table_d1, prepared)):
        return
    if any(map(stringprep.in_table_d2, prepared)):
        raise ConfigError(f"{field_name}: mixes right-to-left and left-to-right, which SASLprep (RFC 4013) prohibits")
    if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
        raise ConfigError(
            f"{field_name}: right-to-left text has to begin and end with such a character (SASLprep, RFC 4013)"
        )
