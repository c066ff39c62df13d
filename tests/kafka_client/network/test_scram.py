"""SCRAM's four messages: the RFC's own example, and servers that lie."""

import base64
import hashlib
import hmac
from collections.abc import Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.errors import SecurityError
from kafka_client.network import scram as module
from kafka_client.network.scram import (
    ITERATIONS_MAX,
    SALTED_PASSWORDS_MAX,
    SaltedPasswords,
    ScramCredentials,
    escape,
    scram,
)
from kafka_client.network.steps import Work

PENCIL = ScramCredentials("user", "pencil")
# RFC 7677 section 3.
NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

Exchange = Generator[bytes | Work, bytes, None]


def begin(cache: SaltedPasswords | None = None) -> Exchange:
    exchange = scram("SCRAM-SHA-256", PENCIL, {} if cache is None else cache, nonce=NONCE)
    assert next(exchange) == b"n,,n=user,r=" + NONCE.encode()
    return exchange


def finish(exchange: Exchange, message: bytes) -> None:
    with pytest.raises(StopIteration):
        exchange.send(message)


def test_example_of_rfc_7677() -> None:
    exchange = begin()
    assert exchange.send(SERVER_FIRST) == CLIENT_FINAL
    finish(exchange, SERVER_FINAL)


def test_extensions_after_the_signature_are_ignored() -> None:
    exchange = begin()
    exchange.send(SERVER_FIRST + b",x=later")
    # The signature covers the server's whole first message, so it is another one now.
    with pytest.raises(SecurityError, match="signature is wrong"):
        exchange.send(SERVER_FINAL + b",x=later")
    exchange = begin()
    exchange.send(SERVER_FIRST)
    finish(exchange, SERVER_FINAL + b",x=later")


def test_nonces_are_random_printable_and_long() -> None:
    first = {bytes(next(scram("SCRAM-SHA-512", PENCIL, {}))) for _ in range(100)}  # type: ignore[arg-type]  # bytes first
    assert len(first) == 100
    assert all(len(message.split(b"r=")[1]) >= 24 and b"," not in message.split(b"r=")[1] for message in first)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"r=other" + SERVER_FIRST[22:], "nonce does not go on from ours"),
        (SERVER_FIRST.replace(b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", b""), "nonce does not go on from ours"),
        (SERVER_FIRST.replace(b"%", b"\x7f"), "nonce does not go on from ours"),
        (SERVER_FIRST.replace(b"i=4096", b"i=4095"), "4095 SCRAM iterations; fewer than 4096 are too weak"),
        (SERVER_FIRST.replace(b"i=4096", b"i=1"), "too weak"),
        (SERVER_FIRST.replace(b"i=4096", b"i=%d" % (ITERATIONS_MAX + 1)), f"at most {ITERATIONS_MAX} are done"),
        (SERVER_FIRST.replace(b"i=4096", b"i=2147483647"), f"at most {ITERATIONS_MAX} are done"),
        (SERVER_FIRST.replace(b"i=4096", b"i=" + b"9" * 5000), "not a positive number"),
        (SERVER_FIRST.replace(b"i=4096", b"i=-4096"), "not a positive number"),
        (SERVER_FIRST.replace(b"i=4096", "i=٤٠٩٦".encode()), "not a positive number"),
        (SERVER_FIRST.replace(b"W22Z", b"W2*Z"), "salt is not base64"),
        (SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="), "salt is empty"),
        (b"m=mandatory," + SERVER_FIRST, "a SCRAM extension that we do not know"),
        (b"e=unknown-user", "ended the SCRAM exchange: 'unknown-user'"),
        (b"s=W22Z,i=4096,r=x", "has not the form r="),
        (b"", "has not the form"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_first_message_of_a_server_that_lies_is_refused_before_any_hashing(
    message: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.hashlib, "pbkdf2_hmac", None)
    with pytest.raises(SecurityError, match=words) as caught:
        begin().send(message)
    assert caught.value.code == (58 if message.startswith(b"e=") else 0)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"v=" + base64.b64encode(bytes(32)), "signature is wrong"),
        (SERVER_FINAL[:-5] + b"====", "not base64|is wrong"),
        (b"v=", "signature is wrong"),
        (b"v=***", "signature is not base64"),
        (b"e=invalid-proof", "refused our SCRAM proof: 'invalid-proof'"),
        (b"", "has no signature"),
        (b"ok", "has no signature"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_last_message_of_a_server_that_does_not_know_the_password_is_refused(message: bytes, words: str) -> None:
    cache: SaltedPasswords = {}
    exchange = begin(cache)
    exchange.send(SERVER_FIRST)
    with pytest.raises(SecurityError, match=words):
        exchange.send(message)
    assert cache == {}, "what a stranger made us compute is not kept"


def test_signature_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    exchange = begin()
    exchange.send(SERVER_FIRST)
    finish(exchange, b"v=AAAA")
    assert compared == [(b"\0\0\0", base64.b64decode(SERVER_FINAL[2:]))]


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=200))
def test_garbage_ends_in_a_security_error_and_nothing_else(message: bytes) -> None:
    with pytest.raises(SecurityError):
        begin().send(message)
    exchange = begin({("sha256", "pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096): bytes(32)})
    exchange.send(SERVER_FIRST)
    with pytest.raises(SecurityError):
        exchange.send(message)


@settings(deadline=None)
@given(
    username=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    password=st.text(min_size=1, max_size=20),
    salt=st.binary(min_size=1, max_size=40),
    mechanism=st.sampled_from(["SCRAM-SHA-256", "SCRAM-SHA-512"]),
)
def test_server_that_knows_the_password_is_convinced(username: str, password: str, salt: bytes, mechanism: str) -> None:
    # The server's side by the book, from what it stores: StoredKey and ServerKey.
    name = "sha256" if mechanism.endswith("256") else "sha512"
    salted = hashlib.pbkdf2_hmac(name, password.encode("utf-8", "surrogatepass"), salt, 4096)
    cache: SaltedPasswords = {(name, password, salt, 4096): salted}  # or each example would hash for itself
    exchange = scram(mechanism, ScramCredentials(username, password), cache)
    client_first = next(exchange)
    assert isinstance(client_first, bytes)
    bare = client_first.decode().removeprefix("n,,")
    user, nonce = bare.split(",r=")
    assert user.removeprefix("n=").replace("=2C", ",").replace("=3D", "=") == username
    assert "," not in user
    first = f"r={nonce}more,s={base64.b64encode(salt).decode()},i=4096"
    client_final = exchange.send(first.encode())
    assert isinstance(client_final, bytes)
    without_proof, proof = client_final.decode().split(",p=")
    signed = f"{bare},{first},{without_proof}".encode()
    stored = hashlib.new(name, hmac.digest(salted, b"Client Key", name)).digest()
    mask = hmac.digest(stored, signed, name)
    key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), mask, strict=True))
    assert hashlib.new(name, key).digest() == stored
    server_key = hmac.digest(salted, b"Server Key", name)
    finish(exchange, b"v=" + base64.b64encode(hmac.digest(server_key, signed, name)))


def test_names_are_escaped() -> None:
    assert escape("a,b=c=2C") == "a=2Cb=3Dc=3D2C"


def test_salted_password_is_computed_once_for_a_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    cache: SaltedPasswords = {}
    exchange = begin(cache)
    exchange.send(SERVER_FIRST)
    finish(exchange, SERVER_FINAL)
    monkeypatch.setattr(module.hashlib, "pbkdf2_hmac", None)
    exchange = begin(cache)
    assert exchange.send(SERVER_FIRST) == CLIENT_FINAL


def test_salted_passwords_are_bounded() -> None:
    cache: SaltedPasswords = {("sha256", "x", bytes((n,)), 4096): b"" for n in range(SALTED_PASSWORDS_MAX)}
    exchange = begin(cache)
    exchange.send(SERVER_FIRST)
    finish(exchange, SERVER_FINAL)
    assert len(cache) == SALTED_PASSWORDS_MAX
    assert ("sha256", "x", b"\0", 4096) not in cache


def test_many_iterations_are_work_for_somebody_else() -> None:
    exchange = begin()
    work = exchange.send(SERVER_FIRST.replace(b"i=4096", b"i=20000"))
    assert isinstance(work, Work)
    assert repr(work) == "<Work>"
    salted = work.run()
    assert salted == hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 20000)
    message = exchange.send(salted)
    assert isinstance(message, bytes)
    assert message.startswith(b"c=biws,r=")
