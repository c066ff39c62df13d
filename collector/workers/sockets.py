"""The listening sockets of all slots: one each, of one address, for the supervisor's whole life.

Owns: making and closing them, over which of them the kernel spreads new connections, answering who waits on a slot that
has no worker. Refuses to know: workers.

The kernel chooses a socket by a hash of the connection's four numbers, or as a program says that is attached to the
group (SO_ATTACH_REUSEPORT_CBPF). It is attached while a slot has nobody to accept, and draws among the others. Who is
in a queue already is never moved or reset.

Source: socket(7); Documentation/networking/filter.rst of Linux (SKF_AD_RANDOM); the index of a socket is its place in
the order in which they began to listen, and the last one takes the place of one that was closed: hence only the last
slot is ever closed.
"""

import ctypes
import select
import socket
import struct
from collections.abc import Collection, Sequence
from dataclasses import replace

import trio

from collector.config import HttpConfig
from collector.log import get_logger
from collector.web.listeners import HANDSHAKES_S, address_of, open_listener, refuse_waiting

__all__ = ["SlotSockets", "open_sockets"]

log = get_logger("workers")

ACCEPTED_WITHIN_S = 2.0
"""For the worker of a slot that is closed to accept who waits on it; then they are answered 503."""

LOOK_S = 0.01

# Of <asm-generic/socket.h>; Python has no names for them.
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_DETACH_REUSEPORT_BPF = 68
_BPF = struct.Struct("@HBBI")
_RANDOM = -0x1000 + 56 & 0xFFFF_FFFF  # SKF_AD_OFF + SKF_AD_RANDOM


class SlotSockets:
    """The sockets; slot N has number N."""

    def __init__(self, config: HttpConfig, first: socket.socket) -> None:
        self._config = config
        self._sockets = [first]
        self._among: tuple[int, ...] | None = None
        self._closing = 0
        """How many of the last ones take nobody any more."""

    def __repr__(self) -> str:
        return f"<SlotSockets {self.address} × {len(self._sockets)}>"

    def __len__(self) -> int:
        return len(self._sockets)

    def __getitem__(self, number: int) -> socket.socket:
        return self._sockets[number]

    @property
    def address(self) -> str:
        """``host:port``."""
        return address_of(self._sockets[0])

    async def grow(self, count: int) -> None:
        """Have at least so many; nobody comes to the new ones before `spread_over` names them.

        Raises OSError. Then, and on cancellation, there are as many as before: one more would have a number that is
        no slot's, and clients would come to wait there.
        """
        await trio.lowlevel.checkpoint()
        before = len(self._sockets)
        if before < count and self._among is None:
            self._attach(tuple(range(before)))
        try:
            while len(self._sockets) < count:
                self._sockets.append(await _open(self._config, self._sockets[0].getsockname()))
        except BaseException:
            # Nobody has come to them: the last one takes the place of one that was closed, so they go from the end.
            while len(self._sockets) > before:
                self._sockets.pop().close()
            self.spread_over(self._among or ())
            raise

    def spread_over(self, numbers: Collection[int]) -> None:
        """Have new connections go to these slots alone; none, or all: to all, as the kernel likes."""
        staying = range(len(self._sockets) - self._closing)
        wanted = tuple(number for number in staying if number in numbers) or tuple(staying)
        among = wanted if len(wanted) < len(self._sockets) else None
        if among != self._among:
            self._attach(among)

    def _attach(self, among: tuple[int, ...] | None) -> None:
        """Have the kernel draw among these, or choose as it likes."""
        first = self._sockets[0]
        try:
            if among is None:
                first.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
            else:
                program = _drawing(among)
                held = ctypes.create_string_buffer(program)
                words = struct.pack("@HP", len(program) // _BPF.size, ctypes.addressof(held))
                first.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, words)
        except OSError as error:
            # They wait for the slot's next worker, as they would without us.
            log.warning("the kernel goes on choosing among all slots", error=str(error))
        self._among = among

    def refuse(self, number: int) -> int:
        """Answer 503 to who waits on a slot; how many they were."""
        cleartext = self._config.ssl_certfile is None
        return sum(1 for _ in refuse_waiting(self._sockets[number], most=self._config.backlog, cleartext=cleartext))

    async def empty_last(self) -> None:
        """Have nobody else come to the last slot, and its worker accept who waits there. On cancellation: some wait."""
        last = len(self._sockets) - 1
        self._closing = 1
        self.spread_over(self._among or range(last))
        await trio.sleep(HANDSHAKES_S)
        queue = select.poll()
        queue.register(self._sockets[last], select.POLLIN)
        for _ in range(round(ACCEPTED_WITHIN_S / LOOK_S)):
            if not queue.poll(0):
                break
            await trio.sleep(LOOK_S)
        self.refuse(last)

    def close_last(self) -> None:
        """Close the last slot's socket; see `empty_last`."""
        self._sockets.pop().close()
        self._closing = 0
        self.spread_over(self._among or ())

    def close(self) -> None:
        """Close all of them."""
        for listener in self._sockets:
            listener.close()


async def open_sockets(config: HttpConfig, count: int) -> SlotSockets:
    """Bind and listen at ``[http] bind``, ``count`` times; port 0 is one free one for all of them.

    Raises:
        OSError: the name does not resolve or the address is taken; the message names the key and the address.

    On cancellation: nothing is bound.
    """
    # One that shares nothing is refused where somebody else listens, be it another supervisor of ours.
    with await open_listener(config) as alone:
        address = alone.getsockname()
    sockets = SlotSockets(config, await _open(config, address))
    try:
        await sockets.grow(count)
        sockets.spread_over(range(count))
    except BaseException:
        sockets.close()
        raise
    return sockets


async def _open(config: HttpConfig, address: Sequence[object]) -> socket.socket:
    host, port = address[:2]
    bind = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return await open_listener(replace(config, bind=bind), shared=True)


def _drawing(among: Sequence[int]) -> bytes:
    """Return one of these numbers, by chance."""
    lines = [(0x20, 0, 0, _RANDOM), (0x94, 0, 0, len(among))]  # ld; mod
    for place, number in enumerate(among[:-1]):
        lines += [(0x15, 0, 1, place), (0x06, 0, 0, number)]  # jeq: the next, else the one after it; ret
    lines.append((0x06, 0, 0, among[-1]))
    return b"".join(_BPF.pack(*line) for line in lines)
