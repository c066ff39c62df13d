"""Where the configuration comes from: one TOML file, then the environment over it, checked whole.

Owns: reading, the environment's spelling of a key, and the types of the values. Refuses to know: what is done with a
value, which values can work (`collector.config_rules`), and the chain of deadlines as a whole (`collector.deadlines`
judges it at the start).

Invariant: a `Config` that came out of `load_config` has no unknown key behind it and no value that cannot work, and
what was refused is named by the path of its key and by what would be allowed. Secrets are never repeated.

The environment: ``COLLECTOR__SECTION__KEY``, in capitals, is read as a TOML value where that fits the key's type, else
as a string, so that ``COLLECTOR__HTTP__BIND=0.0.0.0:80`` and ``COLLECTOR__KAFKA__TOPIC=2026`` need no quotes. A list of
strings may be written with commas. An empty string means "none" where a key may have none.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from collector.config import AppKeys, Config, KeysConfig
from collector.config_rules import problems_of

__all__ = ["ENVIRONMENT_PREFIX", "ConfigFault", "check_servable", "load_config"]

ENVIRONMENT_PREFIX = "COLLECTOR__"


class ConfigFault(Exception):
    """The operator's: a key or a value that is refused at the start (exit status 2). Correct it.

    ``path`` is the key's path (``kafka.topic``; empty for the file as a whole), ``message`` says what would be allowed.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the file at ``path`` (None: no file, only defaults), put the environment over it, and check the result.

    Raises:
        ConfigFault: the file cannot be read or parsed, a key is unknown, or a value cannot work.
    """
    tree = {} if path is None else _read(path)
    config = _convert(tree)
    config = _overridden(config, environ)
    for where, message in problems_of(config):
        raise ConfigFault(where, message + _environment_of(where, message, environ))
    return config


def check_servable(config: Config) -> None:
    """Refuse to serve anybody and everybody by oversight: either keys are listed, or they are open on purpose.

    Raises:
        ConfigFault: no app is listed and ``keys.open`` is not true.
    """
    if not config.keys.open and not config.keys.apps:
        raise ConfigFault(
            "keys",
            "no app is listed; give each app a table [keys.<app>] with write_keys and app_ids, or set open = true",
        )


def _read(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigFault("", f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFault("", f"{path} is not TOML: {error}") from error


def _convert(tree: Mapping[str, Any]) -> Config:
    sections = _types(Config)
    values: dict[str, Any] = {}
    for name, table in tree.items():
        if name not in sections:
            raise ConfigFault(name, _unknown("section", name, sections))
        if not isinstance(table, dict):
            raise ConfigFault(name, f"is a section: write [{name}] and its keys below it")
        values[name] = _keys(table) if name == "keys" else _section(name, sections[name], table)
    return Config(**values)


def _section(path: str, section: Any, table: Mapping[str, Any]) -> Any:
    types = _types(section)
    values = {}
    for name, value in table.items():
        if name not in types:
            raise ConfigFault(f"{path}.{name}", _unknown("key", name, types))
        values[name] = _value(f"{path}.{name}", types[name], value)
    return section(**values)


def _keys(table: Mapping[str, Any]) -> KeysConfig:
    opened = False
    apps: dict[str, AppKeys] = {}
    for name, value in table.items():
        if name == "open":
            opened = _value("keys.open", bool, value)
        elif isinstance(value, dict):
            apps[name] = _section(f"keys.{name}", AppKeys, value)
        else:
            raise ConfigFault(
                f"keys.{name}",
                f"is neither open = true | false nor the table [keys.{name}] with write_keys and app_ids",
            )
    return KeysConfig(open=opened, apps=apps)


def _value(path: str, kind: Any, value: Any) -> Any:
    if value == "" and NoneType in get_args(kind):
        return None
    if isinstance(value, str) and get_origin(kind) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        converted = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise ConfigFault(path, f"expected {_wording(kind)}, got {_shown(path, value)}") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ConfigFault(path, f"expected a finite number, got {value}")
    return converted


def _overridden(config: Config, environ: Mapping[str, str]) -> Config:
    """Put the environment's values over ``config``; in sorted order, so that the first fault is always the same."""
    sections = _types(Config)
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        section, *rest = _parts(variable)
        path = ".".join([section, *rest])
        try:
            if section not in sections:
                raise ConfigFault(path, _unknown("section", section, sections))
            if section == "keys":
                changed: Any = _keys_overridden(config.keys, rest, environ[variable])
            elif len(rest) != 1:
                raise ConfigFault(path, f"expected {ENVIRONMENT_PREFIX}{section.upper()}__<KEY>")
            else:
                changed = _one_overridden(path, getattr(config, section), rest[0], environ[variable])
        except ConfigFault as fault:
            raise ConfigFault(fault.path, fault.message + _named([variable])) from None
        config = replace(config, **{section: changed})
    return config


def _parts(variable: str) -> list[str]:
    return [part.lower() for part in variable.removeprefix(ENVIRONMENT_PREFIX).split("__")]


def _environment_of(where: str, message: str, environ: Mapping[str, str]) -> str:
    """The variables that gave a value of this problem: its key, what is below it, or what the message names."""
    concerned = []
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX):
            path = ".".join(_parts(variable))
            named = re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.])", message.lower())
            if named or f"{path}.".startswith(f"{where.lower()}."):
                concerned.append(variable)
    return _named(concerned)


def _named(variables: Sequence[str]) -> str:
    return f" (environment: {', '.join(variables)})" if variables else ""


def _one_overridden(path: str, section: Any, name: str, text: str) -> Any:
    types = _types(type(section))
    if name not in types:
        raise ConfigFault(path, _unknown("key", name, types))
    return replace(section, **{name: _from_text(path, types[name], text)})


def _keys_overridden(keys: KeysConfig, rest: list[str], text: str) -> KeysConfig:
    match rest:
        case ["open"]:
            return replace(keys, open=_from_text("keys.open", bool, text))
        case [name, key]:
            # The environment knows no small letters: an app of the file is meant whatever its letters are.
            app = next((known for known in keys.apps if known.lower() == name), name)
            changed = _one_overridden(f"keys.{app}.{key}", keys.apps.get(app, AppKeys()), key, text)
            return replace(keys, apps={**keys.apps, app: changed})
        case _:
            raise ConfigFault(
                ".".join(["keys", *rest]),
                "expected COLLECTOR__KEYS__OPEN or COLLECTOR__KEYS__<APP>__WRITE_KEYS | APP_IDS",
            )


def _from_text(path: str, kind: Any, text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return _value(path, kind, text)
    if set(value) == {"value"}:
        try:
            return _value(path, kind, value["value"])
        except ConfigFault:
            if not _takes_text(kind):
                raise
    return _value(path, kind, text)


def _takes_text(kind: Any) -> bool:
    return kind is str or str in get_args(kind) or get_origin(kind) in (Literal, tuple)


def _types(section: Any) -> dict[str, Any]:
    hints = get_type_hints(section if isinstance(section, type) else type(section))
    return {member.name: hints[member.name] for member in fields(section)}


def _unknown(what: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"unknown {what}{meant}; allowed: {', '.join(sorted(known))}".replace("?;", "?")


def _wording(kind: Any) -> str:
    """What is allowed, in words."""
    if get_origin(kind) is Literal:
        values = [str(value) if isinstance(value, int) else f'"{value}"' for value in get_args(kind)]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if get_origin(kind) is tuple:
        return "a list of strings"
    if is_dataclass(kind):
        return "a table"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    if not get_args(kind):
        return words[kind]
    inner = [_wording(part) for part in get_args(kind) if part is not NoneType]
    return " or ".join(inner) + (", or empty for none" if NoneType in get_args(kind) else "")


def _shown(path: str, value: object) -> str:
    if "password" in path or "secret" in path or path.startswith("keys"):
        return f"a {type(value).__name__}"
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:79] + "…"
