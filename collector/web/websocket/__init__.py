"""Websocket sessions of the subprotocol ``collector.v1``, over whichever server carries the frames."""
