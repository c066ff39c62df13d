"""Three nodes of Apache Kafka for all scenarios that leave them whole, and the table of what was measured.

Nothing here skips: where a part cannot be started, the run fails and says which.
"""

from collections.abc import Callable, Iterator

import pytest
from chaos.nodes import Nodes, hold_nodes
from chaos.scenario import Row, Scenario

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes for the whole session; whoever ends one starts it again."""
    with hold_nodes(tmp_path_factory.mktemp("nodes")) as held:
        yield held


@pytest.fixture
def make_scenario(request: pytest.FixtureRequest) -> Callable[[Nodes], Scenario]:
    """Make a scenario named after its test, on these nodes."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    rows = request.config.stash.setdefault(ROWS, [])
    return lambda nodes: Scenario(name, nodes, rows)


@pytest.fixture
def scenario(nodes: Nodes, make_scenario: Callable[[Nodes], Scenario]) -> Scenario:
    """A scenario on the session's nodes."""
    return make_scenario(nodes)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print one line per scenario."""
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("producer on three nodes of Apache Kafka")
    names = list(Row.__slots__)
    table = [[name.replace("_", " ") for name in names]]
    for row in rows:
        values = [getattr(row, name) for name in names]
        table.append([f"{value:.1f}" if isinstance(value, float) else str(value) for value in values])
    widths = [max(len(line[place]) for line in table) for place in range(len(names))]
    for line in table:
        cells = [
            text.ljust(width) if place in (0, len(names) - 1) else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        terminalreporter.write_line("  ".join(cells).rstrip())
