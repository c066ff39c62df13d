"""The lane: HTTP/1.0 and 1.1 in one task per connection, in the place of Hypercorn's connection class."""
