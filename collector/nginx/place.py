"""Where one nginx keeps its files.

Owns: the paths. Refuses to know: what is in the configuration.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["NginxPlace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxPlace:
    """Where one nginx keeps its files. The default is where Debian's package has them."""

    pid: str = "/run/nginx.pid"
    error_log: str = "/var/log/nginx/error.log"
    access_log: str = "/var/log/nginx/access.log"
    temporary: str | None = None
    """A directory for request bodies; None takes the built-in one."""
    user: str | None = "www-data"
    """None where nginx is not started as root."""
    processes: str = "auto"
    daemon: bool = True

    @classmethod
    def within(cls, directory: Path, *, user: str | None) -> "NginxPlace":
        """Everything in one directory, in the foreground, with one worker: for ``collector dev`` and the tests."""
        return cls(
            pid=f"{directory}/nginx.pid",
            error_log=f"{directory}/error.log",
            access_log=f"{directory}/access.log",
            temporary=str(directory),
            user=user,
            processes="1",
            daemon=False,
        )
