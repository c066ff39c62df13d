"""What the application works with: one value, made by the composition root, used by every request.

Owns: nothing but the references, and names for requests. Refuses to know: who made them and who ends them.
"""

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from collector.config import Config
from collector.dialects.base import Dialect, Keyring, Parsed
from collector.dialects.quota import HeapQuota
from collector.ingest.enqueue import Ingest, Patience
from collector.ingest.ledger import Ledger
from collector.ingest.record import new_node
from collector.lifecycle import Lifecycle
from collector.monitor import Monitor
from collector.web.admission import Admission, Shed
from collector.web.cors import Cors
from collector.web.gate import BodyGate
from collector.web.head import HeadReader
from collector.web.routing import Routes

__all__ = ["Node", "Services", "now_ms"]


def now_ms() -> int:
    """The wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Node:
    """One incarnation of one process: its name stands in every record, and names its requests."""

    def __init__(self) -> None:
        self.name = new_node()
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    def next_id(self) -> str:
        """A name for a request; no two in the world are alike."""
        return f"{self.name}-{next(self._numbers):x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a request needs. Made inside the run of trio in which it is used."""

    config: Config
    node: Node
    monitor: Monitor
    lifecycle: Lifecycle
    ledger: Ledger
    admission: Admission
    ingest: Ingest
    keys: Keyring
    dialects: Mapping[str, Dialect]
    routes: Routes = field(init=False)
    heads: HeadReader = field(init=False)
    cors: Cors = field(init=False)
    gate: BodyGate = field(init=False)
    quota: HeapQuota | None = field(init=False)
    """Only where the operator asked for one."""
    patience: Patience = field(init=False)
    """With a request whose client is not in a hurry."""
    clock: Callable[[], float] = field(init=False)
    """Trio's clock: what `trio.current_time` calls, for a third of its price."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", Routes(self.dialects.values()))
        object.__setattr__(self, "heads", HeadReader(self.config.http.trusted_proxies, self.node.next_id))
        object.__setattr__(self, "cors", Cors(self.config.http.cors_origins))
        object.__setattr__(self, "gate", BodyGate())
        object.__setattr__(self, "quota", HeapQuota() if self.config.quota.heap_per_identity else None)
        object.__setattr__(self, "patience", Patience.of(self.config.deadlines))
        object.__setattr__(self, "clock", trio.lowlevel.current_clock().current_time)

    def check_quota(self, parsed: Parsed, received_at_ms: int) -> None:
        """Count a request against its dialect's rate limits, where those are on. Raises `Shed`."""
        if self.quota is not None and (wait_s := self.quota.take(parsed, received_at_ms)) > 0:
            raise Shed("quota", f"more than Heap's rate limits allow; room again in {wait_s:.1f} s")

    def refused(self, size_bytes: int) -> None:
        """Count a request that was answered 503 before it was accepted: the loop was behind."""
        self.monitor.shed("lag")
        self.ledger.unparsed(size_bytes)
