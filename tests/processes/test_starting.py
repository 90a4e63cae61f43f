"""All ways to start a program, including those that cannot serve."""

import asyncio
import os
import pty
import signal
import socket
import stat
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from textwrap import dedent, indent

import pytest
from launched import LIFE_BUT_START, Launch, Launched, ProgramFile, Run, ask, source


async def check_it_serves(launched: Launched, workers: int = 2) -> None:
    """Check that it has that many workers, and that each of them serves."""
    await launched.serves()
    assert len(launched.workers()) == workers
    for worker_id in range(workers):
        async with launched.connect_to(worker_id) as client:
            assert await ask(client, "server.worker_id") == str(worker_id)
    await launched.stop()
    assert (await launched.told.to_the_end())[-1] == "start() has returned"


async def is_refused(launched: Launched, *words: str) -> None:
    """Check that the program ends with status 1, and with one line that contains these words."""
    assert launched.process.stdin
    launched.process.stdin.close()
    assert await launched.log.to_the_end() != []
    lines = launched.log.all
    assert len(lines) == 1, lines
    assert lines[0].startswith("hubbub: ")
    assert all(word in lines[0] for word in words), lines
    assert await launched.status() == 1
    assert launched.told.all == []


# ---- that can be run again -------------------------------------------------------------------------------


async def test_a_script(run: Run, program: ProgramFile) -> None:
    program.write(workers=2)
    await check_it_serves(await run("-u", program.path))


async def test_a_script_with_a_relative_path(run: Run, program: ProgramFile) -> None:
    program.write(workers=2)
    await check_it_serves(await run(program.name))


async def test_a_script_that_goes_elsewhere(run: Run, program: ProgramFile) -> None:
    program.write('os.chdir("/")', workers=2)
    await check_it_serves(await run(program.name))


async def test_a_script_is_given_its_arguments_again(run: Run, program: ProgramFile) -> None:
    program.write("assert sys.argv[1:] == ['--option', 'two words'], sys.argv", workers=2)
    await check_it_serves(await run(program.name, "--option", "two words"))


async def test_a_module(run: Run, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "app.py").write_text(source(workers=2))
    await check_it_serves(await run("-m", "package.app"))


async def test_a_package(run: Run, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text(source(workers=2))
    await check_it_serves(await run("package"))


async def test_a_command(run: Run) -> None:
    await check_it_serves(await run("-c", source(workers=2)))


async def test_a_console_script(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"def main():\n    exec({source(workers=2)!r}, globals())\n")
    script = tmp_path / "bin" / "serve"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom app import main\nsys.exit(main())\n")
    script.chmod(0o755)
    # A console script is in another directory than its package.
    await check_it_serves(await run("-c", f"import os; os.execl({str(script)!r}, 'serve')", PYTHONPATH=str(tmp_path)))


async def test_a_start_in_a_thread(run: Run, program: ProgramFile) -> None:
    text = source(workers=2)
    in_thread = "thread = threading.Thread(target=server.start)\nthread.start()\nthread.join()"
    program.write_text(text.replace("server.start()", in_thread, 1))
    launched = await run(program.path)
    await launched.serves()
    async with launched.connect_to(1) as client:
        await client.send("server.shutdown()")
        await client.wait_closed()
    assert await launched.status() == 0


async def test_one_server_after_the_other(run: Run, program: ProgramFile) -> None:
    second = """
    server.start()
    tell("the first has ended")
    first, server = server, new_server(workers=1)
    server.on("message", lambda server, frame: server.push(frame.fd, "the second"))
    """
    program.write(second, workers=1)
    launched = await run(program.path)
    await launched.serves()
    async with launched.connect() as client:
        await client.send("server.shutdown()")
        await client.wait_closed()
    await launched.told.wait_for("the first has ended")
    await launched.serves()
    async with launched.connect() as client:
        assert await ask(client, "") == "the second"
    await launched.stop()


async def test_no_grandchild_takes_itself_for_a_worker(launch: Launch) -> None:
    launched = await launch("import subprocess", workers=1)
    async with launched.connect() as client:
        code = "import hubbub.program; print(hubbub.program.assignment)"
        assert await ask(client, f"subprocess.check_output([sys.executable, '-c', {code!r}])") == r"b'None\n'"


# ---- that cannot -----------------------------------------------------------------------------------------


async def feed(launched: Launched, text: str) -> None:
    """Write a program to the standard input."""
    stdin = launched.process.stdin
    assert stdin
    stdin.write(text.encode())
    await stdin.drain()
    stdin.close()


async def test_standard_input_is_refused(run: Run) -> None:
    launched = await run("-")
    await feed(launched, source(workers=2))
    await is_refused(launched, "standard input", "workers=1")


async def test_without_a_number_standard_input_is_refused(run: Run) -> None:
    launched = await run()
    await feed(launched, source())
    await is_refused(launched, "standard input", "workers=1")


async def test_a_script_that_is_not_there_from_where_it_was_started_is_refused(run: Run, program: ProgramFile) -> None:
    program.write_text("import os\nos.chdir('/')\n" + source(workers=2))
    await is_refused(await run(program.name), "no app.py in /")


async def test_a_child_of_multiprocessing_is_refused(run: Run, program: ProgramFile) -> None:
    lines = """
    import multiprocessing
    if __name__ == "__main__":
        child = multiprocessing.get_context(sys.argv[1]).Process(target=server.start)
        child.start()
        child.join()
        sys.exit(child.exitcode)
    """
    for method in ("fork", "spawn"):
        text = source(lines, workers=2).rpartition("server.start()")[0]
        program.write_text(text)
        await is_refused(await run(program.path, method), "only a child")


async def test_with_one_worker_standard_input_is_served_in_one_process(run: Run, tmp_path: Path) -> None:
    lines = """
    def error_of_reload():
        try:
            server.reload()
        except RuntimeError as error:
            return error
    """
    launched = await run("-")
    await feed(launched, source(lines, workers=1))
    await launched.serves()
    assert launched.workers() == {}
    async with launched.connect() as client:
        assert await ask(client, "os.getpid()") == str(launched.process.pid)
        assert await ask(client, "server.worker_id") == "0"
        assert "one process" in await ask(client, "error_of_reload()")
        assert stat.S_ISSOCK(socket_of(launched, tmp_path).stat().st_mode)
    await launched.stop()
    assert not socket_of(launched, tmp_path).exists()


async def test_what_is_typed_in_is_refused_but_for_one_worker() -> None:
    terminal, theirs = pty.openpty()
    environ = os.environ | {"PYTHON_BASIC_REPL": "1", "TERM": "dumb"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-q", stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    )
    os.close(theirs)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(terminal, "rb", buffering=0, closefd=False)
    )
    try:
        os.write(terminal, b"from hubbub import Server\n")
        os.write(terminal, b"server = Server(port=0, workers=1)\n")
        os.write(terminal, b"print(server.on('start', lambda server: server.shutdown()) and 'begin')\n")
        os.write(terminal, b"print(server.start(), 'has returned')\n")
        await reader.readuntil(b"None has returned")
        os.write(terminal, b"Server(port=0, workers=2).start()\n")
        await reader.readuntil(b"RuntimeError: workers have to run this program again, but it was typed in")
        os.write(terminal, b"print('it goes', 'on')\n")
        await reader.readuntil(b"it goes on")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        transport.close()
        os.close(terminal)


# ---- what cannot be served -------------------------------------------------------------------------------


async def test_a_port_in_use_is_one_line(run: Run, program: ProgramFile) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        program.write(f"server = Server(port={port})")
        await is_refused(await run(program.path), str(port), "in use")


async def test_a_host_that_is_unknown_is_one_line(run: Run, program: ProgramFile) -> None:
    program.write('server = Server("host.invalid")')
    await is_refused(await run(program.path), "host.invalid")


async def test_a_certificate_that_is_missing_is_one_line(run: Run, program: ProgramFile) -> None:
    program.write(ssl_certfile="missing.pem", ssl_keyfile="missing.key")
    await is_refused(await run(program.path), "ssl_certfile", "missing.pem")


async def test_a_control_socket_that_cannot_be_is_one_line(run: Run, program: ProgramFile, tmp_path: Path) -> None:
    program.write(control=str(tmp_path / "missing" / "here.sock"))
    await is_refused(await run(program.path), "control socket", "missing")


# ---- calls of start() and serve() where they cannot serve ------------------------------------------------

CALLS = {
    "in a handler": "server.push(frame.fd, called(server.start))",
    "in a thread": "threading.Thread(target=lambda: server.push(frame.fd, called(server.start))).start()",
    "in a task": """
        async def later():
            await asyncio.sleep(0)
            server.push(frame.fd, called(server.start))
        asyncio.ensure_future(later())
    """,
    "in a thread, once more": """
        def again():
            called(server.start)
            server.push(frame.fd, called(server.start))
        threading.Thread(target=again).start()
    """,
    "serve() in a task": """
        async def later():
            try:
                server.push(frame.fd, f"returned {await server.serve()}")
            except Exception as error:
                server.push(frame.fd, f"{type(error).__name__}: {error}")
        asyncio.ensure_future(later())
    """,
    "async with in a task": """
        async def later():
            try:
                async with server:
                    server.push(frame.fd, "entered")
            except Exception as error:
                server.push(frame.fd, f"{type(error).__name__}: {error}")
        asyncio.ensure_future(later())
    """,
}
CALLED = """
def called(start):
    try:
        return f"returned {start()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


@pytest.mark.parametrize("call", CALLS)
async def test_a_running_server_cannot_be_started_in_its_worker(launch: Launch, call: str) -> None:
    lines = f"{CALLED}\nserver = new_server(workers=1)\n@server.on('message')\ndef on_message(server, frame):\n"
    launched = await launch(lines + indent(dedent(CALLS[call]), "    "))
    async with launched.connect() as client:
        await client.send("start")
        assert await client.recv() == "RuntimeError: the server is already running"
        await client.send("start")
        assert await client.recv() == "RuntimeError: the server is already running"
    await launched.stop()


async def test_start_in_the_master_raises_and_a_later_one_serves(run: Run, program: ProgramFile) -> None:
    lines = """
    starts = []
    server = Server(port=0, workers=1)

    @server.on("start")
    def on_start(server):
        starts.append(server.port)
        if len(starts) == 1:
            tell("in the master:", called(server.start))
            server.shutdown()
        else:
            tell("port", server.port)

    server.start()
    """
    program.write(CALLED + dedent(lines))
    launched = await run(program.path)
    await launched.told.wait_for("in the master: RuntimeError: the server is already running")
    await launched.serves()
    await launched.stop()


async def test_another_server_cannot_be_started_in_the_event_loop_of_a_worker(launch: Launch) -> None:
    launched = await launch(CALLED + "other = Server(port=0)", workers=1)
    async with launched.connect() as client:
        assert "serve()" in await ask(client, "called(other.start)")
    await launched.stop()


async def test_another_server_cannot_be_started_in_a_thread_of_a_worker(launch: Launch) -> None:
    lines = """
    other = Server(port=0)
    started = []
    server = new_server(workers=1)
    server.on("worker_start", lambda: started.append(called(other.start)), threaded=True)
    server.on("message", on_message, threaded=True)
    """
    launched = await launch(CALLED + dedent(lines))
    async with launched.connect() as client:
        for expression in ("started[0]", "called(other.start)", "called(Server(port=0).start)"):
            assert (await ask(client, expression)).startswith("RuntimeError: a worker cannot start a server")
    await launched.stop()


async def test_the_program_may_go_on_to_a_second_server_while_the_first_serves_in_a_thread(
    run: Run, program: ProgramFile
) -> None:
    lines = """
    from hubbub.program import assignment
    first, in_worker, in_master = Server(port=0, workers=1), threading.Event(), threading.Event()
    first.on("worker_start", lambda: in_worker.set())
    first.on("start", lambda: in_master.set())

    def start():
        first.start()
        in_worker.set()

    server = Server(port=0, workers=1)
    server.on("start", lambda server: (in_master.wait(), on_start(server)))
    server.on("shutdown", lambda: first.shutdown())
    threading.Thread(target=start).start()
    if assignment:
        in_worker.wait()
    """
    program.write(lines)
    launched = await run(program.path)
    await launched.serves()
    await launched.stop()
    # In the main threads of the master and of the first server's worker, start() returns. The second server's worker
    # ends within start().
    assert [line for line in await launched.told.to_the_end() if "start()" in line] == ["start() has returned"] * 2
    assert not any("Traceback" in line for line in await launched.log.to_the_end())


# ---- what a start does and prints ------------------------------------------------------------------------


FAILURES = {
    "def": "def on_worker_start(server, worker_id):\n    if worker_id == FAILS: raise LookupError('no database')",
    "async def": """
        async def on_worker_start(server, worker_id):
            await asyncio.sleep(0)
            if worker_id == FAILS: raise LookupError('no database')
        """,
    "threaded": "def on_worker_start(server, worker_id):\n    if worker_id == FAILS: raise LookupError('no database')",
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_worker_start_that_raises_ends_the_start_with_status_3(
    run: Run, program: ProgramFile, kind: str
) -> None:
    lines = f"FAILS = 0\n{dedent(FAILURES[kind])}\n" + LIFE_BUT_START
    lines += f"server.on('worker_start', on_worker_start, threaded={kind == 'threaded'})"
    program.write(lines, workers=2)
    launched = await run(program.path)
    assert await launched.status() == 3
    assert await launched.told.to_the_end() == []
    log = await launched.log.to_the_end()
    assert "  LookupError: no database" in log
    assert not any("listening on" in line for line in log)


async def test_a_worker_start_that_raises_in_one_worker_stops_the_others_gracefully(
    run: Run, program: ProgramFile
) -> None:
    lines = f"FAILS = 1\n{FAILURES['def']}\n" + LIFE_BUT_START + "server.on('worker_start', on_worker_start)"
    program.write(lines, workers=2)
    launched = await run(program.path)
    assert await launched.status() == 3
    # Neither `start` nor `shutdown` runs; `worker_stop` runs only where `worker_start` succeeded.
    assert await launched.told.to_the_end() == ["worker_stop 0"]
    log = await launched.log.to_the_end()
    assert "  LookupError: no database" in log
    assert not any("listening on" in line for line in log)


async def test_a_worker_start_that_raises_leaves_time_to_clean_up(run: Run, program: ProgramFile) -> None:
    lines = """
    import atexit
    atexit.register(lambda: (time.sleep(0.3), tell("cleaned up")))
    atexit.register(lambda: None)

    @server.on("worker_start")
    def on_worker_start(server):
        raise LookupError("no database")
    """
    program.write(lines, workers=1)
    launched = await run(program.path)
    assert await launched.status() == 3
    # One line is from the worker, the other from the master.
    assert await launched.told.to_the_end() == ["cleaned up", "cleaned up"]


async def test_a_worker_start_that_raises_in_one_process_is_status_3(run: Run) -> None:
    text = source("server.on('worker_start', lambda: 1 / 0)\n" + LIFE_BUT_START, workers=1)
    launched = await run("-")
    assert launched.process.stdin
    launched.process.stdin.write(text.encode())
    launched.process.stdin.close()
    assert await launched.status() == 3
    assert await launched.told.to_the_end() == []
    assert any("ZeroDivisionError" in line for line in await launched.log.to_the_end())


async def test_a_stop_while_worker_start_runs(run: Run, program: ProgramFile) -> None:
    lines = """
    @server.on("worker_start")
    async def on_worker_start():
        tell("starting")
        await asyncio.Event().wait()
    """
    program.write(LIFE_BUT_START + dedent(lines), workers=2)
    launched = await run(program.path)
    await launched.told.wait_for("starting")
    launched.process.terminate()
    assert await launched.status() == 0
    # The master runs `shutdown`, as it does at any stop.
    assert await launched.told.to_the_end() == ["starting", "shutdown", "start() has returned"]


async def test_a_variable_with_a_mistyped_name_is_one_warning(run: Run, program: ProgramFile) -> None:
    program.write(workers=2)
    kubernetes = {
        "HUBBUB_PORT": "tcp://10.96.0.7:9501",
        "HUBBUB_PORT_9501_TCP": "x",
        "HUBBUB_SERVICE_HOST": "10.96.0.7",
    }
    launched = await run(program.path, pass_fds=(), HUBBUB_WORKRES="3", **kubernetes)
    await launched.serves()
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("INFO reloaded")
    await launched.stop()
    (line,) = [line for line in await launched.log.to_the_end() if "HUBBUB_" in line]
    assert "WARNING the variable HUBBUB_WORKRES is not a setting" in line
    assert line.endswith("did you mean HUBBUB_WORKERS?")


async def test_log_level_is_that_of_the_logger(launch: Launch) -> None:
    launched = await launch(workers=1, log_level="error")
    await launched.stop()
    assert await launched.log.to_the_end() == []


@pytest.mark.parametrize(("max_connections", "warns"), [(256, False), (257, True)])
async def test_the_limit_of_open_files_is_raised(launch: Launch, max_connections: int, warns: bool) -> None:
    lines = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))
    server.on("worker_start", lambda: tell("files", *resource.getrlimit(resource.RLIMIT_NOFILE)))
    """
    launched = await launch(lines, workers=1, max_connections=max_connections)
    assert launched.told.all[0] == "files 256 256"
    await launched.stop()
    log = await launched.log.to_the_end()
    assert any(f"max_connections={max_connections}" in line for line in log) is warns


# ---- the control socket ----------------------------------------------------------------------------------


def socket_of(launched: Launched, temporary: Path) -> Path:
    return temporary / f"hubbub-{os.geteuid()}" / f"{launched.port}.sock"


async def test_the_control_socket_is_removed_with_the_server(launch: Launch, tmp_path: Path) -> None:
    launched = await launch(workers=1)
    path = socket_of(launched, tmp_path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    await launched.stop()
    assert not path.exists()


async def test_a_second_server_on_another_address_leaves_the_control_socket_to_the_first(
    launch: Launch, run: Run, tmp_path: Path
) -> None:
    first = await launch(workers=1)
    program = ProgramFile(tmp_path / "second.py")
    program.write(f"server = Server('127.0.0.2', {first.port}, workers=1)\nserver.on('start', on_start)")
    second = await run(program.path)
    await second.serves()
    path = socket_of(first, tmp_path)
    assert str(path) in await second.log.wait_for("control socket")
    await second.stop()
    assert path.exists()


async def test_a_second_server_with_the_same_path_is_refused(launch: Launch, run: Run, tmp_path: Path) -> None:
    control = str(tmp_path / "here.sock")
    await launch(workers=1, control=control)
    program = ProgramFile(tmp_path / "second.py")
    program.write(workers=1, control=control)
    await is_refused(await run(program.path), control, "another running server")


async def test_a_killed_server_can_be_started_again_at_once(launch: Launch, tmp_path: Path) -> None:
    control = tmp_path / "here.sock"
    for _ in range(2):
        launched = await launch(workers=1, control=str(control))
        assert control.exists()
        launched.process.kill()
        await launched.status()
        await launched.log.to_the_end()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can become another user")
@pytest.mark.parametrize("mode", [0o600, 0o777])
async def test_another_users_process_cannot_use_the_control_socket(launch: Launch, run: Run, mode: int) -> None:
    async with AsyncExitStack() as stack:
        # pytest's directories are closed to other users, so they would hide a mistake.
        read, write = os.pipe()
        stack.callback(os.close, read)
        stack.callback(os.close, write)
        launched = await launch("import tempfile\n" + OPEN_DIRECTORY, workers=1)
        async with launched.connect() as client:
            path = await ask(client, "server.settings.control")
            await ask(client, f"os.chmod({path!r}, {mode})")
        other = await run(
            "-c",
            f"""
import os, socket
os.setgid(65534)
os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
try:
    client.connect({path!r})
    client.settimeout(30)
    print("cut off" if client.recv(1) == b"" else "served")
except ConnectionResetError:
    print("cut off")
except PermissionError:
    print("cannot connect")
""",
        )
        expected = "cannot connect" if mode == 0o600 else "cut off"
        assert await other.told.to_the_end() == [expected], await other.log.to_the_end()


# The master creates the directory and removes it; a worker gets its path.
OPEN_DIRECTORY = """
from hubbub.program import assignment
import atexit, shutil
directory = None
if assignment is None:
    directory = tempfile.mkdtemp(dir="/var/tmp")
    os.chmod(directory, 0o755)
    atexit.register(shutil.rmtree, directory)
server = new_server(control=f"{directory}/here.sock")
server.on("message", on_message)
"""
