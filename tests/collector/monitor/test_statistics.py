import enum
import math
from dataclasses import dataclass, field

from collector.monitor.statistics import MAX_ELEMENTS, Number, numbers_of, plain


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Where:
    topic: str
    partition: int


@dataclass(frozen=True)
class PartitionView:
    topic_partition: Where
    queued: int
    leader: int | None = None
    reason: str = "prose that changes"
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class View:
    queue_bytes: int = 3
    sent_total: int = 4
    ready: bool = True
    word: str = "idle"
    deadline_s: float = math.inf
    nothing: None = None
    partitions: tuple[PartitionView, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)


def test_numbers_and_bools_are_values_and_text_is_not() -> None:
    names = {number.name: number.value for number in numbers_of(View())}
    assert names == {"queue_bytes": 3.0, "sent_total": 4.0, "ready": 1.0, "deadline_s": math.inf}


def test_a_sequence_of_dataclasses_is_labelled_by_what_identifies_its_elements() -> None:
    view = View(partitions=(PartitionView(Where("events", 7), queued=2, leader=1),))
    labels = (("topic", "events"), ("partition", "7"), ("colour", "red"))
    found = [number for number in numbers_of(view) if number.name.startswith("partitions")]
    assert Number("partitions_queued", labels, 2.0) in found
    assert Number("partitions_leader", labels, 1.0) in found
    assert not any("prose" in value for number in found for _, value in number.labels)


def test_a_mapping_is_labelled_by_its_keys() -> None:
    found = list(numbers_of(View(outcomes={"delivered": 5})))
    assert Number("outcomes", (("kind", "delivered"),), 5.0) in found


def test_a_huge_sequence_is_cut_and_the_rest_counted() -> None:
    view = View(partitions=tuple(PartitionView(Where("t", index), 1) for index in range(MAX_ELEMENTS + 5)))
    numbers = list(numbers_of(view))
    assert sum(number.name == "partitions_queued" for number in numbers) == MAX_ELEMENTS
    assert Number("partitions_omitted", (), 5.0) in numbers


def test_plain_is_json_without_infinities() -> None:
    view = View(partitions=(PartitionView(Where("events", 7), queued=2),), outcomes={"a": 1})
    assert plain(view) == {
        "queue_bytes": 3,
        "sent_total": 4,
        "ready": True,
        "word": "idle",
        "deadline_s": None,
        "nothing": None,
        "partitions": [
            {
                "topic_partition": {"topic": "events", "partition": 7},
                "queued": 2,
                "leader": None,
                "reason": "prose that changes",
                "colour": "red",
            }
        ],
        "outcomes": {"a": 1},
    }


def test_plain_of_bytes_and_tuples_as_keys_is_text() -> None:
    assert plain({("a", 1): b"x"}) == {"a,1": "b'x'"}
