"""Who may come in: by bytes, before a body is read.

Owns: the account of bodies that are admitted and not answered, the reasons for shedding. Refuses to know: HTTP, what a
body contains, Kafka.

Invariants: the account is the sum of the open reservations, and never above its bound; a reservation grows before the
memory it stands for does; closing it gives back all of it, once. While others are being shed, one write key holds at
most half: a key is known from the head, or only after the body was understood (`Reservation.assign`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeAlias

import trio
from msgspec import Struct

__all__ = ["Admission", "AdmissionStatistics", "Reservation", "Shed", "ShedReason"]

ShedReason: TypeAlias = Literal["bytes", "share", "lag", "quota"]

#: How long after the last shed request the share of one key stays limited. Longer than Retry-After's 4 to 8 s, so that
#: the clients that come back find room.
CONTENDED_S = 10.0


class Shed(Exception):
    """Overload: answer 503 with Retry-After once the body is out of the way. ``reason`` is for the metrics."""

    def __init__(self, reason: ShedReason, message: str) -> None:
        super().__init__(message)
        self.reason: ShedReason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """One reading of the account."""

    in_work_bytes: int
    highest_in_work_bytes: int
    bound_bytes: int
    reservations: int
    keys: int
    """Write keys with bytes in work."""
    shed_bytes_total: int
    """Requests shed because all bytes were taken (not a number of bytes)."""
    shed_share_total: int
    shed_lag_total: int


class Reservation(Struct, eq=False):
    """The bytes of one request or message, from its head to its answer. Use as a context manager."""

    admission: "Admission"
    tenant: str | None
    held_bytes: int = 0
    closed: bool = False

    def __repr__(self) -> str:
        return f"<Reservation of {self.held_bytes} bytes, {'closed' if self.closed else 'open'}>"

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def grow_to(self, size_bytes: int) -> None:
        """Hold at least ``size_bytes``. Raises `Shed`, and holds what it held."""
        if size_bytes > self.held_bytes:
            self.admission._take(self, size_bytes - self.held_bytes)

    def assign(self, tenant: str) -> None:
        """The key is known now: what is held is that key's. Raises `Shed` when it holds more than its share."""
        if tenant != self.tenant:
            self.admission._move(self, tenant)

    def close(self) -> None:
        """Give everything back; idempotent."""
        if not self.closed:
            self.closed = True
            self.admission._release(self)


class Admission:
    """The account of all bodies in work.

    Args:
        bound_bytes: of all reservations together (``limits.in_work_bytes``).
        lagging: whether this turn of the loop has taken longer than its bound.
    """

    def __init__(self, *, bound_bytes: int, lagging: Callable[[], bool]) -> None:
        self._bound = bound_bytes
        self._lagging = lagging
        self._held = 0
        self._highest = 0
        self._open = 0
        self._tenants: dict[str, int] = {}
        self._contended_until: float | None = None
        self._shed: dict[ShedReason, int] = {"bytes": 0, "share": 0, "lag": 0}

    def __repr__(self) -> str:
        return f"<Admission {self._held}/{self._bound} bytes, {self._open} reservations>"

    @property
    def contended(self) -> bool:
        """True for a while after a request was shed for want of bytes."""
        if self._contended_until is None:
            return False
        if trio.current_time() < self._contended_until:
            return True
        self._contended_until = None
        return False

    def reserve(self, size_bytes: int, tenant: str | None = None) -> Reservation:
        """Admit a request whose body has ``size_bytes`` (0 where it is not known yet). Raises `Shed`."""
        if self._lagging():
            self._shed["lag"] += 1
            raise Shed("lag", "the server is behind with its work")
        reservation = Reservation(self, tenant)
        self._take(reservation, size_bytes)
        self._open += 1
        return reservation

    def _take(self, reservation: Reservation, more: int) -> None:
        if self._held + more > self._bound:
            self._contended_until = trio.current_time() + CONTENDED_S
            self._shed["bytes"] += 1
            raise Shed("bytes", "the server holds as many bytes as it may")
        tenant = reservation.tenant
        if tenant is not None:
            if self._contended_until is not None:
                self._check_share(tenant, more)
            self._tenants[tenant] = self._tenants.get(tenant, 0) + more
        held = self._held = self._held + more
        if held > self._highest:
            self._highest = held
        reservation.held_bytes += more

    def _move(self, reservation: Reservation, tenant: str) -> None:
        held = reservation.held_bytes
        if self._contended_until is not None:
            self._check_share(tenant, held)
        if reservation.tenant is not None:
            self._leave_tenant(reservation.tenant, held)
        reservation.tenant = tenant
        self._tenants[tenant] = self._tenants.get(tenant, 0) + held

    def _check_share(self, tenant: str, more: int) -> None:
        if self.contended and self._tenants.get(tenant, 0) + more > self._bound // 2:
            self._shed["share"] += 1
            raise Shed("share", "this key holds half of what the server may, and others are waiting")

    def _leave_tenant(self, tenant: str, held: int) -> None:
        tenants = self._tenants
        left = tenants.get(tenant, 0) - held
        if left:
            tenants[tenant] = left
        else:
            tenants.pop(tenant, None)

    def _release(self, reservation: Reservation) -> None:
        held = reservation.held_bytes
        if reservation.tenant is not None:
            self._leave_tenant(reservation.tenant, held)
        self._held -= held
        self._open -= 1
        reservation.held_bytes = 0

    def statistics(self) -> AdmissionStatistics:
        """The account as it is now."""
        return AdmissionStatistics(
            in_work_bytes=self._held,
            highest_in_work_bytes=self._highest,
            bound_bytes=self._bound,
            reservations=self._open,
            keys=len(self._tenants),
            shed_bytes_total=self._shed["bytes"],
            shed_share_total=self._shed["share"],
            shed_lag_total=self._shed["lag"],
        )
