"""What strace wrote, as calls."""

import re

#: ``PID call(FD</path>, …`` as ``strace -f -y`` writes it; a call during which another thread ran ends on a later line.
CALL = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<fd>\d+)<(?P<path>[^>]*)>(?P<rest>.*)$")
RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<call>\w+) resumed>.* = (?P<result>-?\d+)")
RESULT = re.compile(r" = (-?\d+)[^=]*$")


def calls_of(trace: str) -> list[tuple[str, str, str, int]]:
    """Finished calls in the order in which they ended: name, path, the rest of the arguments, result."""
    begun: dict[tuple[str, str], tuple[str, str]] = {}
    ended = []
    for line in trace.splitlines():
        if found := CALL.match(line):
            pid, call, path, rest = found["pid"], found["call"], found["path"], found["rest"]
            if result := RESULT.search(rest):
                ended.append((call, path, rest, int(result[1])))
            else:
                begun[pid, call] = path, rest
        elif found := RESUMED.match(line):
            path, rest = begun.pop((found["pid"], found["call"]), ("", ""))
            ended.append((found["call"], path, rest, int(found["result"])))
    return ended
