"""What `collector check` says about nginx: who is behind it, and what it does where nobody can be reached.

Owns: the findings. Refuses to know: who prints them; the judgement of the last resort's place
(`collector.last_resort.place`).
"""

from collections.abc import Iterator

from collector.config import Config
from collector.last_resort.place import check_place
from collector.topic_check import Finding

from .last_resort import largest_kept_body
from .upstream import collectors

__all__ = ["check_nginx"]


def check_nginx(config: Config) -> Iterator[Finding]:
    """Judge ``[nginx]``, on the machine where nginx runs."""
    addresses = collectors(config)
    text = f"in front of {', '.join(addresses)}"
    if len(addresses) > 1:
        text += "; the requests of one key go to one of them"
    yield Finding(level="ok", text=text)
    if config.nginx.last_resort == "off":
        text = "no last resort: where no collector can be reached a client hears 503 and comes back"
        yield Finding(level="ok", text=text)
        return
    body_bytes = largest_kept_body(config)
    text = f"last resort: what no collector can be given is kept in {config.nginx.last_resort_file} and answered 200"
    yield Finding(level="ok", text=f"{text}; that survives a process crash, not a power cut")
    if body_bytes < config.limits.body_bytes:
        text = f"bodies above {body_bytes} of the allowed {config.limits.body_bytes} bytes are not kept"
        yield Finding(level="note", text=f"{text} ([nginx] last_resort_body_bytes): 503")
    yield from check_place(config.nginx)
