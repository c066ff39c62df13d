"""The two chains of deadlines, from the client to the disk of the broker, in one place.

Owns: every link (what must be shorter than what, and why) and every number that follows from the configuration: nginx's
timeouts, Hypercorn's, the kernel's, the orchestrator's. Refuses to know: who enforces a number, and how a file of nginx
looks.

Invariant: no duration stands in two places. What others need is derived here from `Config`, so the
links between derived numbers hold by construction, and those between configured ones are judged by
`DeadlineChain.problems`.

The clients' chain: the clock starts when the body is complete. Kafka, the disk and the answer each have their share;
then come the lag of the loop, nginx, and the client's own patience. The broker's chain is made of constants and never
follows a caller: a Kafka request can be given up only by closing its connection, which leaves unknown everything that
is in flight on it. The two chains do not meet: slow is not dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from collector.config import Config
from collector.ingest.nursery import GRID_S
from collector.ingest.replay import CLOSE_S as REPLAY_WAIT_S
from collector.spool.spool import CLOSE_S as SPOOL_CLOSE_S

__all__ = ["CLOSE_LEAST_S", "SMALLEST_CLIENT_TIMEOUT_S", "DeadlineChain", "Link"]

Relation: TypeAlias = Literal["<", "≤", "="]

SMALLEST_CLIENT_TIMEOUT_S = 5.0
"""Snowplow's browser tracker gives up after 5 s; no SDK in the field is less patient."""

PROXY_CONNECT_TIMEOUT_S = 0.3
"""nginx and the collector share a machine or a rack: a connect takes microseconds or fails."""

PROXY_TRIES = 2
"""At least: one more try where a connect failed or took too long. A POST that was sent is never sent again."""

PROXY_NEXT_TRY_WITHIN_S = 0.31
"""No try begins later: one connect may take too long before the last one; refused ones take no time."""

PROXY_MARGIN_S = 0.05
"""nginx waits this much longer than the collector may take, so that the collector's own 503 wins."""

KEEPALIVE_SHARE = 0.8
"""Of our idle timeout: nginx closes an idle upstream connection first, never we under its next request."""

UPSTREAM_KEEPALIVE_REQUESTS = 100_000
"""After so many requests nginx closes an upstream connection; ours allows ten times as many."""

PINGS_MISSED = 3
"""nginx gives up a websocket that was silent for this many of our pings."""

CLOSE_LEAST_S = 1.0
"""The producer's grace where its clients used up the time to drain: for answers of Kafka's that are on their way."""

REPLAY_CLOSE_S = 2 * REPLAY_WAIT_S
"""The replay's end: for answers that are on their way, and for the disk."""

ORCHESTRATOR_MARGIN_S = 10.0
"""What starting the shutdown, the ends of replay, producer and spool, and leaving may take beside delay and drain."""

# Sums of decimal fractions are compared with this slack: 3.0 + 0.8 + 0.2 is 4.0.
EPSILON_S = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link: ``name`` (= ``value``) stands in ``relation`` to ``bound_name`` (= ``bound``); ``why`` is one line."""

    name: str
    value: float
    relation: Relation
    bound_name: str
    bound: float
    why: str
    unit: Literal["s", "requests"] = "s"

    @property
    def holds(self) -> bool:
        match self.relation:
            case "<":
                return self.value < self.bound - EPSILON_S
            case "≤":
                return self.value <= self.bound + EPSILON_S
            case "=":
                return abs(self.value - self.bound) <= EPSILON_S

    def __str__(self) -> str:
        left, right = (
            f"{number:.0f}" if self.unit == "requests" else f"{number:g} s" for number in (self.value, self.bound)
        )
        return f"{self.name} {left} {self.relation} {self.bound_name} {right}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineChain:
    """All links, and the numbers that follow from the configuration. Durations are seconds."""

    links: Sequence[Link]

    enqueue_s: float
    """What one request may take from its complete body to its answer."""
    work_s: float
    """The part of it that waits for Kafka (and the disk): ``enqueue_s`` less the answer's share."""
    answer_s: float
    proxy_connect_timeout_s: float
    proxy_next_upstream_tries: int
    proxy_next_upstream_timeout_s: float
    proxy_read_timeout_s: float
    proxy_send_timeout_s: float
    client_body_timeout_s: float
    """nginx's: between two reads of a body; ours bounds the whole body."""
    websocket_read_timeout_s: float
    """nginx's ``proxy_read_timeout`` in the websocket location; ``proxy_send_timeout`` too."""
    upstream_keepalive_timeout_s: float
    upstream_keepalive_requests: int
    upstream_max_fails: int
    """0: nginx never takes a collector out of its pool by itself; readiness does."""
    server_idle_timeout_s: float
    """Hypercorn's ``keep_alive_timeout``."""
    server_keepalive_requests: int
    """Hypercorn's ``keep_alive_max_requests``."""
    graceful_timeout_s: float
    """Hypercorn's ``graceful_timeout``."""
    listener_user_timeout_s: float
    """TCP_USER_TIMEOUT of the listening socket: a client that does not read."""
    broker_user_timeout_s: float
    """TCP_USER_TIMEOUT of the sockets to the brokers; it also ends a peer that does not read."""
    orchestrator_grace_s: float
    """What Kubernetes or systemd must grant between SIGTERM and SIGKILL."""

    @classmethod
    def from_config(cls, config: Config) -> "DeadlineChain":
        """Derive every number and link from ``config``; nothing is judged yet."""
        deadlines, limits, kafka, http = config.deadlines, config.limits, config.kafka, config.http
        shutdown = config.shutdown
        read = round(deadlines.enqueue_s + limits.max_lag_s + PROXY_MARGIN_S, 6)
        connects = round(PROXY_NEXT_TRY_WITHIN_S + PROXY_CONNECT_TIMEOUT_S, 6)
        websocket_read = round(http.ping_s * PINGS_MISSED, 6)
        keepalive = round(http.idle_timeout_s * KEEPALIVE_SHARE, 6)
        ends = CLOSE_LEAST_S + (0.0 if config.spool.path is None else REPLAY_CLOSE_S + SPOOL_CLOSE_S)
        grace = round(shutdown.delay_s + shutdown.drain_s + ORCHESTRATOR_MARGIN_S, 6)
        links = (
            Link(
                name="deadlines.kafka_s + spool_s + answer_s",
                value=round(deadlines.kafka_s + deadlines.spool_s + deadlines.answer_s, 6),
                relation="=",
                bound_name="enqueue_s",
                bound=deadlines.enqueue_s,
                why=f"the shares of one request, the disk's {_share_of_the_disk(config)}; its clock starts when the "
                "body is complete, less the loop's lag",
            ),
            Link(
                name="deadlines.stall_s",
                value=deadlines.stall_s,
                relation="<",
                bound_name="deadlines.kafka_s",
                bound=deadlines.kafka_s,
                why="a stalled partition is noticed while a waiting event can still go elsewhere",
            ),
            Link(
                name="enqueue_s + limits.max_lag_s",
                value=round(deadlines.enqueue_s + limits.max_lag_s, 6),
                relation="<",
                bound_name="nginx proxy_read_timeout",
                bound=read,
                why="our own 503 with its counts comes before nginx's 504",
            ),
            Link(
                name="nginx proxy_next_upstream_timeout + proxy_connect_timeout + proxy_read_timeout",
                value=round(connects + read, 6),
                relation="<",
                bound_name="smallest client timeout",
                bound=SMALLEST_CLIENT_TIMEOUT_S,
                why="every client hears an answer before it gives up; shorten deadlines.kafka_s, spool_s or answer_s",
            ),
            Link(
                name="the lane's deadline grid",
                value=GRID_S,
                relation="<",
                bound_name="deadlines.answer_s",
                bound=deadlines.answer_s,
                why="a deadline may fire so much late, and the answer still goes out within its share",
            ),
            Link(
                name="nginx upstream keepalive_timeout",
                value=keepalive,
                relation="<",
                bound_name="http.idle_timeout_s",
                bound=http.idle_timeout_s,
                why="nginx closes idle connections first: no request is sent into a closing one",
            ),
            Link(
                name="nginx upstream keepalive_requests",
                value=UPSTREAM_KEEPALIVE_REQUESTS,
                relation="<",
                bound_name="server keep_alive_max_requests",
                bound=UPSTREAM_KEEPALIVE_REQUESTS * 10,
                why="nginx retires connections first, for the same reason",
                unit="requests",
            ),
            Link(
                name="http.ping_s",
                value=http.ping_s,
                relation="<",
                bound_name="nginx websocket proxy_read_timeout",
                bound=websocket_read,
                why="a quiet websocket shows life before nginx gives it up",
            ),
            Link(
                name="http.send_timeout_s (TCP_USER_TIMEOUT of the listener)",
                value=http.send_timeout_s,
                relation="<",
                bound_name="shutdown.drain_s",
                bound=shutdown.drain_s,
                why="a client that does not read is dropped before the drain ends",
            ),
            Link(
                name="enqueue_s + limits.max_lag_s",
                value=round(deadlines.enqueue_s + limits.max_lag_s, 6),
                relation="<",
                bound_name="shutdown.drain_s",
                bound=shutdown.drain_s,
                why="the drain lets every admitted request reach its own deadline",
            ),
            Link(
                name="server graceful_timeout",
                value=shutdown.drain_s,
                relation="=",
                bound_name="shutdown.drain_s",
                bound=shutdown.drain_s,
                why="the server waits exactly as long as the drain",
            ),
            Link(
                name="limits.discard_s",
                value=limits.discard_s,
                relation="<",
                bound_name="enqueue_s",
                bound=deadlines.enqueue_s,
                why="reading and throwing away a refused body is short beside working one",
            ),
            Link(
                name="shutdown.delay_s + drain_s + the least that replay, producer and spool need to end",
                value=round(shutdown.delay_s + shutdown.drain_s + ends, 6),
                relation="<",
                bound_name="orchestrator's grace",
                bound=grace,
                why="what is in work ends by itself, not by SIGKILL",
            ),
            Link(
                name="enqueue_s",
                value=deadlines.enqueue_s,
                relation="<",
                bound_name="kafka.request_timeout_s",
                bound=kafka.request_timeout_s,
                why="the chains do not meet: no caller's deadline closes a connection to a broker",
            ),
            Link(
                name="kafka.produce_timeout_s (Produce timeout_ms)",
                value=kafka.produce_timeout_s,
                relation="<",
                bound_name="kafka.request_timeout_s",
                bound=kafka.request_timeout_s,
                why="the broker says REQUEST_TIMED_OUT before we give the connection up",
            ),
            Link(
                name="kafka.request_timeout_s",
                value=kafka.request_timeout_s,
                relation="<",
                bound_name="kafka.delivery_timeout_s",
                bound=kafka.delivery_timeout_s,
                why="a record outlives one lost connection",
            ),
            Link(
                name="TCP_USER_TIMEOUT of the broker's sockets",
                value=kafka.request_timeout_s,
                relation="=",
                bound_name="kafka.request_timeout_s",
                bound=kafka.request_timeout_s,
                why="a black hole ends as late as an unanswered request, never earlier: slow is not dead",
            ),
        )
        return cls(
            links=links,
            enqueue_s=deadlines.enqueue_s,
            work_s=round(deadlines.kafka_s + deadlines.spool_s, 6),
            answer_s=deadlines.answer_s,
            proxy_connect_timeout_s=PROXY_CONNECT_TIMEOUT_S,
            proxy_next_upstream_tries=max(PROXY_TRIES, len(config.nginx.upstreams)),
            proxy_next_upstream_timeout_s=PROXY_NEXT_TRY_WITHIN_S,
            proxy_read_timeout_s=read,
            proxy_send_timeout_s=read,
            client_body_timeout_s=http.body_timeout_s,
            websocket_read_timeout_s=websocket_read,
            upstream_keepalive_timeout_s=keepalive,
            upstream_keepalive_requests=UPSTREAM_KEEPALIVE_REQUESTS,
            upstream_max_fails=0,
            server_idle_timeout_s=http.idle_timeout_s,
            server_keepalive_requests=UPSTREAM_KEEPALIVE_REQUESTS * 10,
            graceful_timeout_s=shutdown.drain_s,
            listener_user_timeout_s=http.send_timeout_s,
            broker_user_timeout_s=kafka.request_timeout_s,
            orchestrator_grace_s=grace,
        )

    def problems(self) -> list[str]:
        """Say which links are broken, in words that name the keys; an empty list means that the chain holds."""
        return [f"{link} does not hold: {link.why}" for link in self.links if not link.holds]

    def lines(self) -> list[str]:
        """The whole chain for people, one link a line, with its numbers and whether it holds."""
        return [f"{'ok  ' if link.holds else 'FAIL'} {link}  ({link.why})" for link in self.links]


def _share_of_the_disk(config: Config) -> str:
    if config.spool.path is None:
        return "Kafka's, since there is no spool"
    return "for a commit to the spool, which waits for two at most"
