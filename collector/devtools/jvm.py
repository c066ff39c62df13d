"""How a JVM of Kafka is started, and what its last lines mean.

Owns: the options that keep it small and quiet, by the version of Java. Refuses to know: what it runs.
"""

from collections.abc import Sequence
from pathlib import Path

from collector.devtools.kafka_install import KafkaInstall
from collector.devtools.kafka_properties import logging_option

__all__ = ["java_command", "telling"]

_OPTIONS = ("-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")

#: From this Java on Kafka's libraries cause warnings without them, and older ones do not know them (JEP 471, JEP 472).
_QUIET_FROM = 24
_QUIET = ("--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED")


def java_command(install: KafkaInstall, directory: Path, main: str, *arguments: str) -> list[str]:
    """Make the command that runs the class ``main`` of a Kafka's jars, logging as ``directory`` says."""
    quiet = _QUIET if install.java.major >= _QUIET_FROM else ()
    files = (logging_option(install.release, directory), f"-XX:ErrorFile={directory / 'hs_err.log'}")
    return [str(install.java.executable), *_OPTIONS, *quiet, *files, "-cp", install.classpath, main, *arguments]


def telling(tail: Sequence[str]) -> str:
    """Pick the most telling of a JVM's last lines, as the end of a sentence."""
    for pattern in ("Address already in use", "Failed to acquire lock", "Caused by:", "Exception", "ERROR", "Error"):
        for line in tail:
            if pattern in line:
                return f": {line.strip()[:300]}"
    return f": {tail[-1].strip()[:300]}" if tail else ""
