"""What of a client's address is kept, in records, logs and debug pages alike.

Owns: truncating an address. Refuses to know: where an address comes from.

Invariant: what is not an address is never passed on.
"""

import ipaddress
from typing import Literal

__all__ = ["kept_address"]

#: Part of the record's public form.
PREFIX_V4 = 24
PREFIX_V6 = 48


def kept_address(address: str | None, mode: Literal["truncated", "full", "none"]) -> str | None:
    """Return what may be kept of ``address``: its /24 or /48 network's first address, all of it, or None.

    An IPv4 address written as IPv6 (``::ffff:192.0.2.7``) is taken as IPv4, and a zone (``%eth0``) is dropped.
    """
    if address is None or mode == "none":
        return None
    try:
        parsed = ipaddress.ip_address(address.strip().partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if mode == "full":
        return str(parsed)
    prefix = PREFIX_V4 if parsed.version == 4 else PREFIX_V6
    return str(ipaddress.ip_network((parsed, prefix), strict=False).network_address)
