"""The spool: events that Kafka does not take now, on the local disk (SQLite, fsync), until they are replayed."""
