"""Any program against the strict fake cluster: the short form of ``just soak``; see `tests.kafka_client.model`."""

from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings

from kafka_client.testing import Seen
from tests.kafka_client.model.generators import programs
from tests.kafka_client.model.play import play
from tests.kafka_client.model.program import Program


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(programs(longest=50))
def test_outcomes_are_true_whatever_happens(program: Program) -> None:
    play(program)


@settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(programs(longest=50))
def test_a_program_has_one_course(program: Program) -> None:
    courses = []
    for _ in range(2):
        coverage: Counter[str] = Counter()
        seen = play(program, coverage)
        courses.append((coverage, _course(seen)))
    assert courses[0] == courses[1]


def _course(seen: Seen) -> list[object]:
    return [
        (request.broker, request.connection, request.api, request.correlation_id, request.answered_at, batches)
        for request in seen.requests
        for batches in [[(batch.base_sequence, batch.error_code, batch.values) for batch in request.batches]]
    ]
