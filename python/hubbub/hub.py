"""Create the hub, which connects all processes of a server with each other and with other programs."""

from collections.abc import Sequence

from ._core import Hub
from .control import Control
from .errors import CannotServe
from .settings import Settings
from .topic_options import TopicOptions

__all__ = ["open_hub"]


def open_hub(settings: Settings, topics: Sequence[TopicOptions], control: Control | None) -> Hub:
    """Create the hub, which gives out connection ids above those recorded in the lease file.

    Args:
        settings: The server's settings.
        topics: The options of topics, in the order in which their patterns are tried.
        control: The control socket, if there is one; the hub takes over its descriptors.

    Raises:
        CannotServe: A system call failed; the clock is so far ahead that there are no ids; or the lease file is
            damaged, or says that all ids are used up.
    """
    try:
        values = [options.values for options in topics]
        return Hub(settings, values, control.listener if control else None, control.lease if control else None, None)
    except OSError as error:
        lease = f" ({control.lease_path})" if control else ""
        raise CannotServe(error.errno, f"{error.strerror or error}{lease}") from error
