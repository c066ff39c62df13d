"""What counts as a disagreement, and that there is none: on the corpus, and on random connections."""

from pathlib import Path

import pytest

from collector.config import Config
from tests.smuggling.case import Read
from tests.smuggling.comparison import compare
from tests.smuggling.generator import LAST, connections
from tests.smuggling.stage import open_stage
from tests.smuggling.test_corpus import CORPUS
from tests.smuggling.verdict import Ending, LaneView, NginxView, disagreement, lane_view

ONE, TWO = Read("GET", b"/1"), Read("POST", b"/2", b"hello")


@pytest.mark.parametrize(
    ("lane", "ours", "nginx", "theirs"),
    [
        ([ONE, TWO], "closed", [ONE, TWO], "closed"),
        ([ONE, TWO], "waiting", [ONE, TWO], "waiting"),
        ([ONE], "closed", [ONE, TWO], "waiting"),
        ([], "closed", [ONE, TWO], "closed"),
        ([ONE, TWO], "between", [ONE], "closed"),
        ([ONE, TWO], "between", [None, TWO], "closed"),
    ],
)
def test_disagreement_of_a_part_and_a_close_is_none(
    lane: list[Read], ours: Ending, nginx: list[Read | None], theirs: Ending
) -> None:
    assert disagreement(LaneView(lane, ours), NginxView(nginx, theirs)) == ""


@pytest.mark.parametrize(
    ("lane", "ours", "nginx", "theirs"),
    [
        ([ONE], "waiting", [ONE, TWO], "closed"),
        ([ONE], "between", [ONE, TWO], "closed"),
        ([ONE, TWO], "closed", [ONE], "waiting"),
        ([ONE], "closed", [TWO], "closed"),
        ([TWO], "closed", [Read("POST", b"/2", b"hell")], "closed"),
        ([ONE, ONE], "closed", [None, TWO], "closed"),
    ],
)
def test_disagreement_of_anything_else_is_told(
    lane: list[Read], ours: Ending, nginx: list[Read | None], theirs: Ending
) -> None:
    assert disagreement(LaneView(lane, ours), NginxView(nginx, theirs)) != ""


def test_lane_view_speaks_for_an_absolute_target_by_its_path() -> None:
    targets = [b"http://a", b"HTTP://a/b?c", b"http://a?b/c", b"/d://e"]
    view = lane_view(b"".join(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n" for target in targets) + LAST)

    assert [read.target for read in view.reads] == [b"/", b"/b?c", b"/?b/c", b"/d://e", b"/last"]
    assert view.ending == "closed"


@pytest.mark.integration
async def test_nginx_and_the_lane_agree_on_the_corpus(tmp_path: Path) -> None:
    async with open_stage(tmp_path, Config()) as stage:
        result = await compare(stage, ((case.sent, 1) for case in CORPUS), len(CORPUS))

    assert result.disagreements == []
    assert result.connections == len(CORPUS)


@pytest.mark.integration
async def test_nginx_and_the_lane_agree_on_random_connections(tmp_path: Path) -> None:
    async with open_stage(tmp_path, Config()) as stage:
        result = await compare(stage, connections(seed=7), 20_000)

    assert result.disagreements == []
    assert result.read_by_nginx > 5000, "nginx has read too little for this to say anything"
    assert result.read_by_lane > 5000
    assert result.forwarded > 5000
    assert result.refusals.total() > 500
