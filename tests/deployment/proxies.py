"""Proxies in front of servers, as the docs configure them, on ports of the loopback."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from document import snippet, with_other_places

from ports import free_port

PATIENCE = 20.0

Installed = Callable[..., str]
"""The fixture that finds programs."""

# The rest of nginx.conf around the snippet: one process, run by us, and no files outside the directory.
NGINX_CONF = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{snippet}
}}
"""

# The beginning of the Caddyfile: Caddy serves only the site, and only on the loopback.
CADDY_OPTIONS = """\
{
	admin off
	default_bind 127.0.0.1
}
"""


class Front(NamedTuple):
    """A proxy in front of a server."""

    http: int
    https: int | None
    """Their ports; `None` if it does not use TLS here."""
    certificate: ssl.SSLContext | None
    """The certificate that a client must trust."""


@contextlib.asynccontextmanager
async def nginx(installed: Installed, directory: Path, upstream: int) -> AsyncIterator[Front]:
    """Run nginx in front of a port."""
    http, https = free_port(), free_port()
    certificate, key = await self_signed(installed("openssl"), directory)
    text = with_other_places(
        snippet("nginx"),
        {
            "listen 80;": f"listen 127.0.0.1:{http};",
            "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl;",
            "http://127.0.0.1:9501;": f"http://127.0.0.1:{upstream};",
            "/etc/ssl/certs/chat.example.com.pem": str(certificate),
            "/etc/ssl/private/chat.example.com.key": str(key),
        },
    )
    async with running(nginx_command(installed, directory, text), http, directory):
        yield Front(http, https, ssl.create_default_context(cafile=certificate))


def nginx_command(installed: Installed, directory: Path, text: str) -> list[str]:
    """Return the command that runs nginx with a snippet of its configuration."""
    conf = directory / "nginx.conf"
    conf.write_text(NGINX_CONF.format(snippet=text))
    return [installed("nginx"), "-p", str(directory), "-c", str(conf), "-e", "stderr"]


@contextlib.asynccontextmanager
async def nginx_of_hosts(installed: Installed, directory: Path, first: int, second: int) -> AsyncIterator[int]:
    """Run nginx in front of two hosts, as docs/hosts.md configures it; yield its port."""
    http = free_port()
    places = {
        "listen 80;": f"listen 127.0.0.1:{http};",
        "10.0.0.11:9501": f"127.0.0.1:{first}",
        "10.0.0.12:9501": f"127.0.0.1:{second}",
    }
    text = with_other_places(snippet("nginx", "hosts.md"), places)
    async with running(nginx_command(installed, directory, text), http, directory):
        yield http


@contextlib.asynccontextmanager
async def haproxy_of_hosts(installed: Installed, directory: Path, first: int, second: int) -> AsyncIterator[int]:
    """Run HAProxy in front of two hosts, as docs/hosts.md configures it; yield its port."""
    http = free_port()
    places = {
        "bind :80": f"bind 127.0.0.1:{http}",
        "10.0.0.11:9501": f"127.0.0.1:{first}",
        "10.0.0.12:9501": f"127.0.0.1:{second}",
    }
    conf = directory / "haproxy.cfg"
    conf.write_text(with_other_places(snippet("haproxy", "hosts.md"), places))
    async with running([installed("haproxy"), "-db", "-f", str(conf)], http, directory):
        yield http


@contextlib.asynccontextmanager
async def caddy(installed: Installed, directory: Path, upstream: int) -> AsyncIterator[Front]:
    """Run Caddy in front of a port, without TLS, for which it would request a certificate."""
    http = free_port()
    text = with_other_places(
        snippet("caddy"),
        {"chat.example.com {": f"http://127.0.0.1:{http} {{", "127.0.0.1:9501": f"127.0.0.1:{upstream}"},
    )
    file = directory / "Caddyfile"
    file.write_text(CADDY_OPTIONS + text)
    command = [installed("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
    async with running(command, http, directory):
        yield Front(http, None, None)


async def self_signed(openssl: str, directory: Path) -> tuple[Path, Path]:
    """Make a certificate for the loopback, and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    kind = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    name = "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    making = await asyncio.create_subprocess_exec(
        openssl,
        *kind.split(),
        *name.split(),
        *("-out", certificate, "-keyout", key),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await making.communicate()
    assert making.returncode == 0, errors.decode()
    return certificate, key


@contextlib.asynccontextmanager
async def running(command: list[str], port: int, directory: Path) -> AsyncIterator[None]:
    """Run a proxy that listens on a port, and end it."""
    log = directory / "log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=errors,
            stderr=errors,
            cwd=directory,
            # Where Caddy stores its data.
            env=os.environ | dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(directory)),
        )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await accepts(port):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


async def accepts(port: int) -> bool:
    """Return whether anything listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
