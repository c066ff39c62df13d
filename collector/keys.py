"""Who may send: from a write key or an app id to the name of the app.

Owns: the two tables of `[keys]`. Refuses to know: where in a request a key stands (the dialects do).

Invariant: an app's name is never empty, at most 255 printable characters, and can stand in a record as it is; in open
mode it is the key itself, so a key that could not be a name is no key.
"""

from collections.abc import Mapping

from collector.config import KeysConfig
from collector.config_rules import KEY_MAX_CHARS

__all__ = ["ConfiguredKeys"]


class ConfiguredKeys:
    """The `Keyring` of a configuration; both look-ups are one dictionary access."""

    __slots__ = ("_app_ids", "_open", "_write_keys")

    def __init__(self, *, open_to_all: bool, write_keys: Mapping[str, str], app_ids: Mapping[str, str]) -> None:
        self._open = open_to_all
        self._write_keys = write_keys
        self._app_ids = app_ids

    @classmethod
    def from_config(cls, keys: KeysConfig) -> "ConfiguredKeys":
        """Make the keyring of ``[keys]``. That no key has two owners was checked when it was loaded."""
        return cls(
            open_to_all=keys.open,
            write_keys={key: app for app, given in keys.apps.items() for key in given.write_keys},
            app_ids={key: app for app, given in keys.apps.items() for key in given.app_ids},
        )

    def app_of_write_key(self, write_key: str) -> str | None:
        """Return the app that this write key belongs to, or None."""
        return _own_name(write_key) if self._open else self._write_keys.get(write_key)

    def app_of_app_id(self, app_id: str) -> str | None:
        """Return the app that this app id belongs to, or None."""
        return _own_name(app_id) if self._open else self._app_ids.get(app_id)

    def __repr__(self) -> str:
        if self._open:
            return "<ConfiguredKeys open>"
        return f"<ConfiguredKeys {len(self._write_keys)} write keys, {len(self._app_ids)} app ids>"


def _own_name(key: str) -> str | None:
    # isprintable() is false for surrogates and control characters alike: what passes can be encoded and logged.
    return key if 0 < len(key) <= KEY_MAX_CHARS and key.isprintable() else None
