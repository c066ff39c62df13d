# flake8: noqa: ASYNC910
"""How a connection ends where the client may still be sending.

Owns: our end of the connection, and the reading behind it. Refuses to know: what was said before.

Source: RFC 9112, 9.6: closing on unread bytes resets the connection, and the last answer may be lost with it.
"""

import trio

from collector.web.lane.transport import Transport

__all__ = ["IDLE_LINGER_S", "LINGER_S", "linger"]

#: For the client to read the last answer and close; then the connection is closed on whatever it still sends.
LINGER_S = 1.0

#: As `LINGER_S`, where nothing was asked and nothing is answered.
IDLE_LINGER_S = 0.2


async def linger(transport: Transport, left: int, within_s: float) -> None:
    """End our side, then read (and drop) up to ``left`` bytes for up to ``within_s``, or until the client's end.

    Not always a checkpoint. On cancellation: it propagates, our side has ended.
    """
    transport.end()
    with trio.move_on_after(within_s):
        while left > 0:
            try:
                data = await transport.receive()
            except trio.BrokenResourceError:
                return
            if not data:
                return
            left -= len(data)
