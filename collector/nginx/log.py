"""nginx's access log.

Owns: its members and where it is written; the variables that tell a request's own method and path, and as much of an
address as may be kept. Refuses to know: who reads it.

Invariant: no key and no more of an address than ``[privacy] ip`` allows is in it.
"""

from collector.config import Config

from .place import NginxPlace

__all__ = ["access_log", "log_lines"]

_ADDRESS_MAPS = {
    "truncated": r"""
    ~^(?<four>\d+\.\d+\.\d+)\.\d+$ $four.0;
    ~^(?<three>[0-9a-f]+:[0-9a-f]+:[0-9a-f]+): $three::;
    ~^(?<two>[0-9a-f]+:[0-9a-f]+):: $two::;
    ~^(?<one>[0-9a-f]+):: $one::;
    default -;""",
    "none": "\n    default -;",
    "full": "\n    default $remote_addr;",
}

_LOG_MEMBERS = (
    ("time", "$time_iso8601"),
    ("request_id", "$passed_request_id"),
    ("ip", "$logged_address"),
    ("method", "$requested_method"),
    ("path", "$requested_path"),
    ("status", "$meant_status"),
    ("sent", "$status"),
    ("request_bytes", "$request_length"),
    ("bytes", "$bytes_sent"),
    ("seconds", "$request_time"),
    ("upstream", "$upstream_addr"),
    ("upstream_status", "$upstream_status"),
    ("upstream_connect_s", "$upstream_connect_time"),
    ("upstream_s", "$upstream_response_time"),
)


def log_lines(config: Config, place: NginxPlace) -> list[str]:
    """Return the log's form and its variables; other maps use them too."""
    members = ",".join(f'"{name}":"{variable}"' for name, variable in _LOG_MEMBERS)
    return [
        f"map $remote_addr $logged_address {{{_ADDRESS_MAPS[config.privacy.ip]}",
        "}",
        "# Keys stand in queries: the log has the path alone.",
        "map $request_uri $requested_path {",
        "    ~^(?<asked>[^?]*) $asked;",
        "    default -;",
        "}",
        "# An error page makes a GET of every request.",
        "map $request $requested_method {",
        "    '~^(?<verb>[A-Z]{1,16}) ' $verb;",
        "    default -;",
        "}",
        "map $nginx_status $meant_status {",
        "    '' $status;",
        "    default $nginx_status;",
        "}",
        f"log_format collector escape=json '{{{members}}}';",
        access_log(place),
    ]


def access_log(place: NginxPlace) -> str:
    """Return the line that has a request logged."""
    return f"access_log {place.access_log} collector{' buffer=64k flush=1s' if place.daemon else ''};"
