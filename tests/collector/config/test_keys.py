"""The keyring of `[keys]`."""

import pytest

from collector.config import AppKeys, KeysConfig
from collector.keys import ConfiguredKeys


def test_listed_keys_find_their_app_and_others_none() -> None:
    keys = ConfiguredKeys.from_config(
        KeysConfig(apps={"shop": AppKeys(write_keys=("w1", "w2"), app_ids=("11",)), "blog": AppKeys(app_ids=("12",))})
    )
    assert keys.app_of_write_key("w2") == "shop"
    assert keys.app_of_app_id("12") == "blog"
    assert keys.app_of_app_id("w1") is None
    assert keys.app_of_write_key("shop") is None
    assert repr(keys) == "<ConfiguredKeys 2 write keys, 2 app ids>"


@pytest.mark.parametrize("key", ["", "a\nb", "\x00", "\ud800", "x" * 256, "a\u2028b"])
def test_open_refuses_what_could_not_be_a_name(key: str) -> None:
    keys = ConfiguredKeys.from_config(KeysConfig(open=True))
    assert keys.app_of_write_key(key) is None
    assert keys.app_of_app_id(key) is None


def test_open_takes_any_key_as_its_app() -> None:
    keys = ConfiguredKeys.from_config(KeysConfig(open=True, apps={"shop": AppKeys(write_keys=("w",))}))
    assert keys.app_of_write_key("w") == "w"
    assert keys.app_of_app_id("größe 11") == "größe 11"
    assert repr(keys) == "<ConfiguredKeys open>"
