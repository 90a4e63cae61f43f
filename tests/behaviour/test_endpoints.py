"""Endpoints: which of them serves a path, with which handlers and settings."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from application import KINDS, Note
from running import Running, Serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from hubbub import Accept, Endpoint, Frame, Refuse, Request, Response, Server


def register(endpoint: Endpoint, event: Any, handler: Callable[..., Any], *, threaded: bool = False) -> None:
    """Register a handler for an event whose name a type checker cannot know."""
    endpoint.on(event, handler, threaded=threaded)


def telling(endpoint: Endpoint | Server, note: Note, name: str) -> None:
    """Register handlers that note their arguments, and echo messages with their own name."""

    def on_message(server: Server, frame: Frame) -> None:
        server.push(frame.fd, f"{name}: {frame.data!r}")

    def on_request(server: Server, request: Request) -> str:
        return f"{name} {dict(request.path_params)}"

    endpoint.on("open", lambda server, request: note("open", name, dict(request.path_params)))
    endpoint.on("message", on_message)
    endpoint.on("close", lambda server, fd, code: note("close", name, code))
    endpoint.on("request", on_request)


def including(*paths: str, own: bool = False, **settings: Any) -> Any:
    """Return an application with endpoints at these paths, and with handlers of its own."""

    def application(server: Server, note: Note) -> None:
        for path in paths:
            endpoint = Endpoint(path, **settings)
            telling(endpoint, note, path)
            server.include(endpoint)
        if own:
            telling(server, note, "own")

    return application


async def status(running: Running, path: str, **options: Any) -> int:
    """Return the status of the answer to a handshake."""
    try:
        async with running.connect(path, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def page(running: Running, path: str) -> tuple[int, str]:
    """Return status and body of the answer to a plain request."""
    async with running.raw() as client:
        client.ask(path)
        answer = await client.answer()
        return answer.status, answer.body.decode()


async def test_each_path_has_handlers_of_its_own(serve: Serve) -> None:
    running = await serve(including("/chat/{room}", "/users/{id:int}", "/files/{name:path}", own=True))
    for path, name, parameters in (
        ("/chat/tea", "/chat/{room}", {"room": "tea"}),
        ("/users/7", "/users/{id:int}", {"id": 7}),
        ("/files/a/b", "/files/{name:path}", {"name": "a/b"}),
        ("/elsewhere", "own", {}),
    ):
        async with running.connect(path) as client:
            assert await running.noted() == ("open", name, parameters)
            await client.send("hello")
            assert await client.recv() == f"{name}: 'hello'"
            await client.send(b"bytes")
            assert await client.recv() == f"{name}: b'bytes'"
        assert await running.noted() == ("close", name, 1000)
        assert await page(running, path) == (200, f"{name} {parameters}")


async def test_connections_of_several_endpoints_do_not_mix(serve: Serve) -> None:
    paths = [f"/{number}" for number in range(20)]
    running = await serve(including(*paths))
    clients = [await running.connect(path) for path in paths * 2]
    for number in range(5):
        await asyncio.gather(*(client.send(f"{number}") for client in clients))
        answers = await asyncio.gather(*(client.recv() for client in clients))
        assert answers == [f"{path}: '{number}'" for path in paths * 2]
    await asyncio.gather(*(client.close() for client in clients))


async def test_the_first_that_matches_is_taken(serve: Serve) -> None:
    running = await serve(including("/a/b", "/{id:int}/b", "/{any}/b", "/{rest:path}"))
    for path, name in (
        ("/a/b", "/a/b"),
        ("/12/b", "/{id:int}/b"),
        ("/-12/b", "/{any}/b"),
        ("/a/c", "/{rest:path}"),
        ("/", "/{rest:path}"),
    ):
        async with running.connect(path):
            assert (await running.noted())[:2] == ("open", name)
        assert (await running.noted())[1] == name


async def test_where_none_matches_and_the_server_has_no_handlers_it_is_404(serve: Serve) -> None:
    running = await serve(including("/chat/{room}", "/users/{id:int}"))
    many = "1" * 10_000
    for path in (
        "/",
        "/chat",
        "/chat/",
        "/chat/a/b",
        "/chat/a%2Fb",
        "/chat/..",
        "/chat/%2e%2e",
        "/chat/%ff",
        "/Chat/a",
        "/users/-1",
        "/users/+1",
        "/users/%D9%A1",
        f"/users/{many}",
        "//chat/a",
    ):
        assert await status(running, path) == 404, path[:30]
        assert await page(running, path) == (404, "not found\n"), path[:30]
    assert not running.notes.all
    assert await status(running, "/users/007") == 101
    assert await running.noted() == ("open", "/users/{id:int}", {"id": 7})


async def test_a_server_with_handlers_of_one_kind_only_refuses_the_other(serve: Serve) -> None:
    def serves_pages(server: Server, note: Note) -> None:
        including("/chat")(server, note)
        server.on("request", lambda server, request: "own")

    def serves_websockets(server: Server, note: Note) -> None:
        including("/chat")(server, note)
        server.on("message", lambda server, frame: None)

    running = await serve(serves_pages)
    assert (await status(running, "/other"), await page(running, "/other")) == (404, (200, "own"))
    running = await serve(serves_websockets)
    assert (await status(running, "/other"), (await page(running, "/other"))[0]) == (101, 426)


async def test_an_endpoint_has_only_its_own_handlers(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        telling(server, note, "own")
        server.on("handshake", lambda server, request: note("handshake", request.path))
        for path, events in (("/silent", ("message",)), ("/page", ("request",)), ("/nothing", ())):
            endpoint = Endpoint(path)
            for event in events:
                register(endpoint, event, lambda server, value, path=path: note(path))
            server.include(endpoint)

    running = await serve(application)
    for path in ("/nothing", "/silent"):
        assert (await page(running, path))[0] == 426
        async with running.connect(path) as client:
            await client.send("hello")
            await (await client.ping())
    assert await page(running, "/page") == (404, "not found\n")
    # Its only handler is for plain requests.
    assert await status(running, "/page") == 404
    async with running.connect("/own"):
        expected: list[tuple[Any, ...]] = [("/silent",), ("/page",), ("handshake", "/own"), ("open", "own", {})]
        assert [await running.noted() for _ in expected] == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_handler_runs_in_order(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/{name}")

        def on(event: str, handler: Any) -> None:
            async def at_once(server: Server, value: Any) -> Any:
                return handler(server, value)

            async def later(server: Server, value: Any) -> Any:
                for _ in range(3):
                    await asyncio.sleep(0)
                return handler(server, value)

            runs = {"sync": handler, "async": at_once, "suspending": later, "threaded": handler}
            register(endpoint, event, runs[kind], threaded=kind == "threaded")

        on("handshake", lambda server, request: note("handshake", request.path_params["name"]))
        on("open", lambda server, request: note("open", request.path_params["name"]))
        on("message", lambda server, frame: note("message", frame.data))
        on("close", lambda server, fd: note("close"))
        on("request", lambda server, request: request.path_params["name"])
        server.include(endpoint)

    running = await serve(application)
    async with running.connect("/tea") as client:
        for number in range(5):
            await client.send(f"{number}")
    expected = [("handshake", "tea"), ("open", "tea"), *(("message", f"{number}") for number in range(5)), ("close",)]
    assert [await running.noted() for _ in expected] == expected
    assert await page(running, "/milk") == (200, "milk")


async def test_its_handshake_handler_decides(serve: Serve) -> None:
    answers = {
        "yes": None,
        "no": False,
        "later": Refuse(4000, "later"),
        "pay": Response("pay", 402),
        "protocol": Accept("b", {"X-More": "1"}),
    }

    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/{answer}", subprotocols=["c"])

        @endpoint.on("handshake")
        def on_handshake(server: Server, request: Request) -> Any:
            return answers[request.path_params["answer"]]

        server.include(endpoint)
        server.on("handshake", lambda server, request: Response(status=410))

    running = await serve(application)
    assert await status(running, "/yes") == 101
    assert await status(running, "/no") == 403
    assert await status(running, "/pay") == 402
    assert await status(running, "/unknown") == 500
    assert await status(running, "/not/matched") == 410
    async with running.connect("/later") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4000
    async with running.connect("/protocol", subprotocols=[Subprotocol("c"), Subprotocol("b")]) as client:
        assert client.subprotocol == "b"
        assert client.response
        assert client.response.headers["X-More"] == "1"
    async with running.connect("/yes", subprotocols=[Subprotocol("c"), Subprotocol("b")]) as client:
        assert client.subprotocol == "c"


async def test_a_failing_handler_is_logged_and_closes_its_connection(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        for path, kind in (("/sync", "def"), ("/async", "async"), ("/threaded", "threaded")):
            endpoint = Endpoint(path)

            def fails(server: Server, frame: Frame) -> None:
                raise LookupError(f"told {frame.data!r}")

            async def fails_later(server: Server, frame: Frame) -> None:
                await asyncio.sleep(0)
                fails(server, frame)

            endpoint.on("message", fails_later if kind == "async" else fails, threaded=kind == "threaded")
            server.include(endpoint)

    running = await serve(application)
    for path in ("/sync", "/async", "/threaded"):
        async with running.connect(path) as client:
            await client.send(path)
            await client.wait_closed()
            assert client.close_code == 1011
        await running.log.tells(f"LookupError: told '{path}'")


async def test_drain_is_called_at_the_endpoint(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/much")

        @endpoint.on("open")
        def on_open(server: Server, request: Request) -> None:
            server.push(request.fd, b"x" * 90_000)

        endpoint.on("drain", lambda server, fd: note("drained"))
        server.include(endpoint)
        server.on("drain", lambda server, fd: note("own"))

    # One message that takes more than half of the outbox, so that it does not matter how fast the client reads.
    running = await serve(application, send_queue_size=100_000)
    async with running.connect("/much") as client:
        await client.recv()
        assert await running.noted() == ("drained",)


# ---- settings ------------------------------------------------------------------------------------------


def with_settings(server: Server, note: Note) -> None:
    for path, settings in (
        ("/small", {"max_message_size": 10}),
        ("/large", {"max_message_size": 5000}),
        ("/app", {"origins": ["https://app.example.com"]}),
        ("/any", {"origins": "*"}),
        ("/spoken", {"subprotocols": ["b", "a"]}),
        ("/plain", {}),
    ):
        endpoint = Endpoint(path, **settings)
        telling(endpoint, note, path)
        server.include(endpoint)
    telling(server, note, "own")


async def test_max_message_size_is_that_of_the_endpoint(serve: Serve) -> None:
    running = await serve(with_settings, max_message_size=100)
    for path, most in (("/small", 10), ("/large", 5000), ("/plain", 100), ("/own", 100)):
        for message in (b"x" * most, [b"x" * (most - 1), b"x"]):
            async with running.connect(path) as client:
                await client.send(message)
                assert str(await client.recv()).count("x") == most
                await client.send([b"x" * most, b"x"] if isinstance(message, list) else b"x" * (most + 1))
                await client.wait_closed()
                assert client.close_code == 1009


async def test_a_compressed_message_may_not_grow_beyond_it(serve: Serve) -> None:
    running = await serve(with_settings, max_message_size=100_000, compression=True)
    async with running.connect("/large", compression="deflate") as client:
        await client.send("x" * 5000)
        assert str(await client.recv()).count("x") == 5000
        await client.send("x" * 5001)
        await client.wait_closed()
        assert client.close_code == 1009


async def test_origins_are_those_of_the_endpoint(serve: Serve) -> None:
    running = await serve(with_settings, origins=["https://other.example.com"])
    app, other = Origin("https://app.example.com"), Origin("https://other.example.com")
    for path, origin, expected in (
        ("/app", app, 101),
        ("/app", other, 403),
        ("/any", other, 101),
        ("/plain", other, 101),
        ("/plain", app, 403),
        ("/own", other, 101),
        ("/own", app, 403),
    ):
        assert await status(running, path, origin=origin) == expected, path


async def test_a_path_that_is_not_there_is_404_whatever_the_origin(serve: Serve) -> None:
    running = await serve(including("/chat"))
    assert await status(running, "/other", origin=Origin("https://evil.example.com")) == 404
    assert await status(running, "/chat", origin=Origin("https://evil.example.com")) == 403


async def test_subprotocols_are_those_of_the_endpoint(serve: Serve) -> None:
    running = await serve(with_settings, subprotocols=["a"])
    offered = [Subprotocol("a"), Subprotocol("b")]
    for path, chosen in (("/spoken", "b"), ("/plain", "a"), ("/own", "a")):
        async with running.connect(path, subprotocols=offered) as client:
            assert client.subprotocol == chosen


# ---- unchanged behaviour -------------------------------------------------------------------------------


async def test_the_health_path_comes_first(serve: Serve) -> None:
    running = await serve(including("/{rest:path}"))
    assert await page(running, "/health") == (200, "ok")
    assert await page(running, "/healthy") == (200, "/{rest:path} {'rest': 'healthy'}")


async def test_allowed_hosts_come_before_the_path(serve: Serve) -> None:
    running = await serve(including("/chat"), allowed_hosts=["app.example.com"])
    for path in ("/chat", "/other"):
        assert (await page(running, path))[0] == 400
        assert await status(running, path) == 400


async def test_a_full_server_is_503(serve: Serve) -> None:
    running = await serve(including("/chat"), max_connections=1)
    async with running.connect("/chat"):
        assert await status(running, "/chat") == 503
        assert await status(running, "/other") == 404
        assert (await page(running, "/chat"))[0] == 200


async def test_the_access_log_has_every_path(serve: Serve) -> None:
    running = await serve(including("/chat/{room}"), access_log=True)
    assert await status(running, "/chat/tea") == 101
    assert await running.noted() == ("open", "/chat/{room}", {"room": "tea"})
    assert await status(running, "/other") == 404
    await page(running, "/chat/milk")
    for line in ("GET /chat/tea", "GET /other", "GET /chat/milk"):
        await running.log.tells(line)


async def test_the_next_request_on_a_connection_may_be_for_another_endpoint(serve: Serve) -> None:
    running = await serve(including("/a", "/b/{x}"))
    async with running.raw() as client:
        for path, body in (("/a", b"/a {}"), ("/b/1", b"/b/{x} {'x': '1'}"), ("/c", b"not found\n"), ("/a", b"/a {}")):
            client.ask(path)
            assert (await client.answer()).body == body
        client.send("POST /b/2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.answer()).body == b"/b/{x} {'x': '2'}"
        assert (await client.upgrade(path="/a")).status == 101


async def test_the_path_is_that_of_an_absolute_target_too(serve: Serve) -> None:
    running = await serve(including("/a/{x}"))
    async with running.raw() as client:
        client.ask("http://localhost/a/%C3%A9?y=1")
        assert (await client.answer()).body.decode() == "/a/{x} {'x': 'é'}"


async def test_after_the_start_no_endpoint_and_no_handler_can_be_added(serve_here: Serve) -> None:
    endpoint = Endpoint("/chat")

    def application(server: Server, note: Note) -> None:
        server.include(endpoint)
        endpoint.on("message", lambda server, frame: None)

    running = await serve_here(application)

    def tries(server: Server, note: Note) -> None:
        with pytest.raises(RuntimeError, match="before the server starts"):
            server.include(Endpoint("/late"))
        with pytest.raises(RuntimeError, match="before the server starts"):
            endpoint.on("open", lambda server, request: None)

    await running.server.run(tries)
    await running.stop()
    endpoint.on("open", lambda server, request: None)


async def test_an_endpoint_serves_two_servers(serve_here: Serve) -> None:
    endpoint = Endpoint("/chat")
    endpoint.on("message", lambda server, frame: server.push(frame.fd, f"{server.settings.max_message_size}"))

    def application(server: Server, note: Note) -> None:
        server.include(endpoint)

    first = await serve_here(application, max_message_size=111)
    # An endpoint's handlers cannot be changed while a server that includes it runs.
    with pytest.raises(RuntimeError):
        endpoint.on("open", lambda server, request: None)
    second = await serve_here(application, max_message_size=222)
    for running, size in ((first, "111"), (second, "222")):
        async with running.connect("/chat") as client:
            await client.send("size?")
            assert await client.recv() == size
