"""Does nginx ever disagree with the lane on where a request ends? Random connections through both, until N requests."""

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from collector.config import Config
from collector.devtools.children import ChildFailed
from collector.devtools.nginx import NginxUnavailable
from tests.smuggling.comparison import Comparison, compare
from tests.smuggling.generator import connections
from tests.smuggling.stage import open_stage
from tests.smuggling.test_corpus import CORPUS

SHOWN = 10
REASONS_SHOWN = 20


def main() -> None:
    """Parse the command line, compare, print; ends with 1 where there is a disagreement."""
    parser = argparse.ArgumentParser(prog="just smuggling", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, metavar="N", help="requests to generate")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which ones; the same seed gives the same")
    arguments = parser.parse_args()
    try:
        results = trio.run(play, arguments.requests, arguments.seed)
    except (NginxUnavailable, ChildFailed) as error:
        raise SystemExit(f"smuggling: {error}") from error
    for name, result in results.items():
        print(f"{name}: {result}")
        for reason, count in result.refusals.most_common(REASONS_SHOWN):
            print(f"{count:>9}  {reason}")
        for found, raw in result.disagreements[:SHOWN]:
            print(f"\n{found}\n{raw!r}")
    if any(result.disagreements for result in results.values()):
        sys.exit(1)


async def play(requests: int, seed: int) -> dict[str, Comparison]:
    """The corpus, then the generated requests."""
    await trio.lowlevel.checkpoint()
    results = {}
    works = {
        "corpus": (((case.sent, 1) for case in CORPUS), len(CORPUS)),
        "generated": (connections(seed), requests),
    }
    for name, (work, count) in works.items():
        with tempfile.TemporaryDirectory(prefix="smuggling-") as directory:
            async with open_stage(Path(directory), Config()) as stage:
                results[name] = await compare(stage, work, count)
    return results


if __name__ == "__main__":
    main()
