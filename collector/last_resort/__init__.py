"""What nginx kept while no collector could be reached, on its way back.

Owns: the form of a kept line, the place where they stand, and feeding them back in through the dialects. Refuses to
know: how nginx is made to keep them (`collector.nginx.last_resort`).
"""
