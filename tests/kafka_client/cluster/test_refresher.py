"""What is asked of the cluster, whom, how often; and what its answers, good and bad, lead to."""

from itertools import pairwise

import pytest
import trio

from kafka_client import Delivered, NotSent, ProducerConfig, Record, open_producer
from kafka_client.testing.messages import VERSIONS_OF_KAFKA_4_1, Api


def asked(s, api: Api) -> list[float]:
    return [request.time for request in s.cluster.seen.requests if request.api is api]


# InitProducerId


@pytest.mark.parametrize("code", [7, 13, 14, 15, 16, 47, 51, 89])
async def test_code_of_init_producer_id_that_passes_is_asked_again(scenario, autojump_clock, code: int) -> None:
    async with scenario() as s:
        s.cluster.faults.fail(code, api=Api.INIT_PRODUCER_ID, times=5)
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert len(asked(s, Api.INIT_PRODUCER_ID)) == 6
        assert trio.current_time() < 3
        assert s.producer.statistics().operator_errors == ()


@pytest.mark.parametrize("code", [-1, 31, 48, 49, 53, 90, 4711])
async def test_code_of_init_producer_id_that_people_have_to_mend_is_a_state(
    scenario, autojump_clock, code: int
) -> None:
    async with scenario() as s:
        fault = s.cluster.faults.fail(code, api=Api.INIT_PRODUCER_ID, times=3)
        waiting = s.deliver(b"v")
        await trio.sleep(65)
        (error,) = s.producer.statistics().operator_errors
        assert (error.code, error.scope) == (code, "producer")
        assert fault.hits == 3
        assert s.cluster.seen.produce_requests == []
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert 90 <= trio.current_time() < 91
        assert s.producer.statistics().operator_errors == ()


async def test_init_producer_id_that_is_lost_is_asked_again_of_another_broker(scenario, autojump_clock) -> None:
    async with scenario(brokers=2) as s:
        s.cluster.faults.close_before(api=Api.INIT_PRODUCER_ID, times=4)
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert trio.current_time() < 5


# ApiVersions


async def test_broker_of_old_answers_35_in_version_0(scenario, autojump_clock) -> None:
    versions = {**VERSIONS_OF_KAFKA_4_1, Api.API_VERSIONS: (0, 2)}
    async with scenario(cluster={"versions": versions}) as s:
        assert isinstance(await s.outcome(b"v"), Delivered)
        seen = [(r.connection, r.version) for r in s.cluster.seen.requests if r.api is Api.API_VERSIONS]
        assert seen == [(1, 4), (1, 0), (2, 4), (2, 0)]


@pytest.mark.parametrize("knows", [3, 0])
async def test_broker_that_resets_on_a_version_it_does_not_know_is_asked_a_lower_one(
    scenario, autojump_clock, knows: int
) -> None:
    """Azure resets on 4; others on 3 as well."""
    async with scenario() as s:
        s.cluster.faults.close_before(
            reset=True, api=Api.API_VERSIONS, when=lambda request: request.version > knows, times=None
        )
        assert isinstance(await s.outcome(b"v"), Delivered)
        versions = [request.version for request in s.cluster.seen.requests if request.api is Api.API_VERSIONS]
        assert versions == [version for version in (4, 3, 0) if version >= knows] * 2


# Metadata


@pytest.mark.parametrize("api", [Api.METADATA, Api.INIT_PRODUCER_ID])
async def test_throttled_connection_to_the_cluster_is_asked_nothing(scenario, autojump_clock, api: Api) -> None:
    """KIP-219; the fake cluster notes a request that comes too early."""
    async with scenario() as s:
        s.cluster.faults.throttle(5000, api=api)
        if api is Api.INIT_PRODUCER_ID:
            s.cluster.faults.fail(14, api=api)
        await trio.sleep(1)
        for topic in ("one", "two"):
            s.cluster.create_topic(topic, 1)
            assert isinstance(await s.outcome(topic.encode(), topic=topic), Delivered)
        assert 4.9 < trio.current_time() < 7


async def test_answer_without_brokers_forgets_nothing(scenario, autojump_clock) -> None:
    async with scenario(metadata_max_age_s=1.0) as s:
        await s.outcome(b"1")
        s.cluster.faults.no_brokers(times=None)
        await trio.sleep(5)
        assert (await s.outcome(b"2")).attempts == 1
        gaps = [later - earlier for earlier, later in pairwise(asked(s, Api.METADATA))]
        assert min(gaps[1:]) >= 0.1


async def test_cluster_that_is_never_reached_costs_a_try_now_and_then(scenario, autojump_clock) -> None:
    async with scenario(brokers=2) as s:
        s.cluster.faults.refuse_connects()
        config = ProducerConfig(bootstrap_servers=s.cluster.bootstrap_servers, delivery_timeout_s=300)
        async with open_producer(config, connector=s.cluster.connector) as producer:
            before = s.cluster.seen.connections_refused_total
            with producer.delivery([Record("events", b"v")]) as d:
                await d.wait()
            assert isinstance(d.outcomes[0], NotSent)
            tries = s.cluster.seen.connections_refused_total - before
            assert 150 < tries < 1200, "two producers, each every second on average"
        s.cluster.faults.accept_connects()


async def test_answer_that_never_comes_costs_that_connection_and_no_other(scenario, autojump_clock) -> None:
    async with scenario(brokers=2, metadata_max_age_s=5.0) as s:
        await s.outcome(b"1")
        s.cluster.faults.stall(api=Api.METADATA)
        await trio.sleep(30)
        assert s.producer.statistics().brokers[0].connections_opened_total == 1
        assert s.producer.statistics().last_cluster_error == ""
        assert (await s.outcome(b"2")).attempts == 1


async def test_refresher_shows_itself(scenario, autojump_clock) -> None:
    async with scenario(brokers=2) as s:
        await s.outcome(b"1")
        assert repr(s.producer._refresher) == "<Refresher 2 brokers known, 0 failures>"
        assert repr(s.producer._dispatch.leaders) == "<Leaders 2 brokers, 1 topics>"
        assert repr(s.producer._dispatch.standing) == "<StandingErrors none>"
