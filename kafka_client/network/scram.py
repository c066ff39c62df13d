"""SCRAM-SHA-256 and SCRAM-SHA-512, the client's side: both sides prove that they know the password, neither shows it.

Owns: the four messages, and what of the server's is not to be believed. Refuses to know: how messages travel, and where
the hashing runs (`Work`).

Invariant: the exchange ends without an error only if the server has proved that it knows the (salted) password too.

A server that is not ours may send anything: the nonce must go on where ours ended, the iteration count has bounds on
both sides (a low one would make our proof cheap to attack, a high one would burn our CPU), and its signature is
compared in constant time.

Source: RFC 5802 (messages, section 7; escapes and proofs, sections 3 and 5.1), RFC 7677 (SHA-256, 4096 iterations at
least), KIP-84.
"""

import binascii
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Generator, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from kafka_client.errors import SecurityError

from .steps import Work

__all__ = ["AUTHENTICATION_FAILED", "ITERATIONS_MAX", "ITERATIONS_MIN", "SaltedPasswords", "ScramCredentials", "scram"]

#: Kafka's code of a refusal, for those that a server writes into a message of SCRAM.
AUTHENTICATION_FAILED = 58
#: RFC 7677 section 4; Kafka refuses to store fewer.
ITERATIONS_MIN = 4096
#: 0.5 s of CPU with SHA-512. Kafka's own default is 4096, and 600 000 is what OWASP recommends for SHA-256.
ITERATIONS_MAX = 1_000_000
#: Up to here the hashing takes less than 10 ms (measured: 8.5 ms with SHA-512) and is done on the spot, once a
#: password and salt; beyond it runs in a thread.
INLINE_ITERATIONS_MAX = 16_384

#: As many bytes as Java's client has; RFC 5802 leaves it open.
_NONCE_BYTES = 18
_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
# RFC 5802 section 7: printable ASCII but the comma.
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")
_POSITIVE = re.compile(r"[1-9][0-9]{0,9}\Z")

#: (hash, password, salt, iterations) → the salted password; the last few.
SaltedPasswords: TypeAlias = MutableMapping[tuple[str, str, bytes, int], bytes]
SALTED_PASSWORDS_MAX = 16


@dataclass(frozen=True, slots=True)
class ScramCredentials:
    """As they are to be sent."""

    username: str
    password: str = field(repr=False)


def scram(
    mechanism: str, credentials: ScramCredentials, cache: SaltedPasswords, *, nonce: str | None = None
) -> Generator[bytes | Work, bytes, None]:
    """Yield the client's messages (and `Work`, to be sent its result); is sent the server's.

    Args:
        nonce: ours; None takes a random one.

    Raises:
        SecurityError: the server's messages are not what the password's owner would send.
    """
    hash_name = _HASHES[mechanism]
    ours = secrets.token_urlsafe(_NONCE_BYTES) if nonce is None else nonce
    first_bare = f"n={escape(credentials.username)},r={ours}"
    server_first = _text((yield f"n,,{first_bare}".encode()))
    theirs, salt, iterations = _read_first(server_first, ours)

    key = (hash_name, credentials.password, salt, iterations)
    salted = cache.get(key)
    if salted is None:
        hashing = partial(hashlib.pbkdf2_hmac, hash_name, credentials.password.encode(), salt, iterations)
        salted = hashing() if iterations <= INLINE_ITERATIONS_MAX else (yield Work(hashing))
    without_proof = f"c=biws,r={theirs}"  # biws: the GS2 header "n,,", since Kafka knows no channel binding
    signed = f"{first_bare},{server_first},{without_proof}".encode()
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    signature = hmac.digest(hashlib.new(hash_name, client_key).digest(), signed, hash_name)
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    server_final = _text((yield f"{without_proof},p={b64encode(proof).decode()}".encode()))

    server_key = hmac.digest(salted, b"Server Key", hash_name)
    _check_final(server_final, hmac.digest(server_key, signed, hash_name))
    if key not in cache:
        while len(cache) >= SALTED_PASSWORDS_MAX:
            del cache[next(iter(cache))]
        cache[key] = salted  # only now: a stranger's salts shall not push out those of our brokers


def escape(username: str) -> str:
    """RFC 5802 section 5.1: a comma ends a name, an equals sign begins an escape."""
    return username.replace("=", "=3D").replace(",", "=2C")


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise SecurityError("the broker's SCRAM message is not UTF-8") from None


def _read_first(message: str, ours: str) -> tuple[str, bytes, int]:
    """(nonce, salt, iterations)."""
    parts = message.split(",")
    if parts[0].startswith("e="):
        words = f"the broker ended the SCRAM exchange: {parts[0][2:100]!r}"
        raise SecurityError(words, code=AUTHENTICATION_FAILED)
    if parts[0].startswith("m="):
        raise SecurityError("the broker demands a SCRAM extension that we do not know")
    if len(parts) < 3 or [part[:2] for part in parts[:3]] != ["r=", "s=", "i="]:
        raise SecurityError("the broker's first SCRAM message has not the form r=…,s=…,i=…")
    theirs, salt_text, iterations_text = (part[2:] for part in parts[:3])
    if not theirs.startswith(ours) or len(theirs) == len(ours) or not _NONCE.match(theirs):
        raise SecurityError("the broker's SCRAM nonce does not go on from ours: an answer to somebody else")
    salt = _base64(salt_text, "salt")
    if not salt:
        raise SecurityError("the broker's SCRAM salt is empty")
    if not _POSITIVE.match(iterations_text):
        raise SecurityError("the broker's SCRAM iteration count is not a positive number")
    iterations = int(iterations_text)
    if iterations < ITERATIONS_MIN:
        raise SecurityError(
            f"the broker asks for {iterations} SCRAM iterations; fewer than {ITERATIONS_MIN} are too weak (RFC 7677): "
            "store the credentials anew"
        )
    if iterations > ITERATIONS_MAX:
        raise SecurityError(f"the broker asks for {iterations} SCRAM iterations; at most {ITERATIONS_MAX} are done")
    return theirs, salt, iterations


def _check_final(message: str, expected: bytes) -> None:
    first = message.split(",", 1)[0]
    if first.startswith("e="):
        raise SecurityError(f"the broker refused our SCRAM proof: {first[2:100]!r}", code=AUTHENTICATION_FAILED)
    if not first.startswith("v="):
        raise SecurityError("the broker's last SCRAM message has no signature")
    if not hmac.compare_digest(_base64(first[2:], "signature"), expected):
        raise SecurityError(
            "the broker's SCRAM signature is wrong: it does not know our password, and may not be who it claims to be"
        )


def _base64(text: str, what: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SecurityError(f"the broker's SCRAM {what} is not base64") from None
