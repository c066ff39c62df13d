"""The table of what a producer does about an error code."""

import pytest
from kio.schema.errors import ErrorCode

from kafka_client.wire.error_codes import ERRORS, Action, error_row
from kafka_client.wire.error_names import ERROR_NAMES, error_name, is_retriable


def test_names_and_retriable_bits_are_kios() -> None:
    assert {code: (name.lower(), is_retriable(code)) for code, name in ERROR_NAMES.items()} == {
        int(code): (code.name, code.retriable) for code in ErrorCode
    }


def test_unlisted_code_is_final_and_unknown() -> None:
    row = error_row(9999)
    assert (row.action, row.taints, row.definite) == (Action.FINAL_UNKNOWN, "always", False)
    assert row.name == error_name(9999) == "UNKNOWN_CODE_9999"
    assert not is_retriable(9999)


@pytest.mark.parametrize("code", [7, 20, 13, -1, 56])
def test_code_after_which_the_batch_may_be_in_the_log_taints(code: int) -> None:
    row = error_row(code)
    assert row.tainted_by(-1)
    assert not row.definite


@pytest.mark.parametrize("code", [3, 5, 6, 10, 19, 29, 45, 87, 100])
def test_code_with_a_base_offset_taints_since_the_batch_was_appended(code: int) -> None:
    row = error_row(code)
    assert not row.tainted_by(-1)
    assert row.tainted_by(0)
    assert row.definite


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (0, Action.DELIVERED),
        (46, Action.DELIVERED),
        (2, Action.RE_ENCODE_ONCE),
        (10, Action.SPLIT),
        (18, Action.SPLIT),
        (32, Action.RESTAMP),
        (35, Action.RENEGOTIATE),
        (45, Action.SEQUENCE),
        (47, Action.EPOCH),
        (59, Action.EPOCH),
        (87, Action.RECORD_ERRORS),
        (17, Action.OPERATOR_TOPIC),
        (29, Action.OPERATOR_TOPIC),
        (31, Action.OPERATOR_PRODUCER),
        (58, Action.OPERATOR_PRODUCER),
        (-1, Action.FINAL_UNKNOWN),
    ],
)
def test_code_action(code: int, action: Action) -> None:
    assert error_row(code).action is action


def test_operator_level_codes_have_advice() -> None:
    for row in ERRORS.values():
        if row.action in (Action.OPERATOR_TOPIC, Action.OPERATOR_PRODUCER):
            assert row.advice, row


def test_permission_for_idempotence_is_named() -> None:
    assert "IdempotentWrite" in error_row(31).advice


def test_delivered_taints_nothing_and_proves_no_absence() -> None:
    for row in ERRORS.values():
        if row.action is Action.DELIVERED:
            assert (row.taints, row.definite) == ("never", False)
