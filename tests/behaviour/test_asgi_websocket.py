"""WebSockets of an ASGI application: what it receives, what the client gets, and how connections end."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from application import Note
from asgi_application import App, MakeApp, Receive, Scope, Send, accept, answer
from raw_client import KEY
from running import ServeApp, time_passes
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import CloseCode, Opcode, Server, current_server

BIG = bytes(1024 * 1024)


def echo(note: Note) -> App:
    """Make an application that sends back what it receives, and notes the end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            await send(dict(message) | {"type": "websocket.send"})
        note(message["type"], message["code"], message.get("reason"))

    return app


def accepts(**options: Any) -> MakeApp:
    """Return what makes an application that accepts with some options, and notes the disconnect."""

    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send, **options)
            note(scope["subprotocols"])
            await receive()

        return app

    return make


# ---- the handshake ----------------------------------------------------------------------------------------------


async def test_the_scope_has_what_asgi_names(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note({name: value for name, value in scope.items() if name != "state"})
            await accept(receive, send)
            await receive()

        return app

    running = await serve_app(make, root_path="/mounted")
    async with running.raw() as client:
        offer = "Sec-WebSocket-Protocol: one, two"
        assert (await client.upgrade(offer, path="/a%20b?c=d")).status == 101
        (scope,) = await running.noted()
        address = client.address.split(":")
    assert (scope["type"], scope["http_version"]) == ("websocket", "1.1")
    assert scope["asgi"]["version"] == "3.0"
    assert scope["scheme"] == ("wss" if running.tls else "ws")
    assert (scope["root_path"], scope["path"]) == ("/mounted", "/mounted/a b")
    assert (scope["raw_path"], scope["query_string"]) == (b"/mounted/a%20b", b"c=d")
    assert scope["subprotocols"] == ["one", "two"]
    assert (b"sec-websocket-key", KEY.encode()) in [tuple(pair) for pair in scope["headers"]]
    host, port = scope["client"]
    assert [host, *([str(port)] if port else [])] == address
    assert "method" not in scope
    assert "websocket.http.response" in scope["extensions"]


async def test_a_trusted_proxy_names_the_client_and_the_scheme(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note(tuple(scope["client"]), scope["scheme"])
            await accept(receive, send)
            note(scope["extensions"]["hubbub"]["fd"])
            await receive()

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        headers = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
        assert (await client.upgrade(*headers)).status == 101
        assert await running.noted() == (("192.0.2.7", 0), "wss")
        info = await running.server.info(await running.opened())
        assert info.client == ("192.0.2.7", 0)


async def test_the_application_chooses_the_subprotocol(serve_app: ServeApp) -> None:
    running = await serve_app(accepts(subprotocol="two"))
    async with running.connect(subprotocols=["one", "two"]) as client:
        assert client.subprotocol == "two"
    assert await running.noted() == (["one", "two"],)


async def test_without_a_choice_there_is_no_subprotocol(serve_app: ServeApp) -> None:
    running = await serve_app(accepts())
    async with running.connect(subprotocols=["one", "two"]) as client:
        assert client.subprotocol is None


async def test_a_subprotocol_that_was_not_offered_is_the_applications_failure(serve_app: ServeApp) -> None:
    running = await serve_app(accepts(subprotocol="three"))
    with pytest.raises(InvalidStatus) as refused:
        async with running.connect(subprotocols=["one"]):
            pass
    assert refused.value.response.status_code == 500
    await running.log.tells("'three', which was not offered")


async def test_headers_of_accept_are_sent(serve_app: ServeApp) -> None:
    running = await serve_app(accepts(headers=[(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]))
    async with running.connect() as client:
        assert client.response
        headers = client.response.headers
        assert headers["x-one"] == "1"
        assert headers.get_all("set-cookie") == ["a=b", "c=d"]


async def test_a_close_before_accept_is_403(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 4000})
            message = await receive()
            note(message["type"], message["code"])

        return app

    running = await serve_app(make)
    with pytest.raises(InvalidStatus) as refused:
        async with running.connect():
            pass
    assert refused.value.response.status_code == 403
    assert await running.noted() == ("websocket.disconnect", 1006)


async def test_an_application_may_refuse_with_an_answer_of_its_own(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            headers = [(b"x-why", b"not you"), (b"content-type", b"text/plain")]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"log ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"in"})
            note((await receive())["type"])

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        refused = await client.upgrade()
        assert (refused.status, refused.headers["x-why"], refused.body) == (401, "not you", b"log in")
        assert await client.rest() == b""
    assert await running.noted() == ("websocket.disconnect",)


WRONG: dict[str, list[dict[str, Any]]] = {
    "status": [{"type": "websocket.http.response.start", "status": 101}, {"type": "websocket.http.response.body"}],
    "large-status": [
        {"type": "websocket.http.response.start", "status": 70_000},
        {"type": "websocket.http.response.body"},
    ],
    "header": [
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x", b"\n")]},
        {"type": "websocket.http.response.body"},
    ],
    "accept-header": [{"type": "websocket.accept", "headers": [(b"x\r\n", b"1")]}],
    "not-accepted": [{"type": "websocket.send", "text": "too early"}],
    "unknown": [{"type": "websocket.nonsense"}],
    "not-ended": [{"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.accept"}],
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_event_before_accept_is_500(serve_app_here: ServeApp, what: str) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            for message in WRONG[what]:
                await send(message)

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 500
    await running.log.tells("the application failed")


async def test_an_exception_before_accept_is_500(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            raise LookupError("in the application")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 500
        assert await client.rest() == b""
    await running.log.tells("LookupError: in the application")


@pytest.mark.parametrize("begins", [False, True])
async def test_an_application_that_returns_without_an_answer_is_500(serve_app: ServeApp, begins: bool) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if begins:
                await send({"type": "websocket.http.response.start", "status": 401})

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 500
    await running.log.tells("returned without an answer to the handshake")


async def test_a_stop_refuses_handshakes_that_wait(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            note("asked")
            message = await receive()
            note(message["type"], message["code"])

        return app

    running = await serve_app(make, shutdown_timeout=50)
    async with running.raw() as client:
        client.ask_for_upgrade()
        assert await running.noted() == ("asked",)
        await asyncio.wait_for(running.stop(), 20)
        assert (await client.answer()).status == 503
    assert running.notes.all == [("asked",), ("websocket.disconnect", 1006)]


async def test_an_application_that_has_not_accepted_learns_that_the_client_has_left(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            note("asked")
            for _ in range(2):
                message = await receive()
                note(message["type"], message["code"])
            try:
                await send({"type": "websocket.accept"})
            except OSError:
                note("accept raises")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask_for_upgrade()
        assert await running.noted() == ("asked",)
    assert await running.noted() == ("websocket.disconnect", 1006)
    assert await running.noted() == ("websocket.disconnect", 1006)
    assert await running.noted() == ("accept raises",)


async def test_frames_that_follow_the_handshake_at_once_wait_for_the_accept(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("asked")
            await note.goes_on.wait()
            await accept(receive, send)
            note((await receive())["text"])

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask_for_upgrade()
        client.send_frame(Opcode.TEXT, b"early")
        assert await running.noted() == ("asked",)
        await running.go_on()
        assert (await client.answer()).status == 101
        assert await running.noted() == ("early",)


# ---- messages ---------------------------------------------------------------------------------------------------


async def test_text_and_binary_messages(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.connect() as client:
        for data in ("text", "é", "", b"\x00\xff", b"", "long" * 10_000, BIG):
            await client.send(data)
            assert await client.recv() == data


async def test_fragments_arrive_as_one_message(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.connect() as client:
        await client.send(["one ", "two ", "three"])
        assert await client.recv() == "one two three"


async def test_an_event_may_have_both_keys_if_one_is_none(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send, subprotocol=None, headers=[])
            await send({"type": "websocket.send", "text": None, "bytes": b"binary"})
            await send({"type": "websocket.send", "text": "text", "bytes": None})
            await send({"type": "websocket.send", "bytes": bytearray(b"more")})

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        assert [await client.recv() for _ in range(3)] == [b"binary", "text", b"more"]


async def test_an_application_that_does_not_receive_is_not_flooded(serve_app: ServeApp) -> None:
    count = 100

    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            note("accepted")
            await note.goes_on.wait()
            for _ in range(count):
                assert len((await receive())["bytes"]) == len(BIG)
            note("received all")

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        assert await running.noted() == ("accepted",)
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(count):
                await client.send(BIG)
                sent += 1

        sending = asyncio.ensure_future(send_all())
        before = -1
        while sent != before:
            before = sent
            await time_passes(0.2)
        # The server holds a few of them, and the sockets as well.
        assert sent < 40
        await running.go_on()
        await sending
        assert await running.noted() == ("received all",)


async def test_many_small_messages_wait_too(serve_app: ServeApp) -> None:
    count = 5000

    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            for number in range(count):
                assert (await receive())["text"] == str(number)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            note("received all")

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        for number in range(count):
            await client.send(str(number))
        assert await running.noted() == ("received all",)


async def test_an_application_that_sends_waits_for_a_slow_client(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            count = 0
            with contextlib.suppress(OSError):
                while count < 1000:
                    await asyncio.wait_for(send({"type": "websocket.send", "bytes": BIG}), 0.2)
                    count += 1
            note(count < 100)

        return app

    running = await serve_app(make)
    async with running.raw(receive_buffer=4096) as client:
        assert (await client.upgrade()).status == 101
        assert await running.noted() == (True,)


async def test_an_application_that_waits_in_send_learns_that_the_client_has_left(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            while True:
                sending = asyncio.ensure_future(send({"type": "websocket.send", "bytes": BIG}))
                if not (await asyncio.wait([sending], timeout=0.2))[0]:
                    break
            note("waits")
            try:
                await sending
            except OSError:
                note("left")
            note((await receive())["code"])

        return app

    running = await serve_app(make)
    async with running.raw(receive_buffer=4096) as client:
        assert (await client.upgrade()).status == 101
        assert await running.noted() == ("waits",)
        client.reset()
    assert await running.noted() == ("left",)
    assert await running.noted() == (1006,)


# ---- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (4321, "é")])
async def test_the_clients_close_has_its_code_and_reason(serve_app: ServeApp, code: int, reason: str) -> None:
    running = await serve_app(echo)
    async with running.connect() as client:
        await client.close(code, reason)
    assert await running.noted() == ("websocket.disconnect", code, reason)


async def test_a_close_without_a_code_is_1005(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.send_frame(Opcode.CLOSE)
        assert (await running.noted())[:2] == ("websocket.disconnect", 1005)


async def test_only_a_broken_connection_is_1006(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.reset()
    assert (await running.noted())[:2] == ("websocket.disconnect", 1006)


async def test_messages_before_the_close_are_received_first(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            note("accepted")
            await note.goes_on.wait()
            note(*[(await receive()).get("text") for _ in range(3)])

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        assert await running.noted() == ("accepted",)
        await client.send("one")
        await client.send("two")
        closing = asyncio.ensure_future(client.close())
        await running.go_on()
        assert await running.noted() == ("one", "two", None)
        await closing


@pytest.mark.parametrize(("options", "code"), [({}, 1000), ({"code": 4001, "reason": "enough"}, 4001)])
async def test_the_applications_close_reaches_both_sides(
    serve_app: ServeApp, options: dict[str, Any], code: int
) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            await send({"type": "websocket.close", **options})
            for _ in range(2):
                message = await receive()
                note(message["type"], message["code"], message.get("reason"))
            try:
                await send({"type": "websocket.send", "text": "after the end"})
            except (OSError, RuntimeError):
                note("send raises")

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, options.get("reason", ""))
    for _ in range(2):
        assert await running.noted() == ("websocket.disconnect", code, options.get("reason", ""))
    assert await running.noted() == ("send raises",)


async def test_what_was_sent_before_the_close_arrives(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            for _ in range(20):
                await send({"type": "websocket.send", "bytes": BIG})
            await send({"type": "websocket.close"})

        return app

    running = await serve_app(make)
    async with running.connect(max_size=None) as client:
        assert [len(message) async for message in client] == [len(BIG)] * 20
    assert client.close_code == 1000


async def test_an_application_that_returns_closes_with_1000(serve_app: ServeApp) -> None:
    running = await serve_app(lambda note: accept_and_return)
    async with running.connect() as client:
        await client.wait_closed()
    assert client.close_code == 1000


async def accept_and_return(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)


async def test_an_exception_closes_with_1011(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            await receive()
            raise LookupError("in the application")

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        await client.send("fail")
        await client.wait_closed()
    assert client.close_code == CloseCode.INTERNAL_ERROR
    await running.log.tells("LookupError: in the application")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": 1},
        {"type": "websocket.close", "code": 1},
        {"type": "websocket.close", "code": 1006},
        {"type": "websocket.close", "reason": "x" * 124},
        {"type": "websocket.accept"},
        {"type": "http.response.start", "status": 200},
    ],
    ids=["nothing", "number", "small-code", "reserved-code", "long-reason", "twice", "http"],
)
async def test_a_wrong_event_closes_with_1011(serve_app_here: ServeApp, message: dict[str, Any]) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            await send(message)

        return app

    running = await serve_app_here(make)
    async with running.connect() as client:
        await client.wait_closed()
    assert client.close_code == CloseCode.INTERNAL_ERROR
    await running.log.tells("the application failed")


async def test_send_raises_oserror_after_the_disconnect(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            while (await receive())["type"] != "websocket.disconnect":
                pass
            for _ in range(2):
                try:
                    await send({"type": "websocket.send", "text": "too late"})
                except OSError:
                    note("raised")
            # Not caught by the application, it is no failure.
            await send({"type": "websocket.send", "text": "too late"})

        return app

    running = await serve_app(make)
    async with running.connect():
        pass
    assert await running.noted() == ("raised",)
    assert await running.noted() == ("raised",)
    await running.stop()
    assert "the application failed" not in running.log.text


async def test_an_application_may_close_what_its_client_has_closed(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            message = await receive()
            note(message["code"])
            await send({"type": "websocket.close", "code": 4000})
            try:
                await send({"type": "websocket.close", "code": 4000})
            except OSError:
                note("twice raises")
            note((await receive())["code"])

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        await client.close(4321)
    assert [await running.noted() for _ in range(3)] == [(4321,), ("twice raises",), (4321,)]


async def test_a_client_that_breaks_the_protocol_is_told_and_the_application_too(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.send_frame(Opcode.TEXT, b"\xff")
        assert (await client.close_frame())[0] == 1007
    assert (await running.noted())[0] == "websocket.disconnect"


async def test_a_stop_closes_with_1001(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.connect() as client:
        await client.send("open")
        assert await client.recv() == "open"
        stopping = asyncio.ensure_future(running.stop())
        await client.wait_closed()
        assert client.close_code == CloseCode.GOING_AWAY
        await stopping
    assert running.notes.all[0][:2] == ("websocket.disconnect", 1001)


async def test_a_stop_does_not_wait_for_ever_for_an_application_that_works_on(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                note("cancelled")

        return app

    running = await serve_app(make, shutdown_timeout=0.2)
    async with running.connect():
        await running.stop()
    assert running.notes.all == [("cancelled",)]


# ---- beside everything else -------------------------------------------------------------------------------------


async def test_a_request_of_the_application_pushes_to_its_websocket(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await accept(receive, send)
                note(scope["extensions"]["hubbub"]["fd"])
                note((await receive())["type"])
            else:
                fd = int(scope["query_string"])
                pushed = current_server().push(fd, "from a request")
                await answer(send, json.dumps(pushed).encode())

        return app

    running = await serve_app(make)
    async with running.connect() as websocket:
        fd = await running.opened()
        assert await running.server.exists(fd)
        for _ in range(len(running.workers)):
            async with running.raw() as client:
                client.ask(f"/?{fd}")
                assert (await client.answer()).body == b"true"
            assert await websocket.recv() == "from a request"
    assert await running.noted() == ("websocket.disconnect",)


async def test_the_server_can_subscribe_and_disconnect_an_applications_websocket(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            fd = scope["extensions"]["hubbub"]["fd"]
            current_server().subscribe(fd, "news")
            note(fd)
            message = await receive()
            note(message["type"], message["code"])

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        fd = await running.opened()
        owner = await running.owner(fd)
        await owner.publish("news", "published")
        assert await client.recv() == "published"
        await running.server.disconnect(fd, 4000, "out")
        await client.wait_closed()
        assert client.close_code == 4000
    assert await running.noted() == ("websocket.disconnect", 4000)


async def test_each_websocket_has_a_context_and_a_state_of_its_own(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        from contextvars import ContextVar

        variable = ContextVar("variable", default="unset")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen = variable.get(), "mine" in scope["state"]
            variable.set("set")
            scope["state"]["mine"] = True
            await accept(receive, send)
            await send({"type": "websocket.send", "text": json.dumps(seen)})
            await receive()

        return app

    running = await serve_app(make)
    for _ in range(3):
        async with running.connect() as client:
            assert json.loads(await client.recv()) == ["unset", False]


async def test_an_application_sees_the_server_it_runs_in(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note(isinstance(current_server(), Server), current_server().worker_id)
            await accept(receive, send)

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        await client.wait_closed()
    is_server, worker_id = await running.noted()
    assert is_server
    assert worker_id in range(len(running.workers))
