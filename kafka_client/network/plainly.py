"""What leaves a nursery, without the group around it.

Owns: the one place where a context manager with a nursery inside decides what its caller's ``except`` sees. Refuses to
know: what the nursery was for.
"""

from typing import NoReturn

from kafka_client.errors import ConnectionLost

__all__ = ["raise_plainly"]


def raise_plainly(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what is in ``group`` as plainly as it can be.

    A nursery groups whatever leaves it. A loss beside something else is the lesser news: beside a bug it would hide it,
    beside a cancellation it would come out of it as an error.
    """
    lost, rest = group.split(ConnectionLost)
    found: BaseException = lost if rest is None and lost is not None else rest or group
    while isinstance(found, BaseExceptionGroup) and (len(found.exceptions) == 1 or rest is None):
        found = found.exceptions[0]
    raise found from found.__cause__
