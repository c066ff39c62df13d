"""The track client over HTTP: httpx under anyio, so that it runs on Trio and on asyncio alike.

Owns: requests, retries, the reading of answers. Refuses to know: which loop it runs on.

A call ends when every event is accepted, when the collector refuses for good, or when the caller's scope ends it: there
is no attempt limit and no timeout parameter (style rule 4). Trying again is right for everything temporary, and safe as
far as anything can be: the same events with the same ids. What a failed attempt may have left in the log is told to
``on_retry`` (``unknown``).
"""

import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import httpx  # noqa: ASYNC127  # the design names httpx; its successor httpx2 is not established yet

from .events import ApiName, Event, EventError, api_of, encode_event
from .outcome import Accepted, Refused, RetryDetails, Unreachable
from .pace import pause_s, retry_after_s

__all__ = ["TrackClient", "open_track_client"]

ATTEMPT_S = 15.0
"""One attempt; the longest timeout among the field's SDKs. The collector answers within 5 s or is not there."""
BODY_BYTES = 1024 * 1024
"""Where a batch is cut. The server takes 4 MiB; smaller requests fail smaller."""

#: Of a 503: those delivered or spooled are in the log, those unknown may be.
_IN_THE_LOG = re.compile(r"\b(?:delivered|spooled|unknown)=(\d+)")
_REJECTED = re.compile(r"\brejected=(\d+)")

OnRetry = Callable[[RetryDetails], object]


@asynccontextmanager
async def open_track_client(
    url: str,
    *,
    key: str,
    api: ApiName = "segment",
    on_retry: OnRetry | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator["TrackClient"]:
    """A client for one collector, with its connections, until the block ends.

    Args:
        url: ``http://host:port``, of nginx or of the collector itself.
        key: the write key (Segment) or app id (Heap).
        api: the dialect to speak.
        on_retry: called with `RetryDetails` before each wait; synchronous.
        transport: another way to the server, such as `httpx.ASGITransport` in a test.
        rng: where the jitter comes from.

    Raises:
        Unreachable: ``url`` is not an http or https address.

    On cancellation: connections are closed.
    """
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Unreachable(f"{url!r} is not an address like http://127.0.0.1:8080")
    async with httpx.AsyncClient(base_url=parsed, timeout=None, transport=transport, trust_env=False) as http:
        yield TrackClient(http, key=key, api=api, on_retry=on_retry, rng=rng)


class TrackClient:
    """Sends events and waits until they are accepted. Several tasks may use one; open it with `open_track_client`."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        key: str,
        api: ApiName,
        on_retry: OnRetry | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._http = http
        self._key = key
        self._api = api_of(api)
        self._on_retry = on_retry
        self._rng = rng if rng is not None else random.Random()
        self.accepted_total = 0
        self.retries_total = 0
        self.uncertain_events = 0
        """Events of calls in work, or cancelled, that may be in the log without our knowing."""

    async def track(self, event: Event) -> Accepted:
        """Send one event; returns once it is in Kafka or on the collector's disk.

        Raises:
            EventError: it is not a JSON object of this dialect; nothing was sent.
            Refused: the collector will never take it.
            Unreachable: something else answers at this address.

        On cancellation: the event may have been sent; its outcome is lost.
        """
        return await self._post([encode_event(event, self._api)])

    async def batch(self, events: Sequence[Event]) -> Accepted:
        """Send many events in order, in as few requests as the dialect allows, one after the other.

        A bad event among good ones goes to the collector's bad topic and the rest are accepted; if all are bad it is
        `Refused`. Raises and on cancellation: as `track`; requests that were answered are accepted for good.
        """
        encoded = []
        for position, event in enumerate(events):
            try:
                encoded.append(encode_event(event, self._api))
            except EventError as error:
                raise EventError(f"event {position}: {error}") from error
        attempts, rejected, request_id = 0, 0, None
        for part in _cut(encoded, self._api.batch_events):
            accepted = await self._post(part)
            attempts, request_id = attempts + accepted.attempts, accepted.request_id
            rejected += accepted.rejected
        await anyio.lowlevel.checkpoint()
        return Accepted(events=len(encoded), rejected=rejected, attempts=attempts, request_id=request_id)

    def __repr__(self) -> str:
        return (
            f"<TrackClient {self._http.base_url} {self._api.name}: {self.accepted_total} accepted, "
            f"{self.retries_total} retries>"
        )

    async def _post(self, events: Sequence[bytes]) -> Accepted:
        body = self._api.body(events, self._key)
        attempt, before = 0, self.uncertain_events
        while True:
            attempt += 1
            uncertain_until_now, self.uncertain_events = self.uncertain_events, before + len(events)
            answer, failure, maybe = await self._attempt(body)
            if answer is not None and answer.status_code == 200:
                self.uncertain_events = before
                rejected = _counted(_REJECTED, answer)
                self.accepted_total += len(events) - rejected
                request_id = answer.headers.get("x-request-id")
                return Accepted(events=len(events), rejected=rejected, attempts=attempt, request_id=request_id)
            unknown = len(events) if maybe else 0
            if answer is not None:
                self.uncertain_events = uncertain_until_now
                _raise_if_final(answer)
                failure = f"answered {answer.status_code} {_sentence(answer)}".rstrip()
                unknown = _counted(_IN_THE_LOG, answer)
            self.uncertain_events = max(uncertain_until_now, before + unknown)
            wait = pause_s(
                attempt, retry_after_s(answer.headers.get("retry-after")) if answer is not None else None, self._rng
            )
            self.retries_total += 1
            if self._on_retry is not None:
                self._on_retry(
                    RetryDetails(attempt=attempt, reason=failure, wait_s=wait, events=len(events), unknown=unknown)
                )
            await anyio.sleep(wait)

    async def _attempt(self, body: bytes) -> tuple[httpx.Response | None, str, bool]:
        """One request: its answer or None, why there is none, and whether it may have reached the collector."""
        with anyio.move_on_after(ATTEMPT_S):
            await anyio.lowlevel.checkpoint()
            try:
                headers = {"Content-Type": "application/json"}
                return await self._http.post(self._api.path, content=body, headers=headers), "", False
            except httpx.UnsupportedProtocol as error:
                raise Unreachable(f"{self._http.base_url}: {error}") from error
            except httpx.ConnectError as error:
                return None, f"no connection: {error}", False
            except httpx.TransportError as error:
                return None, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, True
        return None, f"no answer within {ATTEMPT_S:g} s", True


def _counted(words: re.Pattern[str], answer: httpx.Response) -> int:
    """How many events an answer says to have come to these words."""
    return sum(int(number) for number in words.findall(answer.headers.get("x-collector-outcome", "")))


def _cut(events: Sequence[bytes], highest: int) -> list[Sequence[bytes]]:
    parts: list[Sequence[bytes]] = []
    start, size = 0, 0
    for index, event in enumerate(events):
        if index > start and (index - start == highest or size + len(event) > BODY_BYTES):
            parts.append(events[start:index])
            start, size = index, 0
        size += len(event) + 1
    if start < len(events):
        parts.append(events[start:])
    return parts


def _raise_if_final(answer: httpx.Response) -> None:
    """Raise for an answer that trying again will not change; return for what is temporary."""
    status = answer.status_code
    if status in (408, 425, 429) or status >= 500:
        return
    if status in (400, 401, 403, 413, 422):
        code, message = _code_and_message(answer)
        raise Refused(code, message)
    raise Unreachable(
        f"{answer.request.url} answered {status} {answer.reason_phrase}: is a collector there, and this its address?"
    )


def _code_and_message(answer: httpx.Response) -> tuple[str, str]:
    try:
        document: object = answer.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("message"), str):
        return str(document.get("code", answer.status_code)), document["message"]
    return str(answer.status_code), _sentence(answer)


def _sentence(answer: httpx.Response) -> str:
    return " ".join(answer.text[:300].split())
