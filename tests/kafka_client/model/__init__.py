"""The model-based test of `kafka_client`: programs, the playing of them, the books; see `program` and `books`."""
