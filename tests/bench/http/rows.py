"""Rows H1 to H4, B1 to B3, T1, O1 and S1: who takes part, with which settings, and what the ratios are held against.

Owns: that. Refuses to know: how a run is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from tests.bench.figures import at_least, at_most
from tests.bench.http.running import Bench, Contender, interleave
from tests.bench.peers.spec import PeerSpec, SendingSpec
from tests.bench.report import Check, Column, Measured, Row
from tests.bench.scores import Scores, failed_note
from tests.bench.servers import Opener, go_peer, module, ours, peer

__all__ = ["GROUPS", "ROWS", "contenders_of", "measure"]

LARGE_BYTES = 65_536

_COLUMNS = (
    Column(key="rate", title="events/s", digits=0),
    Column(key="cpu_us", title="CPU-µs/event", digits=2),
    Column(key="p50_ms", title="p50 ms", digits=2),
    Column(key="p99_ms", title="p99 ms", digits=2),
    Column(key="rss_bytes", title="RSS MB", scale=1e-6, digits=0),
)
_BESIDE = (
    Column(key="beside_p50_ms", title="singles' p50 ms", digits=1),
    Column(key="beside_p99_ms", title="singles' p99 ms", digits=1),
    Column(key="beside_rate", title="singles/s", digits=0),
)

_UVICORN = "uvicorn with uvloop and httptools, no access log"
_AIOKAFKA = "aiokafka acks=all, idempotent, linger_ms=0, max_batch_size=131072, partitions in turn"
_BATCHES = "aiokafka acks=all, idempotent, linger_ms=0, `create_batch` of max_batch_size=524288, a batch a request"
_LIBRDKAFKA = (
    "confluent-kafka acks=all, enable.idempotence, linger.ms={linger:g}, delivery callbacks into futures of the loop, "
    "which polls while something is owed"
)
_LIBRDKAFKA_AT_ONCE = (
    "confluent-kafka acks=all, enable.idempotence, linger.ms=0, a thread that waits for delivery callbacks and wakes "
    "the loop"
)
_GO = (
    "net/http, goccy/go-json, franz-go acks=all, idempotent, linger 0, no compression, GOMAXPROCS as the one core gives"
)
_OURS = '`collector serve`, `[http] server = "{server}"`, otherwise its defaults, any key open{more}'

OURS, ARMED = "ours", "the lane, request nursery armed"
STARLETTE, FASTAPI = "Starlette + aiokafka", "FastAPI + aiokafka"
BARE, LIBRDKAFKA = "bare ASGI + aiokafka", "bare ASGI + librdkafka"
GO = "Go net/http + franz-go"
STOCK = "ours on stock Hypercorn"
SEND, SEND_BATCH, PRODUCE_BATCH = (
    f"{STARLETTE} `send`",
    f"{STARLETTE} `send_batch`",
    "bare + librdkafka `produce_batch`",
)


def _ours(name: str = OURS, server: str = "lane", more: str = "", open_: Opener | None = None) -> Contender:
    return Contender(
        name=name,
        server=name.replace(" ", "-"),
        open=ours({"http": {"server": server}}) if open_ is None else open_,
        settings=_OURS.format(server=server, more=more),
    )


def _peer(name: str, framework: str, sending: SendingSpec, said: str) -> Contender:
    return Contender(
        name=name,
        server=f"{framework}-{sending.client}-{sending.bulk}-{sending.linger_ms:g}",
        open=peer(PeerSpec(port=0, framework=framework, sending=sending)),
        settings=f"{_UVICORN}; {said}",
    )


_LINGER_MS = 1
_lane = _ours()
_stock = _ours(STOCK, server="stock")
_fastapi = _peer(FASTAPI, "fastapi", SendingSpec(client="aiokafka"), _AIOKAFKA)
_starlette = _peer(STARLETTE, "starlette", SendingSpec(client="aiokafka"), _AIOKAFKA)
_bare = _peer(BARE, "bare", SendingSpec(client="aiokafka"), _AIOKAFKA)
_librdkafka = _peer(
    LIBRDKAFKA,
    "bare",
    SendingSpec(client="librdkafka", linger_ms=_LINGER_MS),
    _LIBRDKAFKA.format(linger=_LINGER_MS),
)
_go = Contender(name=GO, server="go", open=go_peer(), settings=_GO)


def _with(contender: Contender, words: str, connections: int) -> Contender:
    return replace(contender, name=f"{contender.name}, {words}", connections=connections)


_MANY, _ONE = "256 connections", "1 connection"
H1 = (_lane, _stock, _fastapi, _starlette, _bare, _librdkafka, _go)
H3 = (
    *(_with(each, _MANY, 256) for each in (_lane, _fastapi, _librdkafka)),
    *(_with(each, _ONE, 1) for each in (_lane, _starlette)),
    _with(
        _peer(LIBRDKAFKA, "bare", SendingSpec(client="librdkafka", threaded=True), _LIBRDKAFKA_AT_ONCE),
        _ONE,
        connections=1,
    ),
)
MTLS, TLS = "ours, mTLS to Kafka", "ours, mTLS to Kafka, TLS on the listener"
T1 = (
    _ours(
        MTLS, more=", TLS with a certificate of its own to Kafka", open_=ours({"http": {"server": "lane"}}, mtls=True)
    ),
    _ours(
        TLS,
        more=", TLS with a certificate of its own to Kafka, TLS 1.3 on its listener",
        open_=ours({"http": {"server": "lane"}}, mtls=True, tls=True),
    ),
)
UNWATCHED = "ours, all of it off"
O1 = (
    _ours(
        UNWATCHED,
        more=", without counters, histograms, ledger, GC clock and samples: put out by the benchmark alone",
        open_=ours({"http": {"server": "lane"}}, program="tests.bench.http.unwatched"),
    ),
)
WORKERS = 2
TWO = f"ours, {WORKERS} workers"
S1 = (
    _ours(
        TWO,
        more=f", {WORKERS} workers on the one core",
        open_=ours({"http": {"server": "lane"}, "workers": {"count": WORKERS}}),
    ),
)


def _floor(name: str, open_: Opener, settings: str) -> Contender:
    return Contender(name=name, server=name.replace(" ", "-"), open=open_, settings=settings, kafka=False)


_FLOOR = "an ASGI function that answers when it has the body"
LANE, UVICORN = "the lane", "uvicorn"
H2 = (
    _floor(LANE, module("tests.bench.http.floor"), f"our lane under Hypercorn on Trio; {_FLOOR}"),
    _floor(
        ARMED,
        module("tests.bench.http.floor", "armed"),
        f"our lane under Hypercorn on Trio; {_FLOOR}, in the request nursery with a deadline of 4 s",
    ),
    _floor(UVICORN, peer(PeerSpec(port=0, framework="floor")), f"{_UVICORN}; {_FLOOR}"),
)
_LARGE = "64 kB"
H4 = tuple(replace(each, name=f"{each.name}, {_LARGE}", body_bytes=LARGE_BYTES) for each in (H2[0], H2[2]))


def _bulk(contender: Contender, events: int, name: str | None = None) -> Contender:
    return replace(contender, name=f"{name or contender.name}, {events}", events=events, connections=32)


_send = _peer(SEND, "starlette", SendingSpec(client="aiokafka"), _AIOKAFKA)
_send_batch = _peer(SEND_BATCH, "starlette", SendingSpec(client="aiokafka", bulk="send_batch"), _BATCHES)
_produce_batch = _peer(
    PRODUCE_BATCH,
    "bare",
    SendingSpec(client="librdkafka", linger_ms=_LINGER_MS),
    _LIBRDKAFKA.format(linger=_LINGER_MS) + ", one `produce_batch` and one future a request",
)
B1 = tuple(_bulk(each, 100) for each in (_lane, _send_batch, _send, _produce_batch, _go))
B2 = tuple(_bulk(each, 1000) for each in (_lane, _send_batch, _produce_batch, _go))
BESIDE = "ours, 1000, beside singles"
B3 = (replace(_bulk(_lane, 1000), name=BESIDE, beside=True),)


def _checks_h1(scores: Scores) -> list[Check]:
    return [
        scores.ratio(f"rate : {FASTAPI}", OURS, FASTAPI, must=at_least(2.2)),
        scores.ratio(f"rate : {STARLETTE}", OURS, STARLETTE, must=at_least(1.8)),
        scores.ratio(f"rate : {BARE}", OURS, BARE, must=at_least(1.15)),
        scores.ratio(f"rate : {STOCK}", OURS, STOCK, must=at_least(10)),
        scores.ratio(f"p99 : {FASTAPI}", OURS, FASTAPI, "p99_ms", must=at_most(0.333)),
        scores.ratio(f"p99 : {STARLETTE}", OURS, STARLETTE, "p99_ms", must=at_most(0.333)),
        scores.ratio(f"rate : {LIBRDKAFKA}", OURS, LIBRDKAFKA, stretch=at_least(1.4)),
        scores.figure("CPU an event", OURS, "cpu_us", "µs", stretch=at_most(30, "µs")),
        scores.ratio(f"rate : {GO}", OURS, GO, stretch=at_least(0.65)),
    ]


def _checks_h2(scores: Scores) -> list[Check]:
    return [
        scores.ratio(f"{LANE} : {UVICORN}", LANE, UVICORN, must=at_least(1.35), stretch=at_least(1.6)),
        scores.ratio(f"{ARMED} : {UVICORN}", ARMED, UVICORN, must=at_least(1.15), stretch=at_least(1.4)),
    ]


def _checks_h3(scores: Scores) -> list[Check]:
    many, one = f"{OURS}, {_MANY}", f"{OURS}, {_ONE}"
    return [
        scores.ratio(f"rate, {_MANY} : 64", many, OURS, must=at_least(0.95)),
        scores.ratio(f"p99, {_MANY} : {FASTAPI}", many, f"{FASTAPI}, {_MANY}", "p99_ms", must=at_most(0.5)),
        scores.ratio(f"rate, {_MANY} : {LIBRDKAFKA}", many, f"{LIBRDKAFKA}, {_MANY}", stretch=at_least(1.2)),
        scores.ratio(f"p50, {_ONE} : {STARLETTE}", one, f"{STARLETTE}, {_ONE}", "p50_ms", must=at_most(0.9)),
        scores.ratio(
            f"p50, {_ONE} : {LIBRDKAFKA}, linger 0", one, f"{LIBRDKAFKA}, {_ONE}", "p50_ms", stretch=at_most(1)
        ),
    ]


def _checks_h4(scores: Scores) -> list[Check]:
    ours, theirs = f"{LANE}, {_LARGE}", f"{UVICORN}, {_LARGE}"
    return [scores.ratio(f"{LANE} : {UVICORN}", ours, theirs, must=at_least(1.6), stretch=at_least(1.9))]


def _checks_b1(scores: Scores) -> list[Check]:
    mine = f"{OURS}, 100"
    return [
        scores.ratio(f"rate : {SEND_BATCH}", mine, f"{SEND_BATCH}, 100", must=at_least(2.2)),
        scores.ratio(f"rate : {SEND}", mine, f"{SEND}, 100", must=at_least(4.5)),
        scores.ratio(
            f"rate : {PRODUCE_BATCH}", mine, f"{PRODUCE_BATCH}, 100", must=at_least(1.2), stretch=at_least(1.5)
        ),
        scores.ratio(f"rate : {GO}", mine, f"{GO}, 100", stretch=at_least(1)),
    ]


def _checks_b2(scores: Scores) -> list[Check]:
    mine, batch, produce = f"{OURS}, 1000", f"{SEND_BATCH}, 1000", f"{PRODUCE_BATCH}, 1000"
    return [
        scores.ratio(f"rate : {SEND_BATCH}", mine, batch, must=at_least(1.6)),
        scores.ratio(f"p99 : {SEND_BATCH}", mine, batch, "p99_ms", must=at_most(0.5)),
        scores.ratio(f"rate : {PRODUCE_BATCH}", mine, produce, must=at_least(1.3), stretch=at_least(1.7)),
        scores.ratio(f"p99 : {PRODUCE_BATCH}", mine, produce, "p99_ms", stretch=at_most(0.333)),
        scores.ratio(f"rate : {GO}", mine, f"{GO}, 1000", stretch=at_least(1)),
    ]


def _checks_b3(scores: Scores) -> list[Check]:
    return [
        scores.figure("p50 of the singles", BESIDE, "beside_p50_ms", "ms", at_most(25, "ms")),
        scores.ratio("bulk rate : without singles", BESIDE, f"{OURS}, 1000", must=at_least(0.8)),
    ]


def _checks_t1(scores: Scores) -> list[Check]:
    return [
        scores.ratio("mTLS to Kafka : plain", MTLS, OURS, must=at_least(0.9)),
        scores.ratio("TLS on the listener as well : plain", TLS, OURS, must=at_least(0.75)),
    ]


def _checks_o1(scores: Scores) -> list[Check]:
    return [scores.ratio("with : without", OURS, UNWATCHED, must=at_least(0.97))]


def _checks_s1(scores: Scores) -> list[Check]:
    return [
        scores.ratio(f"CPU an event, {WORKERS} workers : 1", TWO, OURS, "cpu_us", must=at_most(1.1)),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One row within a group: it shares runs with the group's other rows."""

    row: str
    title: str
    contenders: Sequence[Contender]
    checks: Callable[[Scores], list[Check]]
    needs: Sequence[Contender] = ()
    columns: Sequence[Column] = _COLUMNS
    notes: Sequence[str] = ()


_SHARED_CORE = (
    "All workers run on the one measured core, so that the figure is the cost of being several and not of a second "
    "core that the load and the broker use too. Memory is what they take together, shared pages once."
)
_OFF = (
    "There is no such configuration: the benchmark's own entry puts counters, histograms, ledger, GC clock and samples "
    "out before it becomes `collector serve`. The loop-lag probe stays, since admission needs it; log lines are "
    "written for no request."
)

#: Rows that are compared with each other, hence interleaved.
GROUPS: Sequence[Sequence[Part]] = (
    (
        Part(row="H1", title="one event per POST, 64 connections", contenders=H1, checks=_checks_h1),
        Part(
            row="H3",
            title="H1 with 256 connections, and with 1",
            contenders=H3,
            needs=(_lane,),
            checks=_checks_h3,
        ),
        Part(row="T1", title="H1 with TLS", contenders=T1, needs=(_lane,), checks=_checks_t1),
        Part(row="O1", title="H1 unobserved", contenders=O1, needs=(_lane,), checks=_checks_o1, notes=(_OFF,)),
        Part(
            row="S1", title="H1 with workers", contenders=S1, needs=(_lane,), checks=_checks_s1, notes=(_SHARED_CORE,)
        ),
    ),
    (
        Part(row="H2", title="an answer at once, without Kafka, 64 connections", contenders=H2, checks=_checks_h2),
        Part(row="H4", title="the same with bodies of 64 kB", contenders=H4, checks=_checks_h4),
    ),
    (
        Part(row="B1", title="100 events per POST, 32 connections", contenders=B1, checks=_checks_b1),
        Part(row="B2", title="1000 events per POST, 32 connections", contenders=B2, checks=_checks_b2),
        Part(
            row="B3",
            title="single events on 4 connections beside 32 connections of 1000-event POSTs",
            contenders=B3,
            needs=B2[:1],
            checks=_checks_b3,
            columns=(*_COLUMNS, *_BESIDE),
        ),
    ),
)
ROWS = ("H1", "H2", "H3", "H4", "B1", "B2", "B3", "T1", "O1", "S1")


def contenders_of(row: str) -> Sequence[Contender]:
    """Who takes part in a row; nobody in one that is not here."""
    return [each for group in GROUPS for part in group if part.row == row for each in part.contenders]


async def measure(bench: Bench, rows: Sequence[str], only: str | None = None) -> list[Row]:
    """Run what the wanted rows need, group by group.

    Args:
        only: words that the name of a contender has to contain; a ratio without its other side is left out then.

    On cancellation: every server is ended.
    """
    found: list[Row] = []
    for group in GROUPS:
        parts = [part for part in group if part.row in rows]
        wanted = {
            each.name: each
            for part in parts
            for each in (*part.contenders, *part.needs)
            if only is None or only in each.name
        }
        if wanted:
            measured = await interleave(bench, "+".join(part.row for part in parts), list(wanted.values()))
            found += [_row(part, measured, partial=only is not None) for part in parts]
    await trio.lowlevel.checkpoint()
    return sorted(found, key=lambda row: ROWS.index(row.name))


def _row(part: Part, measured: dict[str, Measured], *, partial: bool) -> Row:
    taking_part = [measured[each.name] for each in (*part.needs, *part.contenders) if each.name in measured]
    scores = Scores(taking_part)
    notes = [*part.notes, *filter(None, (failed_note(taking_part), scores.unsaturated()))]
    return Row(
        name=part.row,
        title=part.title,
        columns=part.columns,
        measured=taking_part,
        checks=[check for check in part.checks(scores) if check.figure is not None or not partial],
        notes=notes,
        sides=("server", "load and broker"),
    )
