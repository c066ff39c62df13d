"""nginx as the last resort: it keeps a request that no collector could be given.

Owns: when that is so, what of a request is written down, the answer. Refuses to know: who reads the file, and whether
its place is fit (`collector.last_resort`).

Invariants: a request is kept only if no byte of it went to any collector, so what is kept was never delivered; only if
it is for a route of a dialect; only if its whole body is in memory, because nginx can write no other; and it is
answered in the dialect's own words for success.

Theory. A collector that is down, and one that drains (its listener is closed; before that it still accepts), are the
same for nginx: a connect is refused. A machine that is gone lets it time out, 504 for nginx. What tells them from a
request that failed midway is ``$upstream_bytes_sent``: one number for each try, what the kernel took of the request.
(``$upstream_connect_time`` does not: it is set for a connect that was refused, too.) Any other answer of a collector's,
a 503 for overload too, passes as it is.

Non-obvious:
- With several collectors two tries at least must have failed: one may fail with nothing sent and no next try, where a
  kept-alive connection turns out to be closed.
- nginx writes a log after the answer, and killed in between it loses what was answered 200. So the line is the log of
  a subrequest (``auth_request``), which ends before there is an answer.
- It takes no notice of an error in writing a log: nothing here can make it answer 503 then.
- ``escape=json`` leaves bytes from 0x80 as they are: a line is JSON in Latin-1, and the body comes back byte for byte.
- ``$remote_user`` is the part before the colon of Basic authorization, the key, and leaves the password out. Without a
  colon nginx finds no user, and the header is kept as it is.
- A dialect that comes to read another header needs a member for it.
"""

from collections.abc import Iterator, Sequence

from collector.config import Config
from collector.dialects import Answer, Dialect

from .errors import LATE, UNREACHABLE, answer_headers, error_address
from .place import NginxPlace
from .text import location, quoted
from .upstream import collectors

__all__ = ["MEMBERS", "body_buffer", "kept_instead", "largest_kept_body", "last_resort_locations", "last_resort_maps"]

#: Above it a body goes through a temporary file, where nothing has to be kept. Most are a few kB.
CLIENT_BODY_BUFFER = "256k"

#: What a kept line says, and nginx's variable for it. `collector.last_resort.kept` reads it.
MEMBERS = (
    ("kept", "1"),
    ("time", "$msec"),
    ("upstream_s", "$kept_upstream_s"),
    ("request_id", "$passed_request_id"),
    ("ip", "$logged_address"),
    ("method", "$requested_method"),
    ("target", "$request_uri"),
    ("user", "$remote_user"),
    ("authorization", "$kept_authorization"),
    ("content_encoding", "$http_content_encoding"),
    ("user_agent", "$http_user_agent"),
    ("dnt", "$http_dnt"),
    ("sec_gpc", "$http_sec_gpc"),
    ("content_length", "$content_length"),
    ("body", "$kept_body"),
)

_INSTEAD = {UNREACHABLE: "$where_unreachable", LATE: "$where_late"}


def body_buffer(config: Config) -> list[str]:
    """Return how much of a body nginx holds in memory."""
    if config.nginx.last_resort == "off":
        return [f"client_body_buffer_size {CLIENT_BODY_BUFFER};"]
    return [
        "# What goes to a temporary file cannot be kept.",
        f"client_body_buffer_size {largest_kept_body(config)};",
        "client_body_in_single_buffer on;",
    ]


def largest_kept_body(config: Config) -> int:
    """Return the size of the largest body that is kept for sure, in bytes."""
    return min(config.nginx.last_resort_body_bytes, config.limits.body_bytes)


def kept_instead(config: Config) -> dict[int, str]:
    """Return, for each status that may end here, where it is decided."""
    return _INSTEAD if config.nginx.last_resort == "accept" else {}


def last_resort_maps(config: Config, dialects: Sequence[Dialect]) -> list[str]:
    """Return the maps that decide whether a request is kept, and the form of a kept line."""
    if config.nginx.last_resort == "off":
        return []
    nothing_sent = "0(, 0)*" if len(collectors(config)) == 1 else "0(, 0)+"
    lines = [
        "# Kept is what was sent to nobody ($upstream_bytes_sent has a number for each try), is in memory, and is for",
        "# one of these paths.",
        'map "$upstream_bytes_sent|$request_body_file|$requested_method $requested_path" $kept_by {',
    ]
    for name, paths_by_method, _ in _kept_answers(dialects):
        for method, paths in paths_by_method.items():
            alternatives = "|".join(path.removeprefix("/") for path in paths)
            lines.append(f"    '~^{nothing_sent}\\|\\|{method} /({alternatives})/*$' {name};")
    lines += ["    default '';", "}"]
    for status, variable in _INSTEAD.items():
        lines += [f"map $kept_by {variable} {{"]
        lines += [f"    '' {error_address(status)};", "    default /_last_resort/$kept_by;", "}"]
    members = ",".join(f'"{name}":"{value}"' for name, value in MEMBERS)
    return [
        *lines,
        "# Of Authorization the key alone; all of it where nginx finds no colon in it.",
        'map "$remote_user|$http_authorization" $kept_authorization {',
        "    '~*^\\|Basic ' $http_authorization;",
        "    default '';",
        "}",
        f"log_format last_resort escape=json '{{{members}}}';",
    ]


def last_resort_locations(config: Config, dialects: Sequence[Dialect], place: NginxPlace) -> list[str]:
    """Return where a request is kept and answered."""
    if config.nginx.last_resort == "off":
        return []
    lines = [
        "internal;",
        "# A subrequest has no body and no upstream of its own, but the variables of its request.",
        "set $kept_body $request_body;",
        "set $kept_upstream_s $upstream_response_time;",
        "auth_request /_last_resort_line;",
        "try_files /_last_resort_none /_last_resort_answer/$kept_by;",
    ]
    kept = location("/_last_resort/", lines)[1:]
    line = [
        "internal;",
        f"access_log {config.nginx.last_resort_file} last_resort;",
        "log_subrequest on;",
        "return 204;",
    ]
    answers = ["internal;", *answer_headers()]
    for name, _, answer in _kept_answers(dialects):
        answers += [
            "",
            f"location = /_last_resort_answer/{name} {{",
            *(f"    {part}" for part in _answered(answer)),
            "}",
        ]
    promise = [f"    # {text}".rstrip() for text in _promise(config, place)]
    return [
        "",
        *promise,
        *kept,
        *location("= /_last_resort_line", line),
        *location("/_last_resort_answer/", answers),
    ]


def _answered(answer: Answer) -> list[str]:
    if answer.content_type == "image/gif":  # a pixel: nginx has one of its own
        return ["internal;", "empty_gif;"]
    return [
        "internal;",
        f"default_type {quoted(answer.content_type)};",
        f"return {answer.status} {quoted(answer.body.decode())};",
    ]


def _kept_answers(dialects: Sequence[Dialect]) -> Iterator[tuple[str, dict[str, list[str]], Answer]]:
    """A name, the paths by method, and their answer, for each answer that a dialect has for success."""
    for dialect in dialects:
        answers: dict[Answer, dict[str, list[str]]] = {}
        for route in dialect.routes:
            answers.setdefault(dialect.accepted(route), {}).setdefault(route.method, []).append(route.path)
        for number, (answer, paths) in enumerate(answers.items()):
            yield f"{dialect.name}_{number}" if number else dialect.name, paths, answer


def _promise(config: Config, place: NginxPlace) -> list[str]:
    file = config.nginx.last_resort_file
    directory = file.rpartition("/")[0] or "/"
    owner = f" -o {place.user}" if place.user not in (None, "root") else ""
    return [
        "The last resort: no collector could be reached, nothing of the request went to one, and nginx keeps it.",
        "",
        "A 200 from here survives a process crash, not a power cut: nginx has written the line before it answers,",
        "and left it to the kernel. It does not notice a full disk: what is answered 200 then is lost. Hence a",
        "filesystem of limited size for this file alone, and `collector check`, which looks at its free space.",
        "Nothing is checked here: what a collector would refuse is answered 200, and refused when it is fed back.",
        f"A body above {largest_kept_body(config)} bytes or a websocket is not kept: 503, as without a last resort.",
        "",
        "The file has events and keys. nginx keeps the mode of a file that is there, and makes a missing one",
        "readable for everybody; so make it first, and again at each rotation (logrotate: create 0600, nocompress):",
        f"  install -d -m 0700{owner} {directory}",
        f"  install -m 0600{owner} /dev/null {file}",
        f"Feed it back: collector replay {file} --config FILE",
    ]
