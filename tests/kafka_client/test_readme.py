"""The examples of kafka_client/README.md run as they stand, against the strict fake cluster."""

import re
from pathlib import Path

import pytest
import trio

import kafka_client
from kafka_client import observe
from kafka_client.testing import open_fake_cluster
from kafka_client.testing.sasl import FakeSasl

README = Path(kafka_client.__file__).with_name("README.md")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
PROGRAMS = [example for example in EXAMPLES if "async def main(bootstrap_servers" in example]


def names_of(example: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(example, str(README), "exec"), names)  # our own README
    return names


@pytest.mark.parametrize("example", PROGRAMS, ids=range(len(PROGRAMS)))
async def test_program_runs_as_it_stands(example: str, capsys) -> None:
    sasl = FakeSasl(users={"ada": "lovelace"}) if "sasl_mechanism" in example else None
    async with open_fake_cluster(topics={"events": 3}, listen=True, sasl=sasl) as cluster:
        with trio.fail_after(20):
            await names_of(example)["main"](",".join(cluster.tcp_bootstrap_servers))
        assert cluster.values("events")
        assert cluster.seen.violations == []
    assert sasl is None or {one.principal for one in sasl.authentications} == {"ada"}
    assert "not in the log" not in capsys.readouterr().out


async def test_first_program_delivers_everything(capsys) -> None:
    async with open_fake_cluster(topics={"events": 3}, listen=True) as cluster:
        await names_of(PROGRAMS[0])["main"](",".join(cluster.tcp_bootstrap_servers))
        assert sorted(cluster.values("events")) == sorted([b"hello", *(b"%d" % number for number in range(1000))])
    assert capsys.readouterr().out.endswith("0 not acknowledged within 2 s\n")


async def test_test_in_the_readme_passes(autojump_clock) -> None:
    (example,) = (example for example in EXAMPLES if "async def test_" in example)
    names = names_of(example)
    (test,) = (thing for name, thing in names.items() if name.startswith("test_"))
    await test(autojump_clock)


def test_every_example_was_run() -> None:
    assert len(EXAMPLES) == len(PROGRAMS) + 1


def test_every_event_is_named() -> None:
    text = README.read_text()
    events = [name for name in observe.__all__ if not name.endswith(("Statistics", "Observer"))]
    assert [name for name in events if f"`{name}`" not in text] == []
