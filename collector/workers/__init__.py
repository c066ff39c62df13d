"""Several processes behind one address: a supervisor, and the workers that it keeps alive.

    supervisor ─ slot ─ worker process ─ `collector.run`
       │           └ one SO_REUSEPORT socket, for the supervisor's whole life
       ├ signals: leave, reload
       └ admin listener: the metrics of all, each one's pages

Owns: which processes there are, their sockets, their ends, what they add up to. Refuses to know: events, requests,
Kafka; a worker is a whole collector, with a producer and a spool file of its own.

Invariant: a slot's socket never closes while the slot is there, so that nobody who has connected is reset: whoever
waits in its queue when a worker goes is accepted by the next one.
"""
