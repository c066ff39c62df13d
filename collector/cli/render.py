"""``collector render nginx``: configuration for others, made from ours so that no number stands twice.

Owns: the command line. Refuses to know: what nginx needs (`collector.nginx`).
"""

import argparse
import sys

from .settings import add_config_argument, load

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["nginx"], help="whose configuration")
    add_config_argument(parser)
    parser.add_argument("--listen", metavar="ADDR", help="what nginx listens on; by default [nginx] listen")
    parser.add_argument(
        "--upstream",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="a collector; may be given several times; by default [nginx] upstreams, else [http] bind",
    )


def run(arguments: argparse.Namespace) -> int:
    from collector.nginx import render_nginx

    sys.stdout.write(render_nginx(load(arguments), upstreams=arguments.upstream, listen=arguments.listen))
    sys.stdout.flush()
    return 0
