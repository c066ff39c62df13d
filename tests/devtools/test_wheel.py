"""The wheel as other people get it: built, installed into an empty environment, used by a suite outside of here."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

SUITE = '''
"""A suite that knows the collector from its documentation only."""

import httpx
import pytest
import trio

from kafka_client import NotSentError, Record


async def test_broker_and_producer(kafka_broker, kafka_producer, assert_nothing_left, autojump_clock):
    kafka_broker.faults.drop_answer()
    await kafka_producer.send(Record("events", b"hello", key=b"k"))
    assert kafka_broker.values("events") == [b"hello"]
    assert kafka_broker.attempts_of(b"hello") == 2
    await assert_nothing_left()


async def test_deadline(kafka_broker, kafka_producer, assert_nothing_left, autojump_clock):
    kafka_broker.pause_broker(1)
    with trio.move_on_after(0.05) as scope:
        await kafka_producer.send(Record("events", b"hello"))
    assert scope.cancelled_caught and trio.current_time() == 0.05
    await assert_nothing_left()


async def test_app(collector_app, received_events, autojump_clock):
    signup = {"writeKey": "shop", "userId": "u1", "event": "Signed Up"}
    answer = await collector_app.http.post("/v1/track", json=signup)
    assert answer.status_code == 200
    [event] = await received_events(1)
    assert event.body == signup and event.key == b"u1"


@pytest.mark.parametrize("event", ["A", "B"])
async def test_track_client(track_client, received_events, assert_nothing_left, autojump_clock, event):
    await track_client.track({"type": "track", "userId": "u1", "event": event})
    [received] = await received_events(1)
    assert received.body["event"] == event


async def test_server(collector_server, track_client, received_events, assert_nothing_left):
    await track_client.track({"type": "track", "userId": "u1", "event": "Seen"})
    assert len(await received_events(1)) == 1
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(collector_server.http + "/readyz")).status_code == 200
'''

CONFIGURATION = "[pytest]\ntrio_mode = true\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider\n"


def find_uv() -> str:
    """The uv that runs these tests, or that lies beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("uv")
    found = os.environ.get("UV") or (str(beside) if beside.exists() else shutil.which("uv"))
    assert found is not None, "uv is needed to build and install the wheel: pip install uv"
    return found


def call(*argv: str | Path, cwd: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(argv, cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(600)
def test_wheel_in_an_empty_environment_runs_a_suite_from_outside(tmp_path: Path) -> None:
    uv = find_uv()
    # Nothing of this environment may be seen in the other one.
    ours = ("VIRTUAL_ENV", "PYTHON", "UV_PROJECT", "PYTEST_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    wheels, suite, venv = tmp_path / "wheels", tmp_path / "suite", tmp_path / "venv"
    suite.mkdir()
    (suite / "test_outside.py").write_text(SUITE)
    (suite / "pytest.ini").write_text(CONFIGURATION)

    call(uv, "build", "--wheel", "--out-dir", wheels, REPOSITORY, cwd=REPOSITORY, environ=environ)
    [wheel] = wheels.glob("*.whl")
    call(uv, "venv", "--python", sys.executable, venv, cwd=tmp_path, environ=environ)
    python = venv / "bin" / "python"
    # The same day's versions as everywhere else in the project.
    settings = write_uv_settings(tmp_path / "uv.toml")
    install = (uv, "pip", "install", "--config-file", settings, "--python", python)
    call(*install, f"{wheel}[testing]", cwd=tmp_path, environ=environ)

    where = call(python, "-c", "import collector, kafka_client; print(collector.__file__)", cwd=suite, environ=environ)
    assert where.startswith(str(venv))
    report = call(python, "-m", "pytest", "-q", cwd=suite, environ=environ)
    assert "6 passed" in report, report
    console = call(venv / "bin" / "collector", "--help", cwd=suite, environ=environ)
    assert "serve" in console


def write_uv_settings(path: Path) -> Path:
    """`[tool.uv]` of the project as a file for ``uv pip``, which does not read it from there."""
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["uv"]
    certs = str(table["system-certs"]).lower()
    path.write_text(f'system-certs = {certs}\nexclude-newer = "{table["exclude-newer"]}"\n')
    return path
