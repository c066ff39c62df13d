"""Each case of the corpus, whole, byte by byte and cut at every byte: always the same requests and the same end.

The cases are what RFC 9110 and 9112 forbid, and the published tricks: the lengths that contradict each other and the
names and values of Transfer-Encoding that only some read as chunked (from 2005 and 2019), bodies where nobody expects
them (CL.0, 0.CL, TE.0), the ends of chunk lines, of chunks and of extensions (2024, 2025), lengths that only some
languages read as a number, names cut or folded together by some.
"""

from collections.abc import Iterable

import pytest

from collector.web.lane.parser import RequestParser
from tests.smuggling.case import LIMITS, Case, Read
from tests.smuggling.corpus_bodies import BODIES
from tests.smuggling.corpus_heads import HEADS

CORPUS = [*HEADS, *BODIES]


def understood(pieces: Iterable[bytes]) -> tuple[tuple[Read, ...], int]:
    """The requests that a parser reads whole of ``pieces``, and the status of its refusal."""
    parser = RequestParser(LIMITS)
    for piece in pieces:
        parser.feed(piece)
    requests = [request for request in parser.requests if request.complete]
    reads = tuple(Read(request.method, request.target, request.take()) for request in requests)
    return reads, parser.refusal.status if parser.refusal else 0


def test_corpus_names_each_case_once() -> None:
    names = [case.name for case in CORPUS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_case_however_cut_ends_where_it_ends(case: Case) -> None:
    sent, expected = case.sent, (case.expected, case.status)

    assert understood([sent]) == expected
    assert understood(bytes([byte]) for byte in sent) == expected
    for cut in range(1, len(sent)):
        assert understood([sent[:cut], sent[cut:]]) == expected, f"cut behind {sent[:cut]!r}"
