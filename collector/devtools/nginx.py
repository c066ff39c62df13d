"""A real nginx in front, as a child process, with the configuration that ``collector render nginx`` renders.

Owns: nginx's directory, its start, its end. Refuses to know: what is in its configuration (`collector.nginx`).

Invariant: when `open_nginx` yields, it listens; when its block is left, master and worker have ended.
"""

import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from collector.config import Config
from collector.devtools.children import Child, open_child
from collector.last_resort.place import make_place
from collector.nginx import NginxPlace, render_nginx

__all__ = ["Nginx", "NginxUnavailable", "open_nginx"]

START_TIMEOUT_S = 10.0


class NginxUnavailable(Exception):
    """There is no nginx to start, or it refused; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """A running nginx."""

    child: Child
    directory: Path
    address: str
    """``host:port`` that it listens on."""

    @property
    def access_log(self) -> Path:
        """One JSON object a request, written at once."""
        return self.directory / "access.log"


@asynccontextmanager
async def open_nginx(
    config: Config, directory: Path, *, upstreams: Sequence[str], listen: str | None = None
) -> AsyncIterator[Nginx]:
    """Run nginx for as long as the block lasts.

    Args:
        config: The collector's; all of nginx's numbers come from it.
        directory: Where it keeps its files; made if missing.
        upstreams: The collectors, ``host:port``.
        listen: ``host:port``; port 0 takes any free one. By default ``[nginx] listen``.

    Raises:
        NginxUnavailable: It is not installed, or does not start.

    On cancellation: as at the end of the block, nginx is ended (SIGTERM: at once, unlike its SIGQUIT).
    """
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if program is None:
        raise NginxUnavailable("nginx is not installed (Debian: apt-get install nginx-light); or start without --nginx")
    address = _claim(listen or config.nginx.listen)
    file = _prepare(config, directory, upstreams, address)
    argv = [program, "-p", str(file.parent), "-c", str(file), "-e", str(file.parent / "error.log")]
    async with open_child(argv, name="nginx", death_signal=signal.SIGTERM, grace_s=3.0) as child:
        await _wait_listening(child, address)
        yield Nginx(child=child, directory=file.parent, address=address)


def _prepare(config: Config, directory: Path, upstreams: Sequence[str], address: str) -> Path:
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    place = NginxPlace.within(directory, user="root" if os.geteuid() == 0 else None)
    if config.nginx.last_resort == "accept":
        make_place(Path(config.nginx.last_resort_file))
    file = directory / "nginx.conf"
    file.write_text(render_nginx(config, upstreams=upstreams, listen=address, place=place))
    return file


def _claim(listen: str) -> str:
    """Return an address that is free now. nginx cannot say which port it got for 0."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise NginxUnavailable(f"{listen} for nginx is taken: {os.strerror(error.errno or 0)}") from error
        return f"{host}:{probe.getsockname()[1]}"


async def _wait_listening(child: Child, address: str) -> None:
    host, _, port = address.rpartition(":")
    with trio.move_on_after(START_TIMEOUT_S):
        await trio.lowlevel.checkpoint()
        while child.running:
            try:
                stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            except OSError:
                await trio.sleep(0.01)
            else:
                await stream.aclose()
                return
    raise NginxUnavailable(f"nginx does not start: {child.tail[-1] if child.tail else 'it says nothing'}")
