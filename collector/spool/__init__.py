"""The spool: events that Kafka did not take in time, on the local disk until it does."""

from collector.spool.spool import DiskSpool, open_spool

__all__ = ["DiskSpool", "open_spool"]
