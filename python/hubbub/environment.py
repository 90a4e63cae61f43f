"""Find environment variables that look like settings but are not: a mistyped name must not pass silently."""

import os
import re
from collections.abc import Collection, Iterator, Mapping

from . import program
from .logs import shown
from .settings import Settings

__all__ = ["complaints"]

PREFIX = "HUBBUB_"

# Variables that Kubernetes injects for Services whose names begin with hubbub: HUBBUB_SERVICE_HOST,
# HUBBUB_PORT_9501_TCP_ADDR, HUBBUB_METRICS_SERVICE_PORT_HTTP; and HUBBUB_PORT with an address in it.
_OF_A_SERVICE = re.compile(
    r"HUBBUB(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://.*")


def complaints(environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield a line for each variable `HUBBUB_…` that belongs to no setting, with the nearest name if there is one.

    Empty variables count as not set; variables that Kubernetes injects for a Service are skipped. Unprintable
    characters of a name are escaped.
    """
    known = {setting.variable for setting in Settings.describe()}
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in known or name == program.VARIABLE or not value:
            continue
        if _OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _ADDRESS_OF_A_SERVICE.fullmatch(value)):
            continue
        yield f"the variable {shown(name)} is not a setting and is ignored: {_hint(name, known)}"


def _hint(name: str, known: Collection[str]) -> str:
    import difflib  # Only needed for a mistake, so `import hubbub` should not wait for it.

    # Leave out the common prefix, which would make all names look similar.
    suffixes = [variable.removeprefix(PREFIX) for variable in known]
    nearest = difflib.get_close_matches(name.removeprefix(PREFIX).upper(), suffixes, n=1)
    return f"did you mean {PREFIX}{nearest[0]}?" if nearest else "`hubbub run --help` lists the settings"
