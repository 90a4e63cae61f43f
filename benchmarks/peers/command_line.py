"""What each of these servers is told: the workload and the port. Each prints its port once it listens."""

import argparse
import resource
from collections.abc import Sequence


def command_line(*workloads: str, parents: Sequence[argparse.ArgumentParser] = ()) -> argparse.Namespace:
    """Read `workload` (one of `workloads`, the first by default), `port` (0: any free one), and what `parents` add.

    Also raises the soft limit of open files to the hard one, as 10,000 connections need.
    """
    parser = argparse.ArgumentParser(parents=parents)
    parser.add_argument("--workload", choices=workloads, default=workloads[0])
    parser.add_argument("--port", type=int, default=0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return parser.parse_args()
