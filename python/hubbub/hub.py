"""Making the hub, the part of a server that all its processes and other programs meet in."""

from ._core import Hub
from .control import Control
from .errors import CannotServe
from .settings import Settings

__all__ = ["open_hub"]


def open_hub(settings: Settings, control: Control | None) -> Hub:
    """Make the hub, which begins to give out connection ids above those that the lease file tells.

    Args:
        settings: The server's settings.
        control: The control socket, if there is one; its descriptors are the hub's from here on.

    Raises:
        CannotServe: The system refuses; its clock is so far ahead that there are no ids; the lease file is damaged, or
            says that there are no more.
    """
    try:
        return Hub(settings, control.listener if control else None, control.lease if control else None)
    except OSError as error:
        lease = f" ({control.lease_path})" if control else ""
        raise CannotServe(error.errno, f"{error.strerror or error}{lease}") from error
