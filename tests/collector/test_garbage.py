"""What a serving process spares the collector of cycles. In a process of its own: freezing cannot be taken back."""

import json
import subprocess
import sys

from collector.garbage import THRESHOLDS

PROGRAM = """
import gc, json
class Cycle:
    def __init__(self): self.me = self
gc.disable()
before = [Cycle() for _ in range(100)]
from collector.garbage import spare_the_collector
spare_the_collector()
there = {id(one) for one in gc.get_objects()}
after = Cycle()
found = gc.get_freeze_count(), any(id(one) in there for one in before), gc.get_threshold()
after_is_seen = any(one is after for one in gc.get_objects())
print(json.dumps([*found, after_is_seen]))
"""


def test_what_was_there_is_not_looked_at_again_and_what_comes_later_is() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=30).stdout
    frozen, seen, thresholds, later = json.loads(told)
    assert frozen > 100
    assert not seen
    assert thresholds == list(THRESHOLDS)
    assert later
