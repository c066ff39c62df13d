"""``collector serve --config FILE``: production.

Owns: the command line, and whether it is one process or a supervisor with several. Refuses to know: everything else.
"""

import argparse

from .settings import add_config_argument, load

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, required=True)


def run(arguments: argparse.Namespace) -> int:
    from collector.config_load import check_servable
    from collector.log import configure_logging

    config = load(arguments)
    check_servable(config)
    configure_logging(config.log)
    import trio

    from collector.devtools.children import bare_error

    from .collect import collect, supervise_workers

    with bare_error():
        if config.workers.processes > 1:
            return trio.run(supervise_workers, config, arguments.config)
        return trio.run(collect, config)
