"""Apache Kafka from Maven artifacts: found where they were left, or fetched once.

Owns: where a release's jars lie, the sizes shown while they are fetched, and one clear line when they cannot be.
Refuses to know: how a broker is configured or run, and what differs between releases (`kafka_release`).

Invariant: a second start reads one small file and touches no network.
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

from collector.devtools.java import JavaRuntime, JavaUnavailable, find_java, install_java
from collector.devtools.kafka_release import DEFAULT_RELEASE, RELEASES, KafkaRelease

__all__ = ["DownloadStep", "KafkaInstall", "KafkaUnavailable", "find_kafka", "install_kafka"]


class KafkaUnavailable(Exception):
    """There is no Kafka to start, and this one line says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaInstall:
    """A Java runtime and the jars of one Kafka release."""

    release: KafkaRelease
    java: JavaRuntime
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
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "collector"


def _find_jars(release: KafkaRelease) -> tuple[Path, ...]:
    """The jars that an earlier start left; none where one is missing."""
    try:
        listed = json.loads((_cache() / f"kafka-{release.version}" / "jars.json").read_text())
    except (OSError, ValueError):
        return ()
    jars = tuple(Path(name) for name in listed)
    return jars if all(jar.is_file() for jar in jars) else ()


def find_kafka(version: str = DEFAULT_RELEASE.version) -> KafkaInstall | None:
    """Return the Kafka that an earlier start left, or None.

    Raises:
        KafkaUnavailable: There is no Java at all.
    """
    release = _release(version)
    jars = _find_jars(release)
    try:
        java = find_java(_cache(), release.java)
    except JavaUnavailable as error:
        raise _no_java(error) from error
    return KafkaInstall(release=release, java=java, jars=jars) if jars and java is not None else None


async def install_kafka(
    show: ShowStep | None = None, *, version: str = DEFAULT_RELEASE.version, java: JavaRuntime | None = None
) -> KafkaInstall:
    """Return a Kafka that can be started, fetching it if this machine has none.

    Args:
        show: Called, in a worker thread, as the download proceeds.
        version: One of `RELEASES`.
        java: To run it on; by default the installed one, or one that is fetched where the release is to have an older.

    On cancellation: the download's thread is left to end by itself; nothing half-written is ever used.

    Raises:
        KafkaUnavailable: One line that says what is missing and names ``--broker mock``.
    """
    release = _release(version)
    try:
        java = java or await install_java(_cache(), release.java)
    except JavaUnavailable as error:
        raise _no_java(error) from error
    jars = _find_jars(release) or await trio.to_thread.run_sync(_resolve, release, show, abandon_on_cancel=True)
    await trio.lowlevel.checkpoint()
    return KafkaInstall(release=release, java=java, jars=jars)


def _release(version: str) -> KafkaRelease:
    if version not in RELEASES:
        raise KafkaUnavailable(f"Apache Kafka {version} is not one of {', '.join(RELEASES)}")
    return RELEASES[version]


def _no_java(error: JavaUnavailable) -> KafkaUnavailable:
    return KafkaUnavailable(
        f"{error}: install the extra `collector[dev]`, or use --broker mock with `collector[testing]`"
    )


def _resolve(release: KafkaRelease, show: ShowStep | None) -> tuple[Path, ...]:
    try:
        import jgo
        from jgo.config import GlobalSettings
        from jgo.maven import PythonResolver
    except ImportError as error:
        raise KafkaUnavailable("jgo is missing: install the extra `collector[dev]`, or use --broker mock") from error
    progress = _Progress(show, release.expected_bytes)
    try:
        environment = jgo.build(
            release.coordinates,
            resolver=PythonResolver(progress_callback=progress.file),
            repositories=dict(GlobalSettings.load().repositories) or None,
        )
    except Exception as error:  # the resolver raises bare RuntimeErrors and the HTTP library's own: one line for all
        raise KafkaUnavailable(
            f"Apache Kafka {release.version} cannot be fetched ({_first_line(error)}); "
            "without a network use --broker mock"
        ) from error
    jars = tuple(sorted(Path(environment.path).glob("*/*.jar")))
    if not any(jar.name.startswith("kafka-clients-") for jar in jars):
        raise KafkaUnavailable(
            f"the download of Apache Kafka is incomplete in {environment.path}; or use --broker mock"
        )
    cache = _cache() / f"kafka-{release.version}"
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

    def __init__(self, show: ShowStep | None, expected_bytes: int) -> None:
        self._show = show
        self._expected_bytes = expected_bytes
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
                step = DownloadStep(
                    name=name, done_bytes=self._done, total_bytes=max(self._expected_bytes, self._known)
                )
            if self._show is not None:
                self._show(step)

        yield add
