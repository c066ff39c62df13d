"""``just soak``: random programs, until so many steps were played; then what they covered.

Exit code 0 only if every invariant held and everything in `REQUIRED` happened: a soak that reached no error proves
nothing. What is rare may need longer: up to `LONGEST` times the steps are played until nothing is missing.

A failing program is shrunk and printed as the code that replays it.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.reporting import with_reporter

from .generators import AFTER_APPEND, BEFORE_APPEND, programs
from .play import play
from .program import Program

__all__ = ["REQUIRED", "main"]

#: What a soak has to have met, as patterns of `fnmatch`.
REQUIRED = (
    *(f"fault: fail({code})" for code in BEFORE_APPEND),
    *(f"fault: append_and_fail({code})" for code in AFTER_APPEND),
    *(f"code: {code}" for code in {*BEFORE_APPEND, *AFTER_APPEND}),
    *(
        "fault: close_before",
        "fault: drop_answer",
        "fault: delay",
        "fault: stall",
        "fault: throttle*",
        "fault: dribble*",
    ),
    *("fault: truncate*", "fault: unknown_tags", "fault: omit_partition", "fault: repeat_partition", "fault: close"),
    *("fault: reset", "fault: replace_body", "fault: shift_correlation", "fault: no_brokers"),
    *("broker: stop", "broker: stop_unnoticed", "broker: pause", "broker: refuse", "broker: black_hole"),
    *("broker: freeze", "broker: join", "broker: leave"),
    *("replicas: hold", "replicas: shrink", "replicas: lose", "replicas: expire", "replicas: lost records"),
    *("topic: grow", "topic: recreate", "topic: flap", "topic: forget", "topic: hide", "topic: refuse"),
    *("leader: none", "leader: another", "operator: entered", "operator: cleared"),
    *("outcome: Delivered", "outcome: NotSent", "outcome: Unknown"),
    *("outcome: late Delivered", "outcome: late NotSent", "outcome: late Unknown"),
    *("NotSent: withdrawn", "NotSent: timeout", "NotSent: overloaded", "NotSent: closed", "NotSent: too_large"),
    *("NotSent: MESSAGE_TOO_LARGE", "NotSent: INVALID_RECORD", "NotSent: INVALID_TIMESTAMP"),
    *("Unknown: withdrawn", "Unknown: timeout", "Unknown: closed", "Unknown: abandoned"),
    *("abandoned: IN_FLIGHT*", "abandoned: RETRY_WAIT", "abandoned: RETRY_WAIT, tainted"),
    *("step: AGAIN", "step: FINAL", "step: SPLIT", "step: RE_ENCODE", "step: RESTAMP", "step: WITHOUT", "step: BEHIND"),
    *("step: LEAVE", "step: OPERATOR_TOPIC", "step: OPERATOR_PRODUCER", "step: RENEGOTIATE"),
    *("identity: epoch bumped", "identity: new id", "identity: epoch 32767", "sequence: wrapped"),
    *("window: gap closed", "answer: for a proved batch", "answer: for a detached record"),
    *(f"in flight: {number}" for number in range(1, 6)),
    *("left at: sealed", "left at: answer", "left at: answered", "log: recognised a repetition"),
    *("waited in line", "close: in time", "close: grace used up", "sent again by the application", "attempt: again"),
    *("send: Delivered", "send: NotSent", "send: Unknown", "sending cancelled", "waiting cancelled"),
)
PROGRAMS_A_ROUND = 250
#: For what is rare, a multiple of the steps asked for.
LONGEST = 3
#: What only comes of one code, and of that not always; staged as rare codes are until it happens.
LEADS_TO = {
    "NotSent: INVALID_RECORD": 87,
    "NotSent: INVALID_TIMESTAMP": 32,
    "step: RENEGOTIATE": 35,
    "step: RE_ENCODE": 2,
    "step: WITHOUT": 87,
}
#: Codes that were answered less often are staged in every program of the next round.
RARE = 25


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="just soak", description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000, help="play at least so many")
    parser.add_argument("--seed", type=int, default=None, help="where to begin; by default by chance")
    parser.add_argument("--no-shrink", action="store_true", help="show a failing program as it was found")
    arguments = parser.parse_args()
    start = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {start}", flush=True)
    coverage: Counter[str] = Counter()
    began = time.process_time()
    rounds = 0
    while coverage["steps"] < arguments.steps * (LONGEST if _missing(coverage) else 1):
        rare = [code for code in BEFORE_APPEND if coverage[f"code: {code}"] < RARE] if rounds else []
        rare += [code for name, code in LEADS_TO.items() if rounds and not coverage[name]]
        failed = _round(start + rounds, coverage, rare, shrink=not arguments.no_shrink)
        if failed is not None:
            program, error = failed
            print(f"failed after {coverage['steps']} steps; this replays it:\n")
            print("from tests.kafka_client.model.play import play\nfrom tests.kafka_client.model.program import *\n")
            print(f"play({program!r})\n", flush=True)
            raise error
        rounds += 1
        took = time.process_time() - began
        print(f"{coverage['programs']} programs, {coverage['steps']} steps, {took:.0f} s of CPU", flush=True)
    for name, number in sorted(coverage.items()):
        print(f"{number:9} {name}")
    missing = _missing(coverage)
    for pattern in missing:
        print(f"never happened: {pattern}", file=sys.stderr)
    return 1 if missing else 0


def _missing(coverage: Counter[str]) -> list[str]:
    return [pattern for pattern in REQUIRED if not any(fnmatchcase(name, pattern) for name in coverage)]


def _round(
    number: int, coverage: Counter[str], rare: Sequence[int], *, shrink: bool
) -> tuple[Program, Exception] | None:
    failed: list[tuple[Program, Exception]] = []

    @seed(number)
    @settings(
        max_examples=PROGRAMS_A_ROUND,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(rare=rare))
    def round_of_programs(program: Program) -> None:
        try:
            play(program, coverage)
        except Exception as error:
            failed.append((program, error))
            raise

    try:
        with with_reporter(lambda _: None):
            round_of_programs()
    except Exception:
        if not failed:
            raise
        return failed[-1]  # the last one that Hypothesis tries is the shrunk one
    return None


if __name__ == "__main__":
    sys.exit(main())
