"""What a connection needs of a message: the shape that every message module of wire/ has.

Owns: the protocols. Refuses to know: which messages there are.
"""

from typing import Protocol, TypeVar

from kafka_client.wire.primitives import Buffer

__all__ = ["Message", "RequestT", "ResponseT", "VersionWindow"]

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)


class VersionWindow(Protocol):
    """Which versions of which message we speak; every message module of wire/ says so."""

    @property
    def API_KEY(self) -> int: ...  # noqa: N802

    @property
    def MIN_VERSION(self) -> int: ...  # noqa: N802

    @property
    def MAX_VERSION(self) -> int: ...  # noqa: N802


class Message(VersionWindow, Protocol[RequestT_contra, ResponseT_co]):
    """What every message module of wire/ has."""

    def encode_request(self, request: RequestT_contra, version: int) -> bytes: ...

    def decode_response(self, body: Buffer, version: int) -> ResponseT_co: ...
