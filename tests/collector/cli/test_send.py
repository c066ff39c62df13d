"""`collector send` from its arguments to its exit code, against a server in another thread, on real time."""

import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from collector.cli.main import main
from collector.cli.send_source import LINE_BYTES, READ_BYTES, Source, SourceError

EVENT = '{"type":"track","event":"e","userId":"u","messageId":"m1"}'

Respond = Callable[[int, bytes], tuple[int, dict[str, str], bytes]]


def _accept(_number: int, _body: bytes) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, b'{"success":true}'


@contextmanager
def http_server(respond: Respond = _accept) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers ``respond(number of the request, body)``; gives its URL and the bodies it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            bodies.append(body)
            status, headers, answer = respond(len(bodies), body)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", bodies
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def websocket_server(acknowledge: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Iterator[tuple[str, list[Any]]]:
    """A collector.v1 server in a thread of its own; ``acknowledge`` makes an ack of a frame, or None."""
    frames: list[Any] = []
    started, address, stop = threading.Event(), SimpleNamespace(port=0, token=None), trio.Event()

    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept(subprotocol="collector.v1")
        try:
            hello = {"op": "hello", "v": 1, "max_bytes": 10_000, "credit": 100_000, "ping_s": 20}
            await socket.send_message(json.dumps(hello))
            while True:
                text = await socket.get_message()
                frames.append(json.loads(text))
                if (ack := acknowledge(frames[-1])) is not None:
                    await socket.send_message(json.dumps({"op": "ack", "id": frames[-1]["id"], **ack}))
                    await socket.send_message(json.dumps({"op": "credit", "bytes": len(text)}))
        except ConnectionClosed:
            pass

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
            address.port, address.token = server.port, trio.lowlevel.current_trio_token()
            started.set()
            await stop.wait()
            nursery.cancel_scope.cancel(reason="the test is over")

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    started.wait(10)
    try:
        yield f"ws://127.0.0.1:{address.port}/v1/ws", frames
    finally:
        assert address.token is not None
        trio.from_thread.run_sync(stop.set, trio_token=address.token)
        thread.join()


def _lines(path: Path, number: int) -> str:
    path.write_text("".join(f'{{"type":"track","event":"e","userId":"u{index}"}}\n\n' for index in range(number)))
    return str(path)


def test_one_event_is_sent_and_the_summary_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server() as (url, bodies):
        assert main(["send", EVENT, "--url", url, "--key", "k"]) == 0
    assert bodies == [b'{"writeKey":"k","batch":[' + EVENT.encode() + b"]}"]
    out, err = capsys.readouterr()
    assert out.startswith("1 event accepted in ")
    assert out.endswith(f"(segment to {url})\n")
    assert err == ""


def test_a_file_is_sent_in_batches_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with http_server() as (url, bodies):
        assert main(["send", _lines(tmp_path / "events", 250), "--url", url, "--key", "k"]) == 0
    batches = [json.loads(body)["batch"] for body in bodies]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert [event["userId"] for batch in batches for event in batch] == [f"u{index}" for index in range(250)]
    assert capsys.readouterr().out.startswith("250 events accepted in ")


def test_stdin_and_heap_by_the_members_of_the_first_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(b'{"identity":"i","event":"e"}\n'), isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", stdin)
    with http_server() as (url, bodies):
        assert main(["send", "--url", url, "--key", "app", "--quiet"]) == 0
    assert json.loads(bodies[0])["app_id"] == "app"
    assert capsys.readouterr().out == ""


def test_a_file_over_the_websocket_is_one_message_an_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with websocket_server(lambda _frame: {"status": "delivered"}) as (url, frames):
        assert main(["send", _lines(tmp_path / "events", 300), "--url", url, "--key", "k"]) == 0
    assert [frame["body"]["userId"] for frame in frames] == [f"u{index}" for index in range(300)]
    assert capsys.readouterr().out.startswith("300 events accepted in ")


def test_rejected_events_are_named_by_line_and_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def picky(frame: dict[str, Any]) -> dict[str, Any]:
        if frame["body"]["userId"] == "u1":
            return {"status": "rejected", "code": "too_long", "message": "event is too long"}
        return {"status": "delivered"}

    path = _lines(tmp_path / "events", 3)
    with websocket_server(picky) as (url, _):
        assert main(["send", path, "--url", url, "--key", "k"]) == 4
    out, err = capsys.readouterr()
    assert out.startswith("2 of 3 events accepted, 1 refused in ")
    assert err == f"refused {path}, line 3: too_long: event is too long\n"


def test_bad_events_of_an_accepted_batch_are_counted_and_exit_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f"{EVENT}\n" * 3)
    outcome = "delivered=2, spooled=0, rejected=1, not_sent=0, unknown=0"
    with http_server(lambda *_: (200, {"x-collector-outcome": outcome}, b"{}")) as (url, _):
        assert main(["send", str(file), "--url", url, "--key", "k"]) == 4
    assert capsys.readouterr().out.startswith("2 of 3 events accepted, 1 refused in ")


def test_a_refused_request_says_the_servers_words_and_exits_4(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = json.dumps({"code": "invalid_key", "message": "no such key [x]"}).encode()
    with http_server(lambda _number, _body: (400, {}, refusal)) as (url, _):
        assert main(["send", EVENT, "--url", url, "--key", "k"]) == 4
    out, err = capsys.readouterr()
    assert err == "refused the event: invalid_key: no such key [x]\n"
    assert out.startswith("0 of 1 events accepted, 1 refused in ")


def test_a_503_is_sent_again(capsys: pytest.CaptureFixture[str]) -> None:
    def once(number: int, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return (503, {"retry-after": "0"}, b"busy\n") if number == 1 else _accept(number, body)

    with http_server(once) as (url, bodies):
        assert main(["send", EVENT, "--url", url, "--key", "k"]) == 0
    assert bodies[0] == bodies[1]
    out, err = capsys.readouterr()
    assert "1 event accepted, 1 retry in " in out
    assert "answered 503 busy" in err


def test_out_of_patience_without_a_connection_is_not_accepted_and_exits_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", EVENT, "--url", "http://127.0.0.1:1", "--key", "k", "--patience", "0.3"]) == 4
    out, err = capsys.readouterr()
    assert out.startswith("0 of 1 events accepted, 1 not accepted, ")
    assert "gave up: nothing was accepted for 0.3 s; last trouble: no connection" in err


def test_out_of_patience_after_a_lost_answer_is_unknown_and_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(lambda _number, _body: (0, {}, b"")) as (url, _):
        assert main(["send", EVENT, "--url", url, "--key", "k", "--patience", "0.3"]) == 3
    assert "1 unknown (they may be in the log)" in capsys.readouterr().out


def test_out_of_patience_with_an_unanswered_message_is_unknown_and_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    with websocket_server(lambda _frame: None) as (url, _):
        assert main(["send", EVENT, "--url", url, "--key", "k", "--patience", "0.3"]) == 3
    assert "1 unknown (they may be in the log)" in capsys.readouterr().out


def test_a_bad_line_is_named_and_what_was_before_it_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events"
    path.write_text(EVENT + "\n" + EVENT + "\nnonsense\n")
    with http_server() as (url, _):
        assert main(["send", str(path), "--url", url, "--key", "k", "--batch", "2"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"collector send: {path}, line 3: not a JSON object: ")
    assert out.startswith("2 of 3 events accepted, 1 not accepted in ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}", "--url", "http://h"], "--url needs --key"),
        (["{}", "--url", "http://h", "--key", "k", "--websocket"], "give the whole websocket address"),
        (["{}", "--url", "ftp://h", "--key", "k"], "the first event has neither"),
        ([EVENT, "--url", "ftp://h", "--key", "k"], "'ftp://h' is not an address like http://127.0.0.1:8080"),
        ([EVENT, "--url", "ws://", "--key", "k"], "'ws://' is not an address like ws://127.0.0.1:8080/v1/ws"),
        (["no/such/file", "--url", "http://h", "--key", "k"], "no/such/file: No such file or directory"),
        ([".", "--url", "http://h", "--key", "k"], ".: Is a directory"),
        ([os.devnull, "--url", "http://h", "--key", "k"], f"{os.devnull}: no event in it"),
        ([EVENT, "--url", "http://h", "--key", "k", "--batch", "0"], "--batch: expected at least 1"),
        ([EVENT], "no .collector/dev.json here or above: start `collector dev`, or give --url and --key"),
    ],
)
def test_what_is_the_callers_to_correct_is_one_line_and_exit_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["send", *words]) == 2
    _, err = capsys.readouterr()
    assert err.startswith("collector send: ")
    assert message in err
    assert err.count("\n") == 1


def _dev_json(folder: Path, url: str, pid: int) -> None:
    (folder / ".collector").mkdir()
    dev = {"http": url, "admin": "", "ws": "ws://h/v1/ws", "bootstrap_servers": "h:1", "topic": "events", "pid": pid}
    (folder / ".collector" / "dev.json").write_text(json.dumps(dev))


def test_a_running_dev_is_found_from_a_folder_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with http_server() as (url, bodies):
        _dev_json(tmp_path, url, os.getpid())
        assert main(["send", EVENT]) == 0
    assert json.loads(bodies[0])["writeKey"] == "dev"
    assert capsys.readouterr().err == ""


def test_a_dev_that_is_gone_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Above every pid the kernel gives out.
    _dev_json(tmp_path, "http://h", 2**22 + 1)
    assert main(["send", EVENT]) == 2
    assert "is left over, `collector dev` does not run" in capsys.readouterr().err


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, io.FileIO]]:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb", buffering=0) as writer:
        yield reader, writer


async def test_a_pipe_gives_what_has_come_and_a_line_may_come_in_parts(
    pipe: tuple[io.BufferedReader, io.FileIO],
) -> None:
    reader, writer = pipe
    source = Source("stdin", reader, None)
    writer.write(b'{"n":1}\n\n{"n":2}\n{"n"')
    first = await source.next_batch(100)
    assert (first.lines, first.numbers) == ([b'{"n":1}', b'{"n":2}'], [1, 3])
    writer.write(b":3}\n")
    assert (await source.next_batch(100)).numbers == [4]
    writer.write(b'\xef\xbb\xbf{"n":5}')
    writer.close()
    last = await source.next_batch(100)
    assert (last.lines, last.where) == ([b'{"n":5}'], "stdin, line 5")
    assert (await source.next_batch(100)).lines == []


async def test_an_endless_line_is_refused_before_it_fills_the_memory() -> None:
    source = Source("file", cast("io.BufferedIOBase", io.BytesIO(b"{" + b" " * (LINE_BYTES + READ_BYTES))), 1)
    with pytest.raises(SourceError, match=f"file, line 1: longer than {LINE_BYTES} bytes"):
        await source.next_batch(1)
