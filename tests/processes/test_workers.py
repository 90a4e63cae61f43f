"""Several workers that are one server."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from launched import LIFE, Launch, ProgramFile, Run, ask, children, end, start, title
from websockets.asyncio.client import ClientConnection

EXAMPLE = Path(__file__).parents[2] / "examples" / "echo" / "app.py"


async def test_titles_tell_which_process_is_which(launch: Launch) -> None:
    launched = await launch(workers=2)
    of = f"(app.py port {launched.port})"
    assert title(launched.process.pid) == f"hubbub: master {of}"
    titles = {title(pid) for pid in children(launched.process.pid)}
    assert titles == {f"hubbub: worker 0 {of}", f"hubbub: worker 1 {of}"}


async def test_arguments_may_be_any_bytes(run: Run, program: ProgramFile) -> None:
    program.write(workers=1)
    launched = await run(program.path, os.fsdecode(b"caf\xe9"))
    await launched.serves()
    assert title(launched.process.pid) == f"hubbub: master (app.py port {launched.port})"
    async with launched.connect() as client:
        assert await ask(client, "os.fsencode(sys.argv[1])") == str(b"caf\xe9")
    await launched.stop()


async def test_the_name_of_the_program_may_be_any_bytes(run: Run, program: ProgramFile) -> None:
    path = program.path.with_name(os.fsdecode(b"caf\xe9\n.py"))
    ProgramFile(path).write(workers=1)
    launched = await run(path)
    await launched.serves()
    assert title(launched.process.pid) == f"hubbub: master (caf\\udce9\\n.py port {launched.port})"
    await launched.stop()


async def test_without_a_number_there_is_one_for_each_core(launch: Launch) -> None:
    launched = await launch()
    assert len(launched.workers()) == len(os.sched_getaffinity(0))


async def test_one_worker_is_a_process_too(launch: Launch) -> None:
    launched = await launch(workers=1)
    assert list(launched.workers()) == [0]
    async with launched.connect() as client:
        assert int(await ask(client, "os.getpid()")) == launched.workers()[0]


async def test_start_and_shutdown_run_in_the_master_and_the_others_in_each_worker(launch: Launch) -> None:
    lines = """
    def told(event):
        server.on(event, lambda server: tell(event, server.worker_id, os.getpid()))

    told("worker_start"), told("worker_stop"), told("shutdown")
    """
    launched = await launch(lines, workers=2)
    master, workers = launched.process.pid, launched.workers()
    await launched.stop()
    told = await launched.told.to_the_end()
    assert sorted(told[:2]) == [f"worker_start {n} {pid}" for n, pid in sorted(workers.items())]
    assert told[2].startswith("port ")
    assert sorted(told[3:5]) == [f"worker_stop {n} {pid}" for n, pid in sorted(workers.items())]
    assert told[5:] == [f"shutdown None {master}", "start() has returned"]


@pytest.mark.parametrize("kind", ["sync", "async", "threaded"])
async def test_start_and_shutdown_may_run_in_any_way(launch: Launch, kind: str) -> None:
    lines = f"""
    {"async " if kind == "async" else ""}def on_shutdown(server):
        {"await asyncio.sleep(0)" if kind == "async" else ""}
        tell("shutdown")

    server.on("shutdown", on_shutdown, threaded={kind == "threaded"})
    """
    launched = await launch(lines, workers=2)
    await launched.stop()
    assert (await launched.told.to_the_end())[1:] == ["shutdown", "start() has returned"]


async def test_what_needs_a_worker_does_not_run_in_the_master(launch: Launch) -> None:
    calls = (
        'server.push(1, "text")',
        "server.ping(1)",
        "server.disconnect(1)",
        'server.broadcast("text")',
        'server.publish("topic", "text")',
        'server.subscribe(1, "topic")',
        "server.exists(1)",
        "server.info(1)",
        "server.stats()",
        "list(server.connections)",
        'server.send_message("text", 0)',
        "server.after(1, print)",
        'asyncio.run(server.subscribers("topic"))',
    )
    lines = f"""
    def on_shutdown(server):
        for call in {calls!r}:
            try:
                eval(call)
            except NotRunning as error:
                tell(call, "in the master" in str(error))

    server.on("shutdown", on_shutdown, threaded=True)
    """
    launched = await launch(lines, workers=1)
    await launched.stop()
    assert (await launched.told.to_the_end())[1:-1] == [f"{call} True" for call in calls]


async def test_connections_are_spread_evenly(launch: Launch) -> None:
    launched = await launch(workers=3)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(launched.connect()) for _ in range(30)]
        of_worker = Counter([await ask(client, "server.worker_id") for client in clients])
        assert of_worker == {"0": 10, "1": 10, "2": 10}
        assert await ask(clients[0], "len(server.connections)") == "30"


async def test_idle_connections_of_pages_do_not_count_where_websockets_are_spread(launch: Launch) -> None:
    launched = await launch(workers=2, health_path="/healthz")
    async with AsyncExitStack() as stack:
        of_worker: Counter[str] = Counter()
        for _ in range(10):
            # Do what a browser does: fetch a page, keep that connection, and open a WebSocket.
            reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
            stack.callback(writer.close)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            client = await stack.enter_async_context(launched.connect())
            of_worker[await ask(client, "server.worker_id")] += 1
        assert of_worker == {"0": 5, "1": 5}


async def test_ids_are_the_servers(launch: Launch) -> None:
    launched = await launch(workers=2)
    async with launched.connect_to(0) as one, launched.connect_to(1) as other:
        fd = await ask(other, "frame.fd")
        assert await ask(one, f"server.exists({fd})") == "True"
        assert await ask(one, f"server.info({fd}).worker_id") == "1"
        assert await ask(one, f"server.push({fd}, 'hello')") == "True"
        assert await other.recv() == "hello"


async def test_subscribers_of_all_workers_are_counted(launch: Launch) -> None:
    lines = """
    server = new_server(workers=2)

    @server.on("message")
    async def on_message(server, frame):
        answer = eval(frame.data)
        server.push(frame.fd, str(await answer if asyncio.iscoroutine(answer) else answer))

    def from_a_thread():
        return asyncio.to_thread(lambda: asyncio.run(server.subscribers("news")))
    """
    launched = await launch(lines)
    async with launched.connect_to(0) as one, launched.connect_to(1) as other:
        for client in (one, other):
            assert await ask(client, 'server.subscribe(frame.fd, "news")') == "True"
        assert await ask(one, 'server.subscribers("news")') == "2"
        assert await ask(other, "from_a_thread()") == "2"
        assert await ask(other, 'server.subscribers("other news")') == "0"


@pytest.mark.parametrize("kind", ["sync", "async", "threaded"])
async def test_messages_go_between_any_two_workers(launch: Launch, kind: str) -> None:
    lines = f"""
    {"async " if kind == "async" else ""}def on_pipe_message(server, worker_id, data):
        {"await asyncio.sleep(0)" if kind == "async" else ""}
        tell("from", worker_id, "to", server.worker_id, repr(data))

    server.on("pipe_message", on_pipe_message, threaded={kind == "threaded"})
    """
    launched = await launch(lines, workers=3)
    for sender in range(3):
        async with launched.connect_to(sender) as client:
            for receiver in range(3):
                assert await ask(client, f"server.send_message('text', {receiver})") == "None"
                assert await ask(client, f"server.send_message(b'bytes', {receiver})") == "None"
    expected = {f"from {a} to {b} {data}" for a in range(3) for b in range(3) for data in ("'text'", "b'bytes'")}
    while expected:
        expected.discard(await launched.told.wait_for("from"))


async def test_messages_to_one_worker_arrive_in_order(launch: Launch) -> None:
    lines = """
    server.on("pipe_message", lambda server, worker_id, data: tell("message", data))

    def send_many():
        for n in range(3000):
            server.send_message(str(n), 1)
    """
    launched = await launch(lines, workers=2)
    async with launched.connect_to(0) as client:
        await ask(client, "send_many()")
        assert [await launched.told.wait_for("message") for _ in range(3000)] == [f"message {n}" for n in range(3000)]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("server.send_message('text', 2)", "ValueError"),
        ("server.send_message('text', -1)", "ValueError"),
        ("server.send_message('text', '0')", "TypeError"),
        ("server.send_message(7, 0)", "TypeError"),
        ("server.send_message(None, 1)", "TypeError"),
    ],
)
async def test_a_message_that_cannot_be_sent_is_an_error(launch: Launch, call: str, error: str) -> None:
    lines = """
    def error_of(call):
        try:
            eval(call)
        except Exception as error:
            return type(error).__name__
    """
    launched = await launch(lines, workers=2)
    async with launched.connect() as client:
        assert await ask(client, f"error_of({call!r})") == error


async def test_a_handler_that_blocks_delays_nobody_in_the_other_worker(launch: Launch) -> None:
    lines = """
    def block():
        tell("blocks")
        while not os.path.exists(__file__ + ".go"):
            time.sleep(0.01)
    """
    launched = await launch(lines, workers=2)

    async def is_blocked(client: ClientConnection) -> str:
        return await ask(client, "block()")

    async with launched.connect_to(0) as blocked, launched.connect_to(1) as free:
        blocking = asyncio.create_task(is_blocked(blocked))
        await launched.told.wait_for("blocks")
        for _ in range(100):
            assert await ask(free, "server.worker_id") == "1"
        # All that time the other worker was blocked.
        assert not blocking.done()
        assert await ask(free, "open(__file__ + '.go', 'w').close()") == "None"
        assert await blocking == "None"


async def test_a_forked_child_of_a_worker_is_not_running(launch: Launch) -> None:
    lines = """
    def in_a_child():
        if (child := os.fork()) == 0:
            try:
                server.exists(1)
            except NotRunning:
                os._exit(7)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    server.on("shutdown", lambda server: tell("in a child of the master", in_a_child()))
    """
    launched = await launch(lines, workers=1)
    async with launched.connect() as client:
        assert await ask(client, "in_a_child()") == "7"
    await launched.stop()
    await launched.told.wait_for("in a child of the master 7")


async def test_settings_are_those_of_the_master(launch: Launch, program: ProgramFile) -> None:
    lines = """
    server = new_server(workers=2, max_message_size=os.getpid())
    server.on("message", on_message)
    """
    launched = await launch(lines)
    async with launched.connect() as client:
        assert int(await ask(client, "server.settings.max_message_size")) == launched.process.pid
    assert not any("max_message_size" in line for line in launched.log.all)
    # A reload logs once, not in each worker, that a setting has changed in the code.
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("INFO reloaded")
    await launched.stop()
    assert sum("max_message_size" in line for line in await launched.log.to_the_end()) == 1


async def test_the_echo_example_runs_with_several_workers(tmp_path: Path) -> None:
    launched = await start(EXAMPLE, HUBBUB_PORT="0", HUBBUB_WORKERS="2")
    try:
        line = await launched.told.wait_for("Open http")
        launched.port = int(line.split(":")[2].split("/")[0])
        async with launched.connect() as one, launched.connect() as other:
            for client in (one, other):
                await client.send("hello")
                assert await client.recv() == "this is server"
        launched.process.terminate()
        assert await launched.status() == 0
    finally:
        await end(launched)


async def test_the_log_has_a_line_for_all(launch: Launch) -> None:
    launched = await launch(LIFE, workers=3)
    await launched.stop()
    log = await launched.log.to_the_end()
    assert [line.split("hubbub ")[1] for line in log if "max_connections" not in line] == [
        f"INFO listening on 127.0.0.1 port {launched.port}, 3 workers",
        "INFO SIGTERM: stopping",
        "INFO stopped",
    ]


async def test_a_worker_without_descriptors_leaves_connections_to_the_others(launch: Launch) -> None:
    lines = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
    held = []

    def use_up():
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            return len(held)

    def give_back():
        while held:
            os.close(held.pop())
    """
    launched = await launch(lines, workers=2)
    async with launched.connect_to(0) as client, AsyncExitStack() as stack:
        assert int(await ask(client, "use_up()")) > 100
        others = [await stack.enter_async_context(launched.connect()) for _ in range(20)]
        for other in others:
            assert await ask(other, "server.worker_id") == "1"
        await launched.log.wait_for("accepting is paused")
        await ask(client, "give_back()")
        async with launched.connect_to(0) as newcomer:
            assert await ask(newcomer, "1 + 1") == "2"
    await launched.stop()


async def test_settings_may_be_longer_than_a_variable(launch: Launch) -> None:
    origins = [f"https://customer{number}.example.com" for number in range(10_000)]
    launched = await launch(workers=2, origins=origins)
    async with launched.connect() as client:
        assert await ask(client, "len(server.settings.origins)") == "10000"
    await launched.stop()
