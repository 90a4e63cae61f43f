"""What each of these servers is told: the workload and the port. Each prints its port once it listens."""

import argparse
import resource


def command_line(*workloads: str) -> tuple[str, int]:
    """Read `--workload` (one of `workloads`, the first by default) and `--port` (0: any free one).

    Also raises the soft limit of open files to the hard one, as 10,000 connections need.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=workloads, default=workloads[0])
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return arguments.workload, arguments.port
