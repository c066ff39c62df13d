"""``collector check``: would this configuration work, link by link, do processes and places fit, and is the topic fit?

Owns: the printing and the exit code: 2 where something has to be mended, else 0. Refuses to know: the links
(`collector.deadlines`), nginx's rules (`collector.nginx.check`) and the topic's (`collector.topic_check`).
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from .settings import add_config_argument, load_for_topic

if TYPE_CHECKING:
    from collector.topic_check import Finding

__all__ = ["add_arguments", "run"]

_MARKS = {"ok": "ok   ", "note": "note ", "warning": "WARN ", "error": "FAIL "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--bootstrap-servers", metavar="H:P,H:P", help="instead of [kafka] bootstrap_servers")
    parser.add_argument("--topic", help="instead of [kafka] topic")
    parser.add_argument("--strict", action="store_true", help="min.insync.replicas = 1 is an error, not a warning")
    parser.add_argument("--offline", action="store_true", help="the configuration only: ask no broker")


def run(arguments: argparse.Namespace) -> int:
    import trio

    from collector.deadlines import DeadlineChain
    from collector.nginx.check import check_nginx
    from collector.spool_check import check_spool
    from collector.topic_check import check_topics
    from collector.worker_check import check_workers

    config = load_for_topic(arguments)
    if arguments.strict:
        config = replace(config, check=replace(config.check, strict=True))
    chain = DeadlineChain.from_config(config)
    print("chain of deadlines")
    for line in chain.lines():
        print(f"  {line}")
    print("workers")
    _print(check_workers(config))
    print("nginx")
    broken = _print(check_nginx(config)) or bool(chain.problems())
    print("spool")
    broken = _print(check_spool(config)) or broken
    if not arguments.offline:
        print(f"topics at {','.join(config.kafka.bootstrap_servers)}")
        sys.stdout.flush()
        broken = _print(trio.run(check_topics, config)) or broken
    sys.stdout.flush()
    return 2 if broken else 0


def _print(findings: "Iterable[Finding]") -> bool:
    """Print them; whether something has to be mended."""
    broken = False
    for finding in findings:
        print(f"  {_MARKS[finding.level]}{finding.text}")
        broken = broken or finding.level == "error"
    return broken
