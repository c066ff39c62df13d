"""The examples of kafka_client/README.md run as they stand, against the strict fake cluster."""

import re
from pathlib import Path

import kafka_client
from kafka_client.testing import open_fake_cluster

README = Path(kafka_client.__file__).with_name("README.md")


async def test_example_runs_as_it_stands(capsys) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(example, str(README), "exec"), names)  # our own README
    async with open_fake_cluster(topics={"events": 3}, listen=True) as cluster:
        await names["main"](",".join(cluster.tcp_bootstrap_servers))
        assert sorted(cluster.values("events")) == sorted([b"hello", *(b"%d" % number for number in range(1000))])
    assert capsys.readouterr().out.endswith("0 not acknowledged within 2 s\n")
