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
    found: BaseException
    _, rest = group.split(ConnectionLost)
    if rest is None:  # nothing but losses: the first one stands for all
        found = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
    else:
        found = rest.exceptions[0] if len(rest.exceptions) == 1 else rest
    raise found from found.__cause__
