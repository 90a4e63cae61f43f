"""Hubbub: a WebSocket server engine. A few callbacks, many connections, push from anywhere."""

from ._core import Frame, __version__
from .asgi.ids import fd_of
from .client import client_path
from .cluster import Cluster, ClusterStats, Count, Host, Ids, TopicCounts
from .endpoints import Endpoint
from .errors import CannotServe, HubbubError, NotRunning, SettingsError
from .events import CloseCode, ConnectionInfo, Opcode, Stats, WorkerStats
from .history import History, Joined, Message, Position
from .publisher import AsyncPublisher, Publisher
from .requests import Request
from .responses import Accept, Refuse, Response
from .server import Server, current_server
from .settings import Settings
from .static import Page, StaticFiles
from .timers import Timer

__all__ = [
    "Accept",
    "AsyncPublisher",
    "CannotServe",
    "CloseCode",
    "Cluster",
    "ClusterStats",
    "ConnectionInfo",
    "Count",
    "Endpoint",
    "Frame",
    "History",
    "Host",
    "HubbubError",
    "Ids",
    "Joined",
    "Message",
    "NotRunning",
    "Opcode",
    "Page",
    "Position",
    "Publisher",
    "Refuse",
    "Request",
    "Response",
    "Server",
    "Settings",
    "SettingsError",
    "StaticFiles",
    "Stats",
    "Timer",
    "TopicCounts",
    "WorkerStats",
    "__version__",
    "client_path",
    "current_server",
    "fd_of",
]
