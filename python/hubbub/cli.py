"""The command line: `hubbub run`, and the commands that talk to a running server.

Exit status 1 is an error that Hubbub reports in one line, 2 is a usage error, and 3 is a failure of the user's own
code, shown with its traceback.
"""

import asyncio
import base64
import contextlib
import dataclasses
import errno
import importlib
import json
import logging
import os
import shlex
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import reduce
from typing import IO, Any, NoReturn, TypeVar

import click

from . import __version__, _core, environment, handed_over, listing, program
from .addresses import loopback_names, urls_to_open
from .asgi.application import check_application, check_factory
from .errors import NotRunning, SettingsError
from .events import ConnectionInfo
from .history import Message, Reading
from .jsons import STANDARD
from .logs import shown, shown_client
from .publisher import AsyncPublisher, Publisher
from .server import Server
from .settings import Settings, more_follow

__all__ = ["main"]

log = logging.getLogger("hubbub")

USERS_FAILURE = 3

# How many questions to send before waiting for their answers: waiting for each one would be slow.
MAX_QUESTIONS = 500

A_DAY = 24 * 3600

# Of an offset; the largest one has 16.
MAX_DIGITS = 20
# Of a message that is not text.
MAX_SHOWN_BYTES = 40

T = TypeVar("T")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Failure(click.ClickException):
    """An error that Hubbub reports: one line, exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"hubbub: {self.message}", file=file, err=True)


SETTINGS = {setting.name: setting for setting in Settings.describe()}

# Options of `hubbub run` under the names that uvicorn gives them: they are not in the help, and mean the same.
ALIASES = {
    "keep_alive_timeout": "--timeout-keep-alive",
    "max_message_size": "--ws-max-size",
    "max_requests": "--limit-max-requests",
    "ping_interval": "--ws-ping-interval",
    "ping_timeout": "--ws-ping-timeout",
    "shutdown_timeout": "--timeout-graceful-shutdown",
    "trusted_proxies": "--forwarded-allow-ips",
}
EVERY_ADDRESS = "0.0.0.0/0,::/0"


class Option(click.Option):
    """The option of a setting, which may have a second name that its help does not show."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add both names."""
        super().add_to_parser(parser, ctx)
        if self.name in ALIASES and ctx.command.name == "run":
            parser.add_option(obj=self, opts=[ALIASES[self.name]], dest=self.name)


def _checked(context: click.Context, option: click.Parameter, given: str | bool | None) -> str | None:
    """Return the text of an option that is a setting, after checking that it is a valid value."""
    if given is None or isinstance(given, bool):
        # A switch cannot have an invalid value.
        return None if given is None else str(given).lower()
    setting = SETTINGS[str(option.name)]
    if setting.name == "trusted_proxies" and given.strip() == "*":
        # uvicorn's word for them.
        given = EVERY_ADDRESS
    try:
        setting.read_text(given, f"option {setting.option}")
    except SettingsError as error:
        raise click.UsageError(str(error), context) from None
    return given


def _option(name: str, help: str) -> Decorator:
    """Return the decorator that adds the option of a setting."""
    setting = SETTINGS[name]
    if setting.negation:
        default = "on" if setting.default else "off"
        names = f"{setting.option}/{setting.negation}"
        return click.option(names, name, default=None, callback=_checked, help=f"{help} [default: {default}]")
    if isinstance(setting.default, tuple):
        default = ",".join(setting.default) or "none"
    else:
        default = str(setting.default).lower() or "empty"
    facts = "; ".join(filter(None, [setting.kind.limits, f"default: {default}"]))
    return click.option(
        setting.option, name, cls=Option, metavar=setting.kind.metavar, callback=_checked, help=f"{help} [{facts}]"
    )


def _every_setting(command: Callable[..., Any]) -> Callable[..., Any]:
    return reduce(lambda decorated, name: _option(name, SETTINGS[name].doc)(decorated), reversed(SETTINGS), command)


class Command(click.Command):
    """A command whose summary is not truncated in the list of all commands."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first paragraph of the help, however long it is."""
        return " ".join((self.help or "").partition("\n\n")[0].split())


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


# The commands that can ask all hosts.
EVERYWHERE = ("connections", "members", "stats", "topics")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="hubbub %(version)s")
@click.option("--all-hosts", is_flag=True, help=f"Ask all hosts: for {', '.join(EVERYWHERE)}.")
@click.pass_context
def main(context: click.Context, all_hosts: bool) -> None:
    """Run a Hubbub server, or talk to a running one."""
    if all_hosts and context.invoked_subcommand not in EVERYWHERE:
        raise click.UsageError(f"--all-hosts is for {', '.join(EVERYWHERE)}", context)
    context.obj = all_hosts


# ---- run -------------------------------------------------------------------------------------------------


@main.command()
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="The directory to import MODULE from.",
)
@click.option(
    "--factory", is_flag=True, help="NAME is a function without arguments, which returns the Server or the application."
)
@click.option(
    "--reload",
    is_flag=True,
    help="Replace the workers when a Python file in the app's directory changes, or any file in reload_dirs.",
)
@click.option("--reload-dir", "more_dirs", multiple=True, hidden=True)
@click.option("--proxy-headers/--no-proxy-headers", default=True, hidden=True)
@_every_setting
def run(
    target: str,
    app_dir: str,
    factory: bool,
    reload: bool,
    more_dirs: Sequence[str],
    proxy_headers: bool,
    **options: str | None,
) -> None:
    """Run the Server or the ASGI application called NAME in MODULE, such as app:server.

    Every setting is an option here, and an environment variable: HUBBUB_MAX_MESSAGE_SIZE for --max-message-size. An
    option beats a variable, and a variable beats the program's own value. Other users of this
    machine can read options: for a password, set the variable (HUBBUB_SSL_KEYFILE_PASSWORD).

    An ASGI application is that of FastAPI, Starlette, Litestar or Django, for example. The names that uvicorn gives to
    its options are understood too where they mean the same, such as --timeout-keep-alive.
    """
    directory = os.path.abspath(app_dir)
    sys.path.insert(0, directory)
    program.name = target
    if more_dirs:
        options["reload_dirs"] = ",".join([*filter(None, [options["reload_dirs"]]), *more_dirs])
    if not proxy_headers:
        options["trusted_proxies"] = "none"
    server = _configured(lambda: _served(target, factory), options, for_development=reload)
    with _reloading(server, directory) if reload and not program.assignment else contextlib.nullcontext():
        server.start()


@main.command()
@_every_setting
def demo(**options: str | None) -> None:
    """Run a demo chat: open the printed address in two windows.

    Use it as a starting point, too: its server and its page are in the directory demo of the package.
    """
    program.name = "demo"
    server = _configured(lambda: _served("hubbub.demo.chat:server"), options, for_development=True)
    server.on("start", _tell_urls)
    server.start()


def _tell_urls(server: Server) -> None:
    settings = server.settings
    if settings.uds is not None or settings.fd is not None:
        click.echo("The chat is served at the given socket. Ctrl-C stops the server.")
        return
    first, *others = urls_to_open(settings.hosts, server.port, tls=settings.ssl_certfile is not None)
    lines = [f"Open {first} in a browser. Ctrl-C stops the server."]
    if others:
        lines.append(f"It is also at {' and '.join(others)}")
    click.echo("\n".join(lines))


def _configured(make: Callable[[], Server], options: Mapping[str, str | None], *, for_development: bool) -> Server:
    """Return the server that `make` returns, with the options of the command line applied.

    Developers also visit other sites' pages. Therefore, if only this machine can reach the server, it refuses requests
    for foreign host names unless `allowed_hosts` says otherwise.
    """
    given = {name: text for name, text in options.items() if text is not None}
    try:
        # The program's own settings and variables may make sense only together with these options.
        with more_follow():
            server = make()
        server._lay_over(given)
        if for_development:
            server._lay_over(given, defaults={"allowed_hosts": _own_names(server.settings)})
    except SettingsError as error:
        raise Failure(str(error)) from None
    return server


def _own_names(settings: Settings) -> tuple[str, ...] | None:
    """Return the `allowed_hosts` of a server in development; `None` if it can be reached by any name.

    No browser opens a Unix socket, so what comes from there comes from a proxy, with the names of that proxy.
    """
    hosts: Sequence[str] = settings.hosts
    if settings.fd is not None:
        host = handed_over.host_of(settings.fd)
        hosts = [host] if host else []
    return loopback_names(hosts) if hosts and settings.uds is None else None


def _served(target: str, is_factory: bool = False) -> Server:
    """Return the server that `target` names in the user's module, or one for the application that it names."""
    found = _find(target)
    if is_factory:
        found = _made(target, found)
    if isinstance(found, Server):
        return found
    try:
        app = check_application(found)
    except TypeError as error:
        raise Failure(f"{target} is neither a Server nor an ASGI application: {error}") from None
    return Server(app=app)


def _made(target: str, factory: object) -> object:
    """Call the factory that the user's module names."""
    try:
        make = check_factory(factory)
    except TypeError as error:
        raise Failure(f"{target} is not a factory: {error}") from None
    try:
        with program.importing():
            return make()
    except SettingsError:
        raise
    except Exception as error:
        _fail_as_user(error)


def _find(target: str) -> object:
    """Import the user's module, and return what `target` names in it."""
    name, colon, attribute = target.partition(":")
    if not (colon and all(part.isidentifier() for part in f"{name}.{attribute}".split("."))):
        raise Failure(
            f"{target!r} names neither a server nor an application: write MODULE:NAME, such as app:server or app:app"
        )
    try:
        with program.importing():
            module = importlib.import_module(name)
    except SettingsError:
        # Its message says what is wrong, and where, better than a traceback would.
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            _fail_as_user(error)
        hint = f"; did you mean {name.removesuffix('.py')}:{attribute}?" if name.endswith(".py") else ""
        raise Failure(f"there is no module {error.name!r}{hint}") from None
    except Exception as error:
        _fail_as_user(error)
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise Failure(f"there is no {attribute} in the module {name}") from None
    return found


def _fail_as_user(error: Exception) -> NoReturn:
    """Print the traceback of the user's code, from its first frame on, and exit."""
    frames = error.__traceback__
    while frames and _is_importing(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)
    sys.exit(USERS_FAILURE)


def _is_importing(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


@contextlib.contextmanager
def _reloading(server: Server, directory: str) -> Iterator[None]:
    """Reload the server whenever a Python file below the directory changes, or any file below its `reload_dirs`."""
    others = list(server.settings.reload_dirs)
    for other in others:
        if not os.path.isdir(other):
            raise Failure(f"reload_dirs: {other!r} is not a directory")
    try:
        watcher = _core.Watcher(directory, others)
    except OSError as error:
        raise Failure(f"cannot watch {', '.join([directory, *others])}: {error}") from None
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            if changed := watcher.next(A_DAY):
                log.info("changed: %s", ", ".join(os.path.relpath(path, directory) for path in changed))
                # A server that is not running yet has not loaded the old code either.
                with contextlib.suppress(NotRunning):
                    server.reload()

    thread = threading.Thread(target=watch, name="hubbub-reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.close()
        thread.join()


# ---- talking to a running server -------------------------------------------------------------------------


def _talking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the server and the format of the answer."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Answer with JSON, for programs."),
        _option("control", "The path of the server's control socket, instead of its port."),
        _option("port", "The port of the server."),
    ):
        command = decorate(command)
    return command


def _address(port: str | None, control: str | None) -> dict[str, Any]:
    """Return the arguments for a `Publisher`: the path or port from an option, or else from a variable.

    Each variable that may be a mistyped setting is named in a line on standard error.
    """
    for complaint in environment.complaints():
        click.echo(f"hubbub: {complaint}", err=True)
    if port and control:
        raise click.UsageError("give --port or --control, not both")
    options = {name: text for name, text in (("port", port), ("control", control)) if text}
    # A port given as an option beats a variable that names a path.
    names = ("port",) if port else ("port", "control")
    variables = {variable: os.environ.get(variable, "") for variable in (SETTINGS[name].variable for name in names)}
    try:
        settings = Settings.load({}, environ=variables, options=options)
    except SettingsError as error:
        raise Failure(str(error)) from None
    if settings.control is None:
        raise Failure("no control socket to connect to: give --control or --port")
    return {"port": settings.port} if settings.control == "auto" else {"path": settings.control}


@contextlib.contextmanager
def _server(port: str | None, control: str | None) -> Iterator[Publisher]:
    """Connect to the server; errors are reported in one line."""
    with _telling_errors(), Publisher(**_address(port, control)) as publisher:
        yield publisher


@contextlib.contextmanager
def _telling_errors() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise Failure(str(error)) from None
    except (ValueError, TypeError) as error:
        # The text, the topic, the code or the reason cannot be sent.
        raise click.UsageError(str(error)) from None


def _content(text: str) -> str:
    """Return the text to send; for `-`, read it unchanged from standard input."""
    if text != "-":
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.UsageError("TEXT is not UTF-8") from None
        return text
    # Python has no such stream if the descriptor is closed.
    if not sys.stdin:
        raise Failure("cannot read standard input: it is closed")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise Failure(f"standard input is not UTF-8: {error}") from None
    except OSError as error:
        raise Failure(f"cannot read standard input: {error.strerror}") from None


def _value(text: str, is_json: bool) -> Any:
    """Return what to send: the text, or the value that it holds as JSON, which is sent as compact JSON."""
    content = _content(text)
    if not is_json:
        return content
    try:
        value = STANDARD.decode(content)
    except ValueError as error:
        if isinstance(error.__cause__, UnicodeEncodeError):
            raise click.UsageError("TEXT has a lone surrogate, which UTF-8 cannot express") from None
        raise click.UsageError(f"TEXT is {error}") from None
    if not isinstance(value, dict | list):
        raise click.UsageError(f"TEXT must be a JSON object or array, not {type(value).__name__}")
    return value


def _sending(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that send TEXT."""
    is_json = click.option("--json-data", is_flag=True, help="TEXT is a JSON object or array; send it compactly.")
    return is_json(_talking(command))


def _print(text: str) -> None:
    """Print a line of the answer."""
    # Python has no such stream if the descriptor is closed; click would print nothing.
    if not sys.stdout:
        raise Failure("cannot write to standard output: it is closed")
    try:
        click.echo(text)
    except OSError as error:
        # click itself ends the command, silently, if the reader of a pipe has gone.
        if error.errno == errno.EPIPE:
            raise
        # Python tries to write the rest at its end. That must not fail again.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Failure(f"cannot write to standard output: {error.strerror}") from None


def _answer(as_json: bool, **values: Any) -> None:
    """Print the result as JSON for programs; people see a message only if something goes wrong."""
    if as_json:
        _print(json.dumps(values))


@main.command()
@click.argument("fd", type=int)
@click.argument("text")
@_sending
def push(fd: int, text: str, json_data: bool, port: str | None, control: str | None, as_json: bool) -> None:
    """Send TEXT to the connection FD; if TEXT is -, read it from standard input."""
    content = _value(text, json_data)
    with _server(port, control) as server:
        queued = server.push(fd, content)
    _answer(as_json, queued=queued)
    if not queued:
        raise Failure(f"not sent: there is no open connection {fd}, or its queue is full")


@main.command()
@click.argument("topic")
@click.argument("text")
@click.option("--key", help='Subscribers that lag get only the newest message of a key, if the topic says "latest".')
@_sending
def publish(
    topic: str, text: str, key: str | None, json_data: bool, port: str | None, control: str | None, as_json: bool
) -> None:
    """Send TEXT to all subscribers of TOPIC; if TEXT is -, read it from standard input."""
    content = _value(text, json_data)
    with _server(port, control) as server:
        server.publish(topic, content, key=key)
    _answer(as_json, sent=True)


@main.command()
@click.argument("text")
@_sending
def broadcast(text: str, json_data: bool, port: str | None, control: str | None, as_json: bool) -> None:
    """Send TEXT to all connections; if TEXT is -, read it from standard input."""
    content = _value(text, json_data)
    with _server(port, control) as server:
        server.broadcast(content)
    _answer(as_json, sent=True)


@main.command()
@click.argument("fd", type=int)
@click.option(
    "--code", default=1000, show_default=True, help="The close code: 1000 to 1003, 1007 to 1014, 3000 to 4999."
)
@click.option("--reason", default="", help="The reason, at most 123 bytes.")
@_talking
def disconnect(fd: int, code: int, reason: str, port: str | None, control: str | None, as_json: bool) -> None:
    """Close the connection FD."""
    with _server(port, control) as server:
        closing = server.disconnect(fd, code, reason)
    _answer(as_json, closing=closing)
    if not closing:
        raise Failure(f"there is no open connection {fd}")


def _everywhere(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that asks all hosts; it may also come before the name of the command."""

    def given(context: click.Context, option: click.Parameter, value: bool) -> bool:
        return value or bool(context.obj)

    text = "Ask all hosts, if the server has a broker; if some are silent, say so, with exit status 1."
    return click.option("--all-hosts", is_flag=True, callback=given, help=text)(command)


def _ask_all_hosts(port: str | None, control: str | None, ask: Callable[[AsyncPublisher], Coroutine[Any, Any, T]]) -> T:
    """Connect to the server, and return what `ask` returns; errors are reported in one line."""

    async def connect_and_ask(address: dict[str, Any]) -> T:
        async with AsyncPublisher(**address) as server:
            return await ask(server)

    with _telling_errors():
        return asyncio.run(connect_and_ask(_address(port, control)))


def _tell_silent(silent: Sequence[int]) -> None:
    """Fail if what was printed is not complete."""
    if silent:
        hosts = f"host {silent[0]}" if len(silent) == 1 else f"hosts {', '.join(map(str, silent))}"
        raise Failure(
            f"{hosts} did not answer in time: what {'it' if len(silent) == 1 else 'they'} would add is missing"
        )


@main.command()
@_everywhere
@_talking
def connections(port: str | None, control: str | None, as_json: bool, all_hosts: bool) -> None:
    """List all open connections."""
    silent: Sequence[int] = ()
    if all_hosts:
        found, silent = _ask_all_hosts(port, control, _connections_of_all_hosts)
    else:
        found = _ask_all_hosts(port, control, _connections_of_one_host)
    if as_json:
        listed = [info._asdict() for info in found]
        _print(json.dumps({"connections": listed, "silent": silent} if all_hosts else listed))
        _tell_silent(silent)
        return
    now = time.time()
    header = ["fd", "worker", "client", "path", "topics", "open for", "silent for", "latency"]
    header += ["received", "sent", "bytes in", "bytes out", "queued"]
    rows = [
        [
            str(info.fd),
            str(info.worker_id),
            shown_client(info.client),
            shown(info.path),
            f"{info.topics:,}",
            shown_seconds(now - info.opened_at),
            shown_seconds(now - info.last_received_at),
            "-" if info.latency is None else f"{info.latency * 1000:,.1f} ms",
            f"{info.messages_in:,}",
            f"{info.messages_out:,}",
            shown_bytes(info.bytes_in),
            shown_bytes(info.bytes_out),
            shown_bytes(info.queued_bytes),
        ]
        for info in found
    ]
    print_table([header, *rows], left={2, 3})
    _print(shown_count(len(found), "connection"))
    _tell_silent(silent)


async def _connections_of_one_host(server: AsyncPublisher) -> list[ConnectionInfo]:
    return await _details(server.info, await server.connections())


async def _connections_of_all_hosts(server: AsyncPublisher) -> tuple[list[ConnectionInfo], list[int]]:
    ids = await server._cluster.connections()
    return await _details(server._cluster.info, ids), list(ids.silent)


async def _details(
    info: Callable[[int], Coroutine[Any, Any, ConnectionInfo | None]], ids: Sequence[int]
) -> list[ConnectionInfo]:
    """Return details of connections, sorted by id; those that end meanwhile are left out."""
    ids = sorted(ids)
    found: list[ConnectionInfo | None] = []
    for begin in range(0, len(ids), MAX_QUESTIONS):
        found += await asyncio.gather(*map(info, ids[begin : begin + MAX_QUESTIONS]))
    return [each for each in found if each]


def _limited(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that limits a list."""
    option = click.option("--limit", type=int, default=1000, show_default=True, help="The most to list, 1 or above.")
    return option(command)


@main.command()
@click.option("--prefix", default="", help="List only topics whose names begin with this.")
@click.option("--after", default="", metavar="TOPIC", help="List only topics that come after this one: the next page.")
@_limited
@_everywhere
@_talking
def topics(
    prefix: str, after: str, limit: int, port: str | None, control: str | None, as_json: bool, all_hosts: bool
) -> None:
    """List the topics that have subscribers, in order, and how many."""
    silent: Sequence[int] = ()
    if all_hosts:
        found, silent = _ask_all_hosts(
            port, control, lambda server: server._cluster._list_topics(listing.topics(limit, after), prefix)
        )
    else:
        with _server(port, control) as server:
            found = server._list_topics(listing.topics(limit, after), prefix)
    if as_json:
        told = {"silent": silent} if all_hosts else {}
        _answer(as_json, topics=dict(found.entries), next=found.after if found.goes_on else None, **told)
        _tell_silent(silent)
        return
    # Clients may have chosen the names.
    rows = [[f"{count:,}", shown(topic)] for topic, count in found.entries]
    print_table([["subscribers", "topic"], *rows], left={1})
    _tell_count(found, "topic")
    _tell_silent(silent)


@main.command()
@click.argument("topic")
@click.option("--after", type=int, default=0, metavar="FD", help="List only ids above this one: the next page.")
@_limited
@_everywhere
@_talking
def members(
    topic: str, after: int, limit: int, port: str | None, control: str | None, as_json: bool, all_hosts: bool
) -> None:
    """List the connections that are subscribed to TOPIC, in the order of their ids."""
    silent: Sequence[int] = ()
    if all_hosts:
        found, silent = _ask_all_hosts(
            port, control, lambda server: server._cluster._list_members(listing.members(limit, after), topic)
        )
    else:
        with _server(port, control) as server:
            found = server._list_members(listing.members(limit, after), topic)
    if as_json:
        told = {"silent": silent} if all_hosts else {}
        _answer(as_json, members=found.entries, next=found.after if found.goes_on else None, **told)
        _tell_silent(silent)
        return
    print_table([["fd"], *([str(fd)] for fd in found.entries)], left=set())
    _tell_count(found, "member")
    _tell_silent(silent)


@main.command()
@click.argument("topic")
@click.option("--after", metavar="EPOCH:OFFSET", help="List only messages after this position: the next page.")
@click.option("--newest-first", is_flag=True, help="Begin with the newest message.")
@_limited
@_talking
def history(
    topic: str,
    after: str | None,
    newest_first: bool,
    limit: int,
    port: str | None,
    control: str | None,
    as_json: bool,
) -> None:
    """List the messages that TOPIC keeps."""
    since = None if after is None else _position(after)
    with _server(port, control) as server:
        found = server._read(Reading(limit, since, newest_first=newest_first), topic)
    messages, position = found.result().messages, found.result().position
    following = found.last if found.goes_on and not newest_first else None
    following_text = f"{following.epoch}:{following.offset}" if following else None
    if as_json:
        _answer(as_json, messages=[*map(_as_object, messages)], position=position, next=following_text)
        return
    rows = [[f"{message.offset:,}", shown_time(message.time), shown_data(message.data)] for message in messages]
    print_table([["offset", "time", "message"], *rows], left={1, 2})
    line = shown_count(len(messages), "message")
    _print(f"{line}; for the next ones add --after={following_text}" if following_text else line)


def _position(text: str) -> tuple[str, int]:
    """Return the position that an option names."""
    epoch, colon, offset = text.rpartition(":")
    if not (colon and offset.isascii() and offset.isdecimal()):
        raise click.UsageError(f"--after must be EPOCH:OFFSET, as this command prints it, not {text!r}")
    return epoch, int(offset[:MAX_DIGITS])


def _as_object(message: Message) -> dict[str, Any]:
    """Return a message for programs; JSON has no bytes."""
    data = message.data
    content = {"data": data} if isinstance(data, str) else {"base64": base64.b64encode(data).decode()}
    return {"offset": message.offset, "time": message.time, **content}


def _tell_count(found: listing.Listing[Any, Any], name: str) -> None:
    """Print how many there are, and how to get the next ones."""
    line = shown_count(len(found.entries), name)
    if found.goes_on:
        after = str(found.after)
        if after.isprintable():
            line += f"; for the next ones add --after={shlex.quote(after)}"
        else:
            line += "; for the next ones add --json, which also gives the argument for --after"
    _print(line)


@main.command()
@_everywhere
@_talking
def stats(port: str | None, control: str | None, as_json: bool, all_hosts: bool) -> None:
    """Show the server's statistics since its start."""
    silent: Sequence[int] = ()
    counted: Mapping[str, Any]
    parts: list[tuple[str, Mapping[str, Any]]]
    if all_hosts:
        counted = found = _ask_all_hosts(port, control, lambda server: server._cluster.stats())
        silent = found.silent
        parts = [(f"host {host['host']}", host) for host in found["hosts"]]
    else:
        with _server(port, control) as server:
            counted = own = server.stats()
        parts = [(f"worker {worker['worker_id']}", worker) for worker in own["workers"]]
    if as_json:
        _print(json.dumps({**counted, "silent": silent} if all_hosts else counted))
        _tell_silent(silent)
        return
    # Without any answer there is nothing to show.
    columns = [stats_column(title, part) for title, part in [("all", counted), *parts] if "started_at" in part]
    names = ["", "running for", *(name.replace("_", " ") for name in countable(counted))]
    for part in fitting(names, columns, shutil.get_terminal_size().columns):
        print_table(list(zip(names, *part, strict=True)), left={0})
    _tell_silent(silent)


@main.command()
@_talking
def hosts(port: str | None, control: str | None, as_json: bool) -> None:
    """List the hosts that are one server with this one, through its broker."""
    with _server(port, control) as server:
        found = server.hosts()
    if as_json:
        _print(json.dumps([dataclasses.asdict(host) for host in found]))
        return
    now = time.time()
    rows = [
        [
            str(host.number),
            shown(host.name),
            shown_seconds(now - host.started_at),
            f"{host.connections:,}",
            f"{host.age:.1f} s ago",
        ]
        for host in found
    ]
    print_table([["number", "name", "running for", "connections", "heard from"], *rows], left={1})
    _print(shown_count(len(found), "host") if found else "none: the server has no broker, or has not joined yet")


@main.command()
@click.option(
    "--seconds",
    type=float,
    default=30,
    show_default=True,
    help="The time for all connections together, 0 to 86,400. The server stops after it.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return only once the server has stopped.")
@_talking
def drain(seconds: float, wait: bool, port: str | None, control: str | None, as_json: bool) -> None:
    """Send all clients away, evenly spread over some seconds, and stop the server.

    Meanwhile handshakes get 503, and so does the health check, so that load balancers choose other servers. Connections
    are closed with 1012, upon which clients connect again.
    """
    with _server(port, control) as server:
        server.drain(seconds)
        if wait:
            server._wait_until_stopped()
    _answer(as_json, stopped=wait)


# ---- for people ------------------------------------------------------------------------------------------


def countable(counted: Mapping[str, Any]) -> list[str]:
    """Return the names of the counters."""
    return [name for name in counted if name not in ("started_at", "workers", "worker_id", "hosts", "host")]


def stats_column(title: str, counted: Mapping[str, Any]) -> list[str]:
    """Return the cells of a column: the counters of the whole server or of one worker."""
    cells = [title, shown_seconds(time.time() - counted["started_at"])]
    for name in countable(counted):
        cells.append((shown_bytes if "bytes" in name else "{:,}".format)(counted[name]))
    return cells


def fitting(names: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> Iterator[Sequence[Sequence[str]]]:
    """Yield the columns in groups that, together with the names, are no wider than `width` if possible."""
    left = width - max(map(len, names))
    part: list[Sequence[str]] = []
    used = 0
    for column in columns:
        wide = 2 + max(map(len, column))
        if part and used + wide > left:
            yield part
            part, used = [], 0
        part.append(column)
        used += wide
    yield part


def print_table(rows: Sequence[Sequence[str]], left: set[int]) -> None:
    """Print rows of equal length as columns; the columns in `left` are left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        _print("  ".join(cells).rstrip())


def shown_count(count: int, name: str) -> str:
    """Return a number of things, with their name."""
    return f"{count:,} {name if count == 1 else name + 's'}"


def shown_time(seconds: float) -> str:
    """Return a time of this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def shown_data(data: str | bytes) -> str:
    """Return what fits into a line, in a safe form: clients may have chosen it."""
    return (
        shown(data) if isinstance(data, str) else repr(data[:MAX_SHOWN_BYTES]) + "..." * (len(data) > MAX_SHOWN_BYTES)
    )


def shown_bytes(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    size = count / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if size < 999.95:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def shown_seconds(seconds: float) -> str:
    """Return a duration in its two largest units."""
    left = max(int(seconds), 0)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
