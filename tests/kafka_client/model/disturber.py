"""What goes wrong in a program: answers, connections, brokers, leaders, topics, metadata; and the healing of it all.

Owns: the faults of the fake cluster that a step names. Refuses to know: the producer.
"""

from collections import defaultdict

import trio

from kafka_client.testing import Api, FakePartition, FakeTopic, Fault, RequestSeen

from .books import Forgotten
from .program import Answer, Broker, Disturb, Limit, Move, Refuse, Replicas, Step, Topic
from .stage import Stage

__all__ = ["Disturber"]

MAX_BYTES = 1024 * 1024 + 12
MOST_BROKERS = 4
DUPLICATE = 46
#: The length prefix, the correlation id, and one byte more.
TRUNCATED_BYTES = 9


class Disturber:
    """One program's."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._said_duplicate = False
        self._hinting: dict[str, list[Fault]] = defaultdict(list)

    def take(self, step: Step) -> None:
        """Carry the step out."""
        match step:
            case Answer():
                self._answer(step)
            case Disturb():
                self._disturb(step)
            case Broker():
                self._broker(step)
            case Move():
                self._move(step)
            case Replicas():
                self._replicas(step)
            case Topic():
                self._topic(step)
            case Refuse():
                self._refuse(step)
            case Limit():
                self._limit(MAX_BYTES if step.for_s == 0 else step.size_bytes)
                self._stage.later(step.for_s, lambda: self._limit(MAX_BYTES))
            case _:
                raise AssertionError(f"{step} is not a step")

    def heal(self) -> None:
        """Undo all of it; what is on its way stays so."""
        cluster = self._stage.cluster
        cluster.faults.clear()
        cluster.message_max_bytes = MAX_BYTES
        for number in range(len(self._stage.setup.partitions)):
            self._create(f"t{number}", 1)
        for broker in cluster.brokers:
            cluster.start_broker(broker)
            cluster.resume_broker(broker)
            cluster.thaw_metadata(broker)
        for topic in cluster.topics.values():
            topic.hidden, topic.error_code = False, 0
            for partition in topic.partitions:
                partition.advertise_truth()
                self._catch_up(partition)
                if partition.leader is None:
                    partition.lead(partition.replicas[0])
        cluster.changed()

    def _limit(self, size_bytes: int) -> None:
        self._stage.cluster.message_max_bytes = size_bytes

    def _answer(self, step: Answer) -> None:
        topic, partition = self._stage.place(step.topic, step.partition)
        leader = self._hint(step.hint, topic, partition)
        faults = self._stage.cluster.faults
        if step.append:
            self._said_duplicate |= step.code == DUPLICATE
            fault = faults.append_and_fail(
                step.code, topic=topic, partition=partition, times=step.times, skip=step.skip, leader=leader
            )
        else:
            fault = faults.fail(
                step.code,
                topic=topic,
                partition=partition,
                times=step.times,
                skip=step.skip,
                leader=leader,
                base_offset=step.base_offset,
                record_errors=[(index, "the program says so") for index in step.named],
            )
            self._stage.taps.log_start_told |= step.log_start
        self._note(fault)
        if leader is not None:
            self._hinting[topic].append(fault)

    def _hint(self, hint: str, topic: str, partition: int | None) -> tuple[int, int] | None:
        known = self._stage.cluster.topics.get(topic)
        # Told of another partition, its later epoch would hide the true leader for good. No broker does that.
        if not hint or known is None or partition is None or partition >= len(known.partitions):
            return None
        found = known.partitions[partition]
        if found.leader is None:
            return None
        return (found.leader, found.leader_epoch) if hint == "true" else (found.leader, found.leader_epoch - 1)

    def _note(self, fault: Fault) -> None:
        """Count what the fault meets."""
        meet, coverage = fault.meet, self._stage.coverage

        def counted(request: RequestSeen, plan: object) -> None:
            before = fault.hits
            meet(request, plan)  # type: ignore[arg-type]
            if fault.hits > before:
                coverage[f"fault: {fault.name.split('(')[0] if 'delay' in fault.name else fault.name}"] += 1

        fault.meet = counted  # type: ignore[method-assign]

    def _disturb(self, step: Disturb) -> None:
        faults = self._stage.cluster.faults
        setup = self._stage.setup
        partition = None if step.partition is None else step.partition % max(setup.partitions)
        times = step.times
        match step.how:
            case "drop_answer" | "reset_answer":
                self._note(
                    faults.drop_answer(
                        reset=step.how == "reset_answer", partition=partition, times=times, skip=step.skip
                    )
                )
            case "close_before":
                self._note(faults.close_before(partition=partition, times=times, skip=step.skip))
            case "delay":
                where = step.where
                self._note(faults.delay(step.amount, where=where, partition=partition, times=times, skip=step.skip))  # type: ignore[arg-type]
            case "stall" | "stall_unread":
                fault = faults.stall(append=step.how == "stall", partition=partition, skip=step.skip)
                self._note(fault)
                self._stage.later(step.for_s, fault.release)
            case "throttle":
                self._note(faults.throttle(round(step.amount * 1000), times=times, skip=step.skip))
            case "omit":
                self._note(faults.omit_partition(partition=partition, times=times, skip=step.skip))
            case "repeat":
                self._note(faults.repeat_partition(partition=partition, times=times, skip=step.skip))
            case "close" | "reset":
                self._stage.coverage[f"fault: {step.how}"] += 1
                self._stage.cluster.close_connections(reset=step.how == "reset")
            case how:
                self._note(self._spoil(how, step))

    def _spoil(self, how: str, step: Disturb) -> Fault:
        """An answer that is not what it should be."""
        faults, times = self._stage.cluster.faults, step.times
        match how:
            case "dribble":
                return faults.dribble(chunk_bytes=7, interval_s=step.amount / 10, times=times, skip=step.skip)
            case "truncate":
                return faults.truncate(TRUNCATED_BYTES, times=times, skip=step.skip)
            case "tags":
                return faults.unknown_tags(times=times, skip=step.skip)
            case "garbage":
                return faults.replace_body(b"\x00\xff\x00", times=times, skip=step.skip)
            case "correlation":
                return faults.shift_correlation(times=times, skip=step.skip)
            case _:
                raise AssertionError(how)

    def _broker(self, step: Broker) -> None:
        cluster = self._stage.cluster
        number = self._number(step.broker)
        self._stage.coverage[f"broker: {step.how}"] += 1
        match step.how:
            case "stop" | "stop_unnoticed":
                cluster.stop_broker(number, elect=step.how == "stop")
                self._stage.later(step.for_s, lambda: number in cluster.brokers and cluster.start_broker(number))
            case "pause":
                cluster.pause_broker(number, after_bytes=step.amount)
                self._stage.later(step.for_s, lambda: number in cluster.brokers and cluster.resume_broker(number))
            case "refuse":
                cluster.faults.refuse_connects(broker=number)
                self._stage.later(step.for_s, cluster.faults.accept_connects)
            case "black_hole":
                cluster.faults.black_hole_connects(broker=number)
                cluster.close_connections(number, reset=True)
                self._stage.later(step.for_s, cluster.faults.accept_connects)
            case "freeze":
                cluster.freeze_metadata(number)
                self._stage.later(step.for_s, lambda: number in cluster.brokers and cluster.thaw_metadata(number))
            case "join" if len(cluster.brokers) < MOST_BROKERS:
                cluster.add_broker()
            case "leave":
                self._leave(number)

    def _number(self, step: int) -> int:
        """The broker that a step means."""
        numbers = sorted(self._stage.cluster.brokers)
        return numbers[step % len(numbers)]

    def _leave(self, number: int) -> None:
        """Take a broker out, its replicas moved to others before; one that clients begin with has to stay."""
        cluster = self._stage.cluster
        others = [other for other in sorted(cluster.brokers) if other != number]
        if not any(other <= self._stage.setup.brokers for other in others):
            return
        partitions = [partition for topic in self._stage.books.topics for partition in topic.partitions]
        for partition in partitions:  # those of deleted topics too: a broker that lags behind may tell of them again
            partition.replicas = tuple(other for other in partition.replicas if other != number) or (others[0],)
            partition.isr = (partition.isr - {number}) or set(partition.replicas)
        cluster.remove_broker(number)
        for partition in partitions:
            if partition.leader is None or partition.leader == number:
                partition.lead(partition.replicas[0])
        cluster.changed()

    def _move(self, step: Move) -> None:
        cluster = self._stage.cluster
        topic, index = self._stage.place(step.topic, step.partition)
        assert index is not None
        if topic not in cluster.topics or index >= len(cluster.topics[topic].partitions):
            return
        leader = self._number(step.leader)
        partition = cluster.partition(topic, index)
        if step.stale_s:
            partition.advertise(partition.leader, partition.leader_epoch)
            self._stage.later(step.stale_s, partition.advertise_truth)
        if step.nobody_s:
            partition.lead(None)
            cluster.changed()
            self._stage.later(step.nobody_s, lambda: self._lead(partition, leader))
        else:
            cluster.move_leader(topic, index, leader)

    def _lead(self, partition: FakePartition, leader: int) -> None:
        if leader in self._stage.cluster.brokers:
            partition.lead(leader)
            self._stage.cluster.changed()

    def _replicas(self, step: Replicas) -> None:
        cluster = self._stage.cluster
        name, index = self._stage.place(step.topic, step.partition)
        assert index is not None
        topic = cluster.topics.get(name)
        if topic is None or index >= len(topic.partitions):
            return
        self._stage.coverage[f"replicas: {step.how}"] += 1
        partition = topic.partitions[index]
        match step.how:
            case "hold":
                cluster.hold_replication(name, index)
                self._stage.later(step.for_s, lambda: self._catch_up(partition))
            case "shrink":
                topic.configs["min.insync.replicas"] = "2"
                cluster.set_isr(name, index, *(() if partition.leader is None else (partition.leader,)))
                self._stage.later(step.for_s, lambda: self._catch_up(partition))
            case "lose":
                cluster.hold_replication(name, index)
                self._stage.later(step.for_s, lambda: self._lose(topic, partition, step.leader))
            case "expire":
                self._expire(topic, index)

    def _catch_up(self, partition: FakePartition) -> None:
        partition.release_replication()
        partition.isr = set(partition.replicas)
        self._stage.cluster.changed()

    def _lose(self, topic: FakeTopic, partition: FakePartition, leader: int) -> None:
        """A follower takes over without what it never got.

        A real broker answers a repetition, too, when its replicas have the batch; a fault that says DUPLICATE at once
        has acknowledged what may be lost here, and then only the leader moves.
        """
        cluster, books = self._stage.cluster, self._stage.books
        number = self._number(leader)
        if number == partition.leader:
            number = self._number(leader + 1)
        if cluster.topics.get(topic.name) is topic and partition.replication_held and number != partition.leader:
            before = partition.log.end_offset
            cluster.move_leader(topic.name, partition.index, number, lose_unreplicated=not self._said_duplicate)
            if partition.log.end_offset < before:
                self._stage.coverage["replicas: lost records"] += 1
                books.lost(topic, partition.index)
        self._catch_up(partition)

    def _expire(self, topic: FakeTopic, index: int) -> None:
        self._stage.cluster.expire_producers(topic.name, index)
        end_offset = topic.partitions[index].log.end_offset
        self._stage.books.forgotten[topic, index].append(Forgotten(trio.current_time(), end_offset))

    def _topic(self, step: Topic) -> None:
        cluster, books = self._stage.cluster, self._stage.books
        name, _ = self._stage.place(step.topic, None)
        topic = cluster.topics.get(name)
        if topic is None:
            return
        self._stage.coverage[f"topic: {step.how}"] += 1
        match step.how:
            case "grow":
                cluster.add_partitions(name, len(topic.partitions) + step.partitions)
                books.counts[name].add(len(topic.partitions))
            case "recreate":
                self._forget_hints(name)
                cluster.delete_topic(name)
                self._stage.later(step.for_s, lambda: self._create(name, step.partitions))
            case "flap":
                # A broker that lags behind tells of the deleted topic once more.
                self._forget_hints(name)
                cluster.delete_topic(name)
                self._create(name, step.partitions)
                new = cluster.topics[name]
                self._stage.later(step.for_s, lambda: self._swap(name, new, topic))
                self._stage.later(step.for_s + 1.5, lambda: self._swap(name, topic, new))
            case "forget":
                for partition in topic.partitions:
                    self._expire(topic, partition.index)
            case "hide":
                topic.hidden = True
                self._stage.later(step.for_s, lambda: setattr(topic, "hidden", False))
            case "refuse":
                topic.error_code = 29
                self._stage.later(step.for_s, lambda: setattr(topic, "error_code", 0))

    def _forget_hints(self, name: str) -> None:
        """The epochs in them are those of a topic that is gone."""
        for fault in self._hinting.pop(name, ()):
            self._stage.cluster.faults.forget(fault)

    def _create(self, name: str, partitions: int) -> None:
        if name not in self._stage.cluster.topics:
            self._stage.books.created(self._stage.cluster.create_topic(name, partitions))

    def _swap(self, name: str, old: FakeTopic, new: FakeTopic) -> None:
        if self._stage.cluster.topics.get(name) is old:
            self._forget_hints(name)
            self._stage.cluster.topics[name] = new
            self._stage.books.recreated.add(new)
            self._stage.cluster.changed()

    def _refuse(self, step: Refuse) -> None:
        faults, api, times = self._stage.cluster.faults, Api[step.api], step.times
        match step.how:
            case "fail":
                self._note(faults.fail(step.code, api=api, times=times))
            case "drop_answer":
                self._note(faults.drop_answer(api=api, times=times))
            case "close_before":
                self._note(faults.close_before(api=api, times=times))
            case "truncate":
                self._note(faults.truncate(TRUNCATED_BYTES, api=api, times=times))
            case "delay":
                self._note(faults.delay(0.5, api=api, times=times))
            case "garbage":
                self._note(faults.replace_body(b"\x00\xff\x00", api=api, times=times))
            case "no_brokers":
                self._note(faults.no_brokers(times=times))
