"""``collector tail``: events from the topic as they come.

Owns: how an event looks on a terminal. Refuses to know: how a partition is read (`.reading`).

On a terminal one short line an event; anywhere else, and with ``--json``, the record's value as it is, one a line.
"""

import argparse
import json
import sys

from .main import Mendable
from .settings import add_config_argument, load_for_topic

__all__ = ["add_arguments", "event_line", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--bad", action="store_true", help="the bad events, from [kafka] bad_topic")
    parser.add_argument("--from-beginning", action="store_true", help="everything in the topic first")
    parser.add_argument("-n", "--count", type=int, metavar="N", help="end after so many events")
    parser.add_argument("--json", action="store_true", help="the records' values, one a line")
    parser.add_argument("--bootstrap-servers", metavar="H:P,H:P", help="instead of [kafka] bootstrap_servers")
    parser.add_argument("--topic", help="instead of [kafka] topic")


def run(arguments: argparse.Namespace) -> int:
    import trio

    try:
        trio.run(_tail, arguments)
    except* KeyboardInterrupt:
        pass
    return 0


async def _tail(arguments: argparse.Namespace) -> None:
    from kafka_client.errors import BrokerError, ConnectionLost

    from .reading import open_reading

    config = load_for_topic(arguments)
    topic = config.kafka.topic
    if arguments.bad and arguments.topic is None:
        if config.kafka.bad_topic is None:
            raise Mendable("kafka.bad_topic is empty: bad events go nowhere")
        topic = config.kafka.bad_topic
    terminal = sys.stdout.isatty()
    left = arguments.count
    try:
        async with open_reading(config, topic, from_beginning=arguments.from_beginning) as records:
            async for batch in records:
                for record in batch if left is None else batch[:left]:
                    value = record.value or b""
                    text = value.decode("utf-8", "replace")
                    if terminal:
                        text = (
                            _printable(text) if arguments.json else event_line(record.partition, record.offset, value)
                        )
                    sys.stdout.write(text + "\n")
                sys.stdout.flush()
                if left is not None:
                    left -= len(batch)
                    if left <= 0:
                        return
    except (ConnectionLost, BrokerError) as error:
        raise Mendable(f"{','.join(config.kafka.bootstrap_servers)}, topic {topic}: {error}") from error


def event_line(partition: int, offset: int, value: bytes) -> str:
    """One event for people: when, where it lies, whose it is, what it says."""
    return _printable(_event_line(f"{partition:>3}/{offset:<8}", value))


def _printable(text: str) -> str:
    """Clients write events: what would steer a terminal must not reach one."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )


def _event_line(place: str, value: bytes) -> str:
    try:
        event = json.loads(value)
        when = str(event["received_at"])[11:23]
        body = event["body"] if isinstance(event["body"], str) else json.dumps(event["body"], ensure_ascii=False)
        head = f"{event['api']}/{event['app']} {event['type']}"
    except (ValueError, KeyError, TypeError):
        # A bad event, or somebody else's record.
        return f"{place} {value.decode('utf-8', 'replace')}"
    return f"{when} {place} {head:<28} {body}"
