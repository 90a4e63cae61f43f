"""Workers with threads, pools and forked children of their own."""

from pathlib import Path

import pytest
from launched import Launch, ProgramFile, ask, end, gone, source, start, until

FORKS = """
async def answer(server, frame):
    return work(server, frame)

def work(server, frame):
    if frame.data == "fork":
        pid = os.fork()
        if pid == 0:
            CHILD
        server.push(frame.fd, str(pid))
    else:
        server.push(frame.fd, frame.data)

async def later(server, frame):
    await asyncio.sleep(0)
    work(server, frame)

server = new_server(workers=1)
"""


@pytest.mark.parametrize("child", ["return", "sys.exit(3)", "1 / 0", "os._exit(0)"])
@pytest.mark.parametrize(
    "handler",
    ["work", "answer", "later", "work, threaded=True"],
    ids=["sync", "async", "suspending", "threaded"],
)
async def test_a_forked_child_that_comes_back_ends_and_its_parent_goes_on(
    launch: Launch, handler: str, child: str
) -> None:
    launched = await launch(FORKS.replace("CHILD", child) + f"server.on('message', {handler})")
    worker = launched.workers()
    async with launched.connect() as first, launched.connect() as second:
        for client in (first, second):
            pid = int(await ask(client, "fork"))
            await ended(pid)
            for other in (first, second):
                assert await ask(other, "hello") == "hello"
        async with launched.connect() as third:
            assert await ask(third, "hello") == "hello"
    assert launched.workers() == worker
    await launched.stop()


async def test_start_in_a_forked_child_of_a_worker_is_refused(launch: Launch) -> None:
    lines = """
    server = new_server(workers=2)

    @server.on("message")
    def on_message(server, frame):
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                server.start()
                end = "start() has returned"
            except BaseException as error:
                end = f"{type(error).__name__}: {error}"
            os.write(write, end.encode())
            os._exit(0)
        server.push(frame.fd, os.read(read, 1000).decode())
    """
    launched = await launch(lines)
    async with launched.connect() as client:
        answer = await ask(client, "fork")
        assert answer.startswith("SystemExit: ")
        assert "only a child" in answer
    await launched.stop()


async def ended(pid: int) -> None:
    """Wait until a process has ended whose parent does not reap it: it stays a zombie."""
    state = Path(f"/proc/{pid}/stat")
    await until(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z")


async def test_a_pool_of_processes_ends_with_its_worker(launch: Launch) -> None:
    lines = """
    from concurrent.futures import ProcessPoolExecutor
    pool = ProcessPoolExecutor(1)
    server = new_server(workers=2)

    @server.on("message")
    async def on_message(server, frame):
        pid = await asyncio.get_running_loop().run_in_executor(pool, os.getpid)
        server.push(frame.fd, str(pid))
    """
    launched = await launch(lines)
    async with launched.connect() as first, launched.connect() as second:
        pids = [int(await ask(client, "pid")) for client in (first, second)]
    await launched.stop()
    for pid in pids:
        await gone(pid)
    assert not any("kill" in line for line in launched.log.all)


async def test_threads_that_are_no_daemons_finish_what_they_do(launch: Launch) -> None:
    lines = """
    import queue
    work = queue.SimpleQueue()

    def write():
        work.get()
        tell("written")

    server.on("worker_start", lambda server: threading.Thread(target=write).start())
    server.on("worker_stop", lambda server: work.put(None))
    """
    launched = await launch(lines, workers=2)
    await launched.stop()
    assert (await launched.told.to_the_end()).count("written") == 2


async def test_two_servers_in_two_threads_keep_to_themselves(program: ProgramFile) -> None:
    lines = """
    def serve(name):
        server = Server(port=0, workers=2)
        server.on("start", lambda server: tell(name, server.port))
        server.on("message", lambda server, frame: server.push(frame.fd, f"{name} {frame.data}"))
        return server

    servers = [serve("one"), serve("two")]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    program.write_text(source(lines).replace("\nserver.start()", ""))
    launched = await start(program.path)
    try:
        ports = dict([(await launched.told.wait_for(" ")).split() for _ in range(2)])
        for name, port in ports.items():
            launched.port = int(port)
            for number in range(4):
                async with launched.connect() as client:
                    assert await ask(client, str(number)) == f"{name} {number}"
        await launched.log.wait_for("signals will not stop or reload the server")
    finally:
        await end(launched)
