"""The files that TLS needs, checked before a server starts."""

from . import _core
from .errors import SettingsError
from .settings import Settings

__all__ = ["check_certificates"]


def check_certificates(settings: Settings) -> None:
    """Read the certificate, its key and the clients' authorities, if configured, the way the engine will.

    Raises:
        SettingsError: The files cannot be used; the message names the setting and the file, and says why.
    """
    try:
        _core.check_certificates(settings)
    except ValueError as error:
        raise SettingsError(str(error)) from None
