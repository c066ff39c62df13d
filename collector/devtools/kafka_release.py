"""What differs between the releases of Apache Kafka that can be started here.

Owns: the facts, each found by starting the release. Refuses to know: how anything is fetched or run.

Non-obvious:
- The logging artifacts are pinned and marked raw (``!``). Left to itself, the resolver takes every named artifact for a
  bill of materials, and log4j's names a kafka-clients of 2017: the broker then dies with a NoSuchMethodError.
- 2.8 runs with its ZooKeeper: its KRaft gives out no producer ids.
- 3.9 and 2.8 are older than the installed Java, so they get one of their time: what a test finds shall be the client's
  doing. They were seen to start on Java 25 too, and to take clients there over SASL (3.9: PLAIN, SCRAM, OAUTHBEARER;
  2.8: PLAIN; its SCRAM users would have to be made in ZooKeeper).
"""

from dataclasses import dataclass

__all__ = ["DEFAULT_RELEASE", "RELEASES", "KafkaRelease"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaRelease:
    """One release of Apache Kafka.

    Attributes:
        version: As in its artifacts' names.
        logging: The artifacts that its log lines need, as the resolver wants them.
        log4j2: Which configuration those read: log4j2's XML, or log4j 1's properties.
        expected_bytes: Of its jars, measured.
        java: Major version of the Java that it runs on; None: the installed one.
        zookeeper: Whether it keeps its metadata there.
    """

    version: str
    logging: str
    log4j2: bool
    expected_bytes: int
    java: int | None
    zookeeper: bool

    @property
    def coordinates(self) -> str:
        """Its artifacts, as the resolver wants them."""
        return f"org.apache.kafka:kafka_2.13:{self.version}+{self.logging}"


DEFAULT_RELEASE = KafkaRelease(
    version="4.1.0",
    logging="org.apache.logging.log4j:log4j-slf4j-impl:2.24.3!",  # its own log4j's version
    log4j2=True,
    expected_bytes=44_000_000,
    java=None,
    zookeeper=False,
)

RELEASES = {
    release.version: release
    for release in (
        DEFAULT_RELEASE,
        KafkaRelease(
            version="3.9.1",
            logging="org.slf4j:slf4j-reload4j:1.7.36!",
            log4j2=False,
            expected_bytes=47_700_000,
            java=17,
            zookeeper=False,
        ),
        KafkaRelease(
            version="2.8.2",
            logging="org.slf4j:slf4j-reload4j:1.7.36!",
            log4j2=False,
            expected_bytes=36_700_000,
            java=17,
            zookeeper=True,
        ),
    )
}
