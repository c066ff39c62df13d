"""One connection as a broker serves it: frames in, answers out, in order.

Owns: the stream, the order of answers, and the carrying out of what faults do to a request or its answer. Refuses to
know what a request means: ``apis`` do.

Invariant: requests are served one after the other in the order of arrival, and answers leave in that order. As with a
real broker, a request whose answer waits for replicas holds up everything behind it on its connection; only a delay of
the *network* lets later requests be served meanwhile.
"""

import math
import struct
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from kafka_client.testing import apis
from kafka_client.testing.apis.call import Call
from kafka_client.testing.link import MemoryStream
from kafka_client.testing.messages import Api, BadRequest, Header, Value, decode_header, encode_answer
from kafka_client.testing.plan import Plan
from kafka_client.testing.sasl import SaslState
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.cluster import FakeCluster
    from kafka_client.testing.parts import FakeBroker

__all__ = ["Connection"]

#: socket.request.max.bytes of a broker.
REQUEST_MAX_BYTES = 100 * 1024 * 1024
RECEIVE_BYTES = 256 * 1024
UNSUPPORTED_VERSION = 35


@dataclass(slots=True)
class _Answer:
    frame: bytes
    due: float
    plan: Plan
    request: RequestSeen


class Connection:
    """One accepted connection to one broker; `serve` is its whole life."""

    def __init__(
        self,
        cluster: "FakeCluster",
        broker: "FakeBroker",
        stream: trio.abc.HalfCloseableStream,
        number: int,
        *,
        tcp: bool,
    ) -> None:
        self.cluster = cluster
        self.broker = broker
        self.number = number
        self.tcp = tcp
        self.sasl = None if cluster.sasl is None else SaslState(cluster.sasl, number)
        self._stream = stream
        self._scope = trio.CancelScope()
        self._read_scope = trio.CancelScope()
        self._answers: deque[_Answer] = deque()
        self._answers_changed = trio.Event()
        self._throttled = (math.inf, math.inf)
        """When the client was told of a throttle, and when that is over."""
        self._read_at = -math.inf
        self._arrived_at = -math.inf
        """When the bytes read last had come at the earliest: they may have waited for an earlier request."""
        self._reset = False

    def __repr__(self) -> str:
        return f"<Connection {self.number} to broker {self.broker.number}: {len(self._answers)} answers waiting>"

    def close(self, *, reset: bool = False) -> None:
        """End it now; answers not yet written are lost. ``reset`` breaks an in-memory connection as RST does."""
        self._reset |= reset
        self._scope.cancel(reason="the fake broker closes this connection")

    def interrupt_read(self) -> None:
        """Let the reader look at its broker's state again."""
        self._read_scope.cancel(reason="the fake broker was paused")

    def endpoints(self, numbers: Iterable[int]) -> list[Value]:
        """Where these brokers listen, as answers tell it (KIP-951)."""
        known = [self.cluster.brokers[number] for number in sorted(numbers) if number in self.cluster.brokers]
        return [
            {"node_id": broker.number, "host": host, "port": port, "rack": broker.rack}
            for broker in known
            for host, port in [broker.address(tcp=self.tcp)]
        ]

    async def serve(self) -> None:
        """Serve until either side closes."""
        self.broker.connections.add(self)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_answers)
                    try:
                        await self._read_requests()
                    except BadRequest as error:
                        self.cluster.seen.violations.append(f"connection {self.number}: {error}")
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        pass  # the client is gone, which is its right
                    nursery.cancel_scope.cancel(reason="the client closed, or has to be closed")
        finally:
            self.broker.connections.discard(self)
            if self._reset and isinstance(self._stream, MemoryStream):
                self._stream.reset()
            with trio.CancelScope(shield=True):  # aclose_forcefully never waits
                await trio.aclose_forcefully(self._stream)
            self.cluster.changed()

    async def _read_requests(self) -> None:
        buffer = bytearray()
        while True:
            while len(buffer) >= 4:
                (size,) = struct.unpack_from(">i", buffer)
                if not 0 <= size <= REQUEST_MAX_BYTES:
                    raise BadRequest(f"a frame claims {size} bytes")
                if len(buffer) < 4 + size:
                    break
                frame = bytes(buffer[4 : 4 + size])
                del buffer[: 4 + size]
                await self._take(frame)
            allowance = await self.broker.wait_readable(RECEIVE_BYTES)
            data: bytes | bytearray | None = None
            idle_until = trio.current_time() + self.cluster.max_idle_s
            with trio.CancelScope(deadline=idle_until) as self._read_scope:
                asked_at = trio.current_time()
                data = await self._stream.receive_some(allowance)
                now = trio.current_time()
                self._arrived_at, self._read_at = now if now > asked_at else self._read_at, now
            if data is None and trio.current_time() >= idle_until:
                return
            if data is None:  # the broker was paused meanwhile
                continue
            if not data:
                if buffer:
                    self.cluster.seen.violations.append(
                        f"connection {self.number}: closed by the client with {len(buffer)} bytes of a frame unfinished"
                    )
                return
            self.broker.took(len(data))
            buffer += data

    async def _take(self, frame: bytes) -> None:
        """Serve one request, up to its answer being queued."""
        await trio.lowlevel.checkpoint()
        header = decode_header(frame)
        seen = self.cluster.seen
        api = self._known_api(header)
        now = trio.current_time()
        request = RequestSeen(
            now,
            self.broker.number,
            self.number,
            api,
            header.version,
            header.correlation_id,
            len(frame),
            header.client_id,
        )
        told_at, until = self._throttled
        if told_at < self._arrived_at < until:  # what crossed the answer is no fault of the client's
            seen.violations.append(f"connection {self.number}: {api.name} sent while throttled")
        seen.requests.append(request)
        low, high = self.cluster.versions[api]
        if not low <= header.version <= high:
            if api is not Api.API_VERSIONS:
                raise BadRequest(f"{api.name} version {header.version} was never offered ({low}…{high} were)")
            self._queue(apis.api_versions.refusal(self, header.correlation_id), 0.0, Plan(), request)
            return
        if self.sasl is not None:
            self.sasl.admit(api, now)
        call = apis.read(self, request, frame, header)
        plan = self.cluster.faults.plan_for(request)
        self.cluster.changed()
        if plan.close_before:
            self.close(reset=plan.reset)
            await trio.sleep_forever()
        answer = await self._serve(call, plan)
        self.cluster.changed()
        if plan.close_after:
            self.close(reset=plan.reset)
            await trio.sleep_forever()
        await self._wait_gates(plan)
        if plan.replicas_s:
            await trio.sleep(plan.replicas_s)
        if answer is None:  # acks=0
            return
        self._queue(self._encode(header, api, answer, plan), plan.travel_s, plan, request)

    async def _serve(self, call: Call, plan: Plan) -> Mapping[str, Value] | None:
        """Do what the request asks for, in its time; the answer, or None for none."""
        await trio.lowlevel.checkpoint()
        if plan.busy_s:
            await trio.sleep(plan.busy_s)
        if plan.skip_processing:
            await self._wait_gates(plan)
        if call.ready is not None:
            with trio.move_on_after(call.wait_s):
                await self.cluster.wait_until(call.ready)
        answer = call.serve(plan)
        waiting, conclude = call.waiting, call.conclude
        if answer is None or waiting is None or conclude is None or not waiting():
            return answer
        self.cluster.changed()
        with trio.move_on_after(call.conclude_s):
            await self.cluster.wait_until(lambda: not waiting())
        return conclude(plan)

    def _known_api(self, header: Header) -> Api:
        try:
            api = Api(header.api_key)
            self.cluster.versions[api]
        except (ValueError, KeyError):
            raise BadRequest(f"api {header.api_key} was never offered") from None
        return api

    async def _wait_gates(self, plan: Plan) -> None:
        await trio.lowlevel.checkpoint()
        for gate in plan.gates:
            await gate.wait()

    def _encode(self, header: Header, api: Api, answer: Mapping[str, Value], plan: Plan) -> bytes:
        correlation_id = header.correlation_id + plan.correlation_shift
        if plan.throttle_ms:
            answer = {**answer, "throttle_time": plan.throttle_ms}
        if plan.body is not None:
            return struct.pack(">i", correlation_id) + plan.body
        return encode_answer(api, header.version, correlation_id, answer, unknown_tags=plan.unknown_tags)

    def _queue(self, frame: bytes, travel_s: float, plan: Plan, request: RequestSeen) -> None:
        due = trio.current_time() + travel_s
        if self._answers:
            due = max(due, self._answers[-1].due)
        self._answers.append(_Answer(struct.pack(">i", len(frame)) + frame, due, plan, request))
        self._answers_changed.set()

    async def _write_answers(self) -> None:
        while True:
            while not self._answers:
                self._answers_changed = trio.Event()
                await self._answers_changed.wait()
            answer = self._answers[0]
            await trio.sleep_until(answer.due)
            await self.broker.wait_running()
            try:
                await self._write(answer)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the reader finds out by itself
            now = answer.request.answered_at = trio.current_time()
            if answer.plan.throttle_ms:
                self._throttled = (now, now + answer.plan.throttle_ms / 1000)
            self._answers.popleft()
            self.cluster.changed()

    async def _write(self, answer: _Answer) -> None:
        await trio.lowlevel.checkpoint()
        frame = answer.frame[: answer.plan.truncate_bytes]
        step = answer.plan.chunk_bytes or len(frame)
        for at in range(0, len(frame), step):
            await self._stream.send_all(frame[at : at + step])
            if answer.plan.chunk_interval_s and at + step < len(frame):
                await trio.sleep(answer.plan.chunk_interval_s)
        if answer.plan.truncate_bytes is not None:
            self.close()
            await trio.sleep_forever()
