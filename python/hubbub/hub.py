"""Create the hub, which connects all processes of a server with each other and with other programs."""

import socket
from collections.abc import Sequence

from ._core import Hub
from .control import Control, open_host_file
from .errors import CannotServe
from .settings import Settings
from .topic_options import TopicOptions

__all__ = ["open_hub"]


def open_hub(settings: Settings, topics: Sequence[TopicOptions], control: Control | None, port: int) -> Hub:
    """Create the hub, which gives out connection ids above those recorded in the lease file.

    Args:
        settings: The server's settings.
        topics: The options of topics, in the order in which their patterns are tried.
        control: The control socket, if there is one; the hub takes over its descriptors.
        port: The port that the server listens on, for the name that other hosts' people see.

    Raises:
        CannotServe: A system call failed; the clock is so far ahead that there are no ids; or the lease file is
            damaged, or says that all ids are used up.
    """
    try:
        values = [options.values for options in topics]
        listener, lease_file = (control.listener, control.lease) if control else (None, None)
        host_file = open_host_file(control) if control and settings.broker is not None else None
        name = f"{socket.gethostname()}:{port}"
        return Hub(settings, values, listener, lease_file, host_file, name)
    except OSError as error:
        lease = f" ({control.lease_path})" if control else ""
        raise CannotServe(error.errno, f"{error.strerror or error}{lease}") from error
