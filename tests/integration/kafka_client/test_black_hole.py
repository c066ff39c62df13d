"""A network that swallows packets: neither RST nor answer. Only the kernel's TCP_USER_TIMEOUT ends such a connection.

A child process in a network namespace of its own, whose loopback interface goes down while data is unacknowledged.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

PROGRAM = """
import ctypes, fcntl, os, socket, struct, sys
import trio
from kafka_client.network.tcp import connect_tcp

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)):
    sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")

def loopback(up):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", int(up)))  # SIOCSIFFLAGS, IFF_UP

async def main():
    loopback(True)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    stream = await connect_tcp("127.0.0.1", port, user_timeout_s=float(sys.argv[1]))
    peer = await listener.accept()
    await stream.send_all(b"hello")
    assert await peer.receive_some() == b"hello"
    loopback(False)
    started = trio.current_time()
    await stream.send_all(b"swallowed")
    with trio.move_on_after(8):
        try:
            await stream.receive_some()
        except trio.BrokenResourceError as error:
            print(f"{trio.current_time() - started:.1f} {error.__cause__.strerror}")
            return
    print("silence")

trio.run(main)
"""


def ends(user_timeout_s: float) -> str:
    argv = [sys.executable, "-c", PROGRAM, str(user_timeout_s)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_connection_that_is_swallowed_ends_after_its_user_timeout() -> None:
    after_s, reason = ends(2.0).split(maxsplit=1)
    assert 2.0 <= float(after_s) < 5.0  # looked at when the kernel sends again, in intervals that double
    assert reason == "Connection timed out"


def test_longer_user_timeout_bears_the_silence() -> None:
    assert ends(60.0) == "silence"
