"""nginx's side of the collector, rendered from the collector's own configuration.

Owns: the text of ``nginx.conf``: the proxy and its timeouts, the forms of nginx's own errors, its log, and what it does
where no collector can be reached. Refuses to know: how nginx is installed, started or supervised.

Invariants: no number is typed here that stands in the configuration or in the deadline chain; nginx's own errors have
the words of the dialect whose path was asked for, since those words are the dialect's own answers; and no client ever
sees a 502 or a 504.

How it works:
- A body is read whole before the collector sees it (``proxy_request_buffering on``): a slow phone costs nginx a
  buffer, not the collector a reservation, and the client's clock starts when the body is complete. A body that stops
  half-way ends with nginx's ``client_body_timeout``: nginx closes such a connection without an answer, and nothing
  can make it say one.
- A client that hangs up after its last byte is not a reason to stop (``proxy_ignore_client_abort on``).
- A POST that was sent is never sent again (no ``non_idempotent``), one that found no connection goes to the next
  collector (``proxy_next_upstream_timeout`` leaves no time for another after a late answer). A GET counts as repeatable
  for nginx, so where a GET carries an event the next try is off. A websocket's handshake carries none, and another
  collector is as good.
- ``error_page`` takes its address from the path asked for, so one set of lines serves every location, and the broken
  heads that never reach one.
- With several collectors the requests of one key go to one of them (`collector.nginx.upstream`).
- The access log has the status that nginx meant (``status``) beside the one it sent (``sent``), and a client's address
  only as far as ``[privacy] ip`` allows; the error log names addresses in full, hence its level.
- What `collector.nginx.last_resort` keeps was sent to nobody: that is decided by the bytes that went out.
"""

from .place import NginxPlace
from .render import render_nginx

__all__ = ["NginxPlace", "render_nginx"]
