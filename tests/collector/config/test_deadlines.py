"""The chain of deadlines: derived, judged, printed."""

from dataclasses import replace

import pytest

from collector.config import (
    Config,
    DeadlinesConfig,
    HttpConfig,
    KafkaConfig,
    LimitsConfig,
    NginxConfig,
    ShutdownConfig,
    SpoolConfig,
)
from collector.deadlines import SMALLEST_CLIENT_TIMEOUT_S, DeadlineChain


def test_chain_of_the_defaults_holds_with_the_numbers_of_the_design() -> None:
    chain = DeadlineChain.from_config(Config())
    assert chain.problems() == []
    assert chain.enqueue_s == 4.0
    assert chain.work_s == 3.8
    assert chain.proxy_read_timeout_s == 4.35
    assert chain.proxy_next_upstream_timeout_s + chain.proxy_connect_timeout_s + chain.proxy_read_timeout_s < 5.0
    assert chain.upstream_keepalive_timeout_s < Config().http.idle_timeout_s
    assert chain.upstream_keepalive_requests < chain.server_keepalive_requests
    assert chain.websocket_read_timeout_s > Config().http.ping_s
    assert chain.graceful_timeout_s == Config().shutdown.drain_s
    assert chain.orchestrator_grace_s > Config().shutdown.delay_s + Config().shutdown.drain_s
    assert any(
        link.name.startswith("shutdown.delay_s + drain_s + the least") and link.value == 21.0 and link.holds
        for link in chain.links
    )
    assert chain.broker_user_timeout_s == Config().kafka.request_timeout_s
    assert chain.upstream_max_fails == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(Config(), deadlines=DeadlinesConfig(kafka_s=3.1)), "smallest client timeout"),
        (replace(Config(), limits=LimitsConfig(max_lag_s=0.4)), "smallest client timeout"),
        (replace(Config(), deadlines=DeadlinesConfig(stall_s=3.0)), "deadlines.stall_s"),
        (replace(Config(), shutdown=ShutdownConfig(drain_s=4.0)), "shutdown.drain_s"),
        (replace(Config(), http=HttpConfig(send_timeout_s=10.0)), "http.send_timeout_s"),
        (replace(Config(), limits=LimitsConfig(discard_s=4.0)), "limits.discard_s"),
        (replace(Config(), kafka=KafkaConfig(produce_timeout_s=30.0)), "kafka.produce_timeout_s"),
        (replace(Config(), kafka=KafkaConfig(delivery_timeout_s=30.0)), "kafka.delivery_timeout_s"),
        (replace(Config(), kafka=KafkaConfig(produce_timeout_s=1.0, request_timeout_s=2.0)), "chains do not meet"),
    ],
)
def test_broken_link_is_named_with_its_numbers(config: Config, words: str) -> None:
    problems = DeadlineChain.from_config(config).problems()
    assert problems
    assert any(words in problem and "does not hold" in problem for problem in problems)


def test_sum_that_only_just_fits_holds_despite_decimal_fractions() -> None:
    # 0.1 + 0.2 is 0.30000000000000004.
    shares = DeadlinesConfig(kafka_s=0.1, spool_s=0.2, answer_s=0.3, stall_s=0.05)
    config = replace(Config(), deadlines=shares, limits=LimitsConfig(discard_s=0.5))
    assert DeadlineChain.from_config(config).problems() == []


def test_bound_itself_is_not_below_the_bound() -> None:
    deadlines = DeadlinesConfig(kafka_s=3.04)
    chain = DeadlineChain.from_config(replace(Config(), deadlines=deadlines))
    total = chain.proxy_next_upstream_timeout_s + chain.proxy_connect_timeout_s + chain.proxy_read_timeout_s
    assert total == pytest.approx(SMALLEST_CLIENT_TIMEOUT_S)
    assert len(chain.problems()) == 1


def test_lines_show_every_link_with_its_numbers() -> None:
    chain = DeadlineChain.from_config(Config())
    lines = chain.lines()
    assert len(lines) == len(chain.links)
    assert all(line.startswith("ok ") for line in lines)
    assert any("4.3 s < nginx proxy_read_timeout 4.35 s" in line for line in lines)
    assert any("100000 < server keep_alive_max_requests 1000000" in line for line in lines)
    broken = DeadlineChain.from_config(replace(Config(), shutdown=ShutdownConfig(drain_s=1.0)))
    assert any(line.startswith("FAIL") for line in broken.lines())


def test_chain_says_what_becomes_of_the_disks_share() -> None:
    def said(config: Config) -> str:
        [link] = [link for link in DeadlineChain.from_config(config).links if link.bound_name == "enqueue_s"][:1]
        return link.why

    assert "for a commit to the spool" in said(Config())
    without = replace(Config(), spool=SpoolConfig(path=None))
    assert "Kafka's, since there is no spool" in said(without)
    last = "shutdown.delay_s + drain_s + the least"
    [link] = [link for link in DeadlineChain.from_config(without).links if link.name.startswith(last)]
    assert link.value == 16.0


def test_each_collector_may_be_tried_within_the_same_time() -> None:
    one = DeadlineChain.from_config(Config())
    five = DeadlineChain.from_config(Config(nginx=NginxConfig(upstreams=tuple(f"10.0.0.{n}:80" for n in range(5)))))
    assert (one.proxy_next_upstream_tries, five.proxy_next_upstream_tries) == (2, 5)
    assert five.proxy_next_upstream_timeout_s == one.proxy_next_upstream_timeout_s > one.proxy_connect_timeout_s
    assert [str(link) for link in five.links] == [str(link) for link in one.links]
