"""The answers that nginx gives itself, in the words of the dialect whose path was asked for.

Owns: which status of nginx's becomes which answer. Refuses to know: when nginx has which.

Invariant: bad for ever is 400, everything temporary 503 with Retry-After, and nothing is HTML.
"""

from collections.abc import Sequence

from collector.dialects import Answer, ClientFault, Dialect
from collector.web.answers import RETRY_AFTER_S, plain

from .text import location, quoted

__all__ = ["LATE", "UNREACHABLE", "answer_headers", "error_address", "error_locations", "error_maps", "error_pages"]

#: The form of paths that no dialect owns.
PLAIN = "plain"

#: nginx's words for a collector that it could not ask, and for one that did not answer in time.
UNREACHABLE, LATE = 502, 504

#: What nginx's own errors come to: the page's name, the statuses that it answers, the code and words of the answer; no
#: code where the error is temporary. 494 is nginx's word for a header above the buffers.
ERRORS: tuple[tuple[str, tuple[int, ...], str | None, str], ...] = (
    ("bad_request", (400, 411, 421, 501, 505), "bad_request", "the request cannot be read"),
    ("not_found", (404,), "not_found", "there is nothing at this path"),
    ("bad_method", (405,), "method_not_allowed", "this method is not known here"),
    ("body_too_large", (413,), "too_large", "the body is too large"),
    ("head_too_large", (414, 494), "too_large", "the request's head is too large"),
    ("overloaded", (500, 503), None, "the proxy is overloaded; send it again later"),
    ("unreachable", (502,), None, "the collector cannot be reached; send it again later"),
    ("late", (504,), None, "the collector did not answer in time, the outcome is unknown; send it again later"),
)


def error_maps(dialects: Sequence[Dialect]) -> list[str]:
    """Which form an error has, and when its client may come back."""
    lines = ["map $requested_path $error_form {"]
    for dialect in dialects:
        lines += [f"    ~^{prefix} {dialect.name};" for prefix in _prefixes(dialect)]
    lines += [f"    default {PLAIN};", "}"]
    least, most = RETRY_AFTER_S
    parts = [f"    {100 // (most - least + 1)}% {after_s};" for after_s in range(least, most)]
    lines += ["split_clients $request_id $retry_after_s {", *parts, f"    * {most};", "}"]
    temporary = "|".join(str(status) for _, statuses, code, _ in ERRORS if code is None for status in statuses)
    return [
        *lines,
        "map $nginx_status $error_retry_after_s {",
        f"    ~^({temporary})$ $retry_after_s;",
        "    default '';",
        "}",
    ]


def error_address(status: int) -> str:
    """Return the address inside of nginx where this status is answered."""
    [name] = [name for name, statuses, _, _ in ERRORS if status in statuses]
    return f"/_error/$error_form/{name}/{status}"


def error_pages(instead: dict[int, str]) -> list[str]:
    """Return the ``error_page`` lines; ``instead`` has the addresses of statuses that are decided elsewhere."""
    return [
        f"    error_page {status} = {instead.get(status) or error_address(status)};"
        for _, statuses, _, _ in ERRORS
        for status in statuses
    ]


def answer_headers() -> list[str]:
    """Return what the collector's own answers carry too."""
    return [
        "add_header X-Request-Id $passed_request_id always;",
        "add_header Access-Control-Allow-Origin $allowed_origin always;",
        "add_header Access-Control-Allow-Credentials $allowed_credentials always;",
        "add_header Access-Control-Expose-Headers $exposed_headers always;",
        "add_header Vary $vary_by always;",
    ]


def error_locations(dialects: Sequence[Dialect]) -> list[str]:
    """Return the addresses that ``error_page`` leads to."""
    lines = ["internal;", *answer_headers(), "add_header Retry-After $error_retry_after_s always;"]
    for dialect in (*dialects, None):
        form = PLAIN if dialect is None else dialect.name
        for name, _, code, text in ERRORS:
            answer = _answer(dialect, code, text)
            lines += [
                "",
                f"location ~ ^/_error/{form}/{name}/(?<nginx_status>[0-9]+)$ {{",
                "    internal;",
                f"    default_type {quoted(answer.content_type)};",
                f"    return {answer.status} {quoted(answer.body.decode())};",
                "}",
            ]
    return location("/_error/", lines)


def _answer(dialect: Dialect | None, code: str | None, text: str) -> Answer:
    if code is None:
        return plain(503, text) if dialect is None else dialect.unavailable(None, text)
    return plain(400, text) if dialect is None else dialect.refused(None, ClientFault(code, text))


def _prefixes(dialect: Dialect) -> list[str]:
    """The first segments under which a dialect's paths lie: ``/v1/``."""
    found = {f"/{route.path.split('/')[1]}/" for route in dialect.routes if route.path.count("/") >= 2}
    return sorted(found)
