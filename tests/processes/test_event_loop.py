"""A worker's event loop, which waits for the reactor's sockets and for everything else at once."""

import asyncio
import os
import signal
import socket

from launched import Launch, ProgramFile, Run, ask, until


async def test_a_message_does_not_pass_through_the_selector_of_the_event_loop(launch: Launch) -> None:
    launched = await launch(
        """
        import selectors

        class Counting(selectors.DefaultSelector):
            calls = 0
            select_of_before = selectors.DefaultSelector.select

        def select(self, timeout=None):
            Counting.calls += 1
            return Counting.select_of_before(self, timeout)

        selectors.DefaultSelector.select = select
        """,
        workers=1,
        # Nothing else may wake the event loop.
        stuck_after=None,
    )
    async with launched.connect() as client:
        before = int(await ask(client, "Counting.calls"))
        for _ in range(50):
            await ask(client, "1")
        assert int(await ask(client, "Counting.calls")) - before < 10


async def test_handlers_run_in_the_running_event_loop_and_in_no_task(launch: Launch) -> None:
    launched = await launch(
        """
        loops = []

        @server.on("worker_start")
        async def on_worker_start(server, worker_id):
            loops.append(asyncio.get_running_loop())
        """,
        workers=1,
    )
    async with launched.connect() as client:
        assert await ask(client, "asyncio.get_running_loop() is loops[0]") == "True"
        assert await ask(client, "asyncio.get_event_loop() is loops[0]") == "True"
        assert await ask(client, "asyncio.current_task()") == "None"


async def test_an_async_handler_runs_in_a_task_of_its_own(launch: Launch) -> None:
    launched = await launch(
        """
        server = new_server(**SETTINGS)

        @server.on("message")
        async def on_message(server, frame):
            first = asyncio.current_task()
            async with asyncio.timeout(10):
                await asyncio.sleep(0)
            server.push(frame.fd, str(first is not None and asyncio.current_task() is first))
        """,
        workers=1,
    )
    async with launched.connect() as client:
        assert await ask(client, "") == "True"


async def test_what_a_handler_starts_goes_on_while_no_message_arrives(launch: Launch) -> None:
    launched = await launch(
        """
        def answer(fd, text):
            server.push(fd, text)

        async def sleeping(fd):
            await asyncio.sleep(0.01)
            answer(fd, "task")

        async def running_a_program(fd):
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print('program')", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await program.communicate()
            answer(fd, f"{output.decode().strip()} {program.returncode}")

        def in_a_thread(loop, fd):
            time.sleep(0.1)
            loop.call_soon_threadsafe(answer, fd, "thread")

        async def in_an_executor(fd):
            answer(fd, await asyncio.to_thread(lambda: "executor"))

        tasks = []

        def begin(what, fd):
            loop = asyncio.get_running_loop()
            match what:
                case "call_soon":
                    loop.call_soon(answer, fd, what)
                case "call_later":
                    loop.call_later(0.05, answer, fd, what)
                case "thread":
                    threading.Thread(target=in_a_thread, args=(loop, fd)).start()
                case other:
                    tasks.append(loop.create_task(globals()[other](fd)))

        server = new_server(**SETTINGS)
        server.on("message", lambda server, frame: begin(frame.data, frame.fd))
        """,
        workers=1,
    )
    async with launched.connect() as client:
        for what, answer in {
            "call_soon": "call_soon",
            "call_later": "call_later",
            "sleeping": "task",
            "thread": "thread",
            "in_an_executor": "executor",
            "running_a_program": "program 0",
        }.items():
            assert await ask(client, what) == answer


async def test_a_reader_is_called_as_long_as_its_descriptor_is_readable(launch: Launch) -> None:
    launched = await launch(
        """
        source, sink = os.pipe()
        found = []

        @server.on("worker_start")
        async def on_worker_start(server, worker_id):
            asyncio.get_running_loop().add_reader(source, lambda: found.append(os.read(source, 1)))

        async def written(fd):
            os.write(sink, b"0123456789")
            while len(found) < 10:
                await asyncio.sleep(0.01)
            server.push(fd, b"".join(found).decode())

        async def many(fd):
            pairs = [os.pipe() for _ in range(20)]
            loop = asyncio.get_running_loop()
            futures = []
            for reading, writing in pairs:
                future = loop.create_future()
                futures.append(future)

                def is_readable(reading=reading, future=future):
                    future.set_result(os.read(reading, 1))
                    loop.remove_reader(reading)

                loop.add_reader(reading, is_readable)
                os.write(writing, b"x")
            server.push(fd, b"".join(await asyncio.gather(*futures)).decode())
        """,
        workers=1,
    )
    async with launched.connect() as client:
        assert (await ask(client, "asyncio.ensure_future(written(frame.fd))")).startswith("<Task")
        assert await client.recv() == "0123456789"
        await ask(client, "asyncio.ensure_future(many(frame.fd))")
        assert await client.recv() == "x" * 20


async def test_messages_leave_time_for_the_rest_of_the_event_loop(launch: Launch) -> None:
    launched = await launch(
        """
        server = new_server(**SETTINGS)
        messages = rounds = 0

        async def count_rounds():
            global rounds
            while True:
                await asyncio.sleep(0)
                rounds += 1

        counting = []

        @server.on("message")
        def on_message(server, frame):
            global messages
            if not messages:
                counting.append(asyncio.ensure_future(count_rounds()))
                asyncio.get_running_loop().call_later(0.02, lambda: tell("timer at", messages))
            messages += 1
            begin = time.perf_counter()
            while time.perf_counter() < begin + 0.001:
                pass
            if messages == 1000:
                tell("rounds", rounds)
        """,
        workers=1,
        receive_queue=2000,
    )
    async with launched.connect() as client:
        for _ in range(1000):
            await client.send("x")
        timer = await launched.told.wait_for("timer at")
        assert int(timer.split()[-1]) < 1000
        rounds = await launched.told.wait_for("rounds")
        assert int(rounds.split()[-1]) > 10


async def test_signals_are_handled_while_the_worker_waits(launch: Launch) -> None:
    launched = await launch(
        """
        @server.on("worker_start")
        async def on_worker_start(server, worker_id):
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: tell("by the event loop"))
            signal.signal(signal.SIGUSR2, lambda number, frame: tell("by Python"))
        """,
        workers=1,
        stuck_after=None,
    )
    (worker,) = launched.workers().values()
    for _ in range(3):
        os.kill(worker, signal.SIGUSR1)
        await launched.told.wait_for("by the event loop")
        os.kill(worker, signal.SIGUSR2)
        await launched.told.wait_for("by Python")
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"


async def test_in_debug_mode_the_event_loop_names_slow_turns(run: Run, program: ProgramFile) -> None:
    program.write("import logging; logging.basicConfig()", workers=1)
    launched = await run(program.path, PYTHONASYNCIODEBUG="1")
    await launched.serves()
    async with launched.connect() as client:
        assert await ask(client, "asyncio.get_running_loop().get_debug()") == "True"
        assert await ask(client, "time.sleep(0.2)") == "None"
        # `Reactor.turn`, or `Reactor.scheduled_turn` if the one before had more to do.
        await launched.log.wait_for("Executing <Handle Reactor.")
        # From here on the server runs as without debug mode.
        assert await ask(client, "asyncio.get_running_loop().set_debug(False)") == "None"
        assert await ask(client, "1 + 1") == "2"


async def test_what_was_set_before_start_is_seen_by_handlers_and_what_one_sets_by_no_other(launch: Launch) -> None:
    launched = await launch(
        """
        import contextvars
        variable = contextvars.ContextVar("variable", default="default")
        variable.set("before start")

        def push_later(fd):
            server.after(0.01, lambda: server.push(fd, variable.get()))
        """,
        workers=1,
    )
    async with launched.connect() as client:
        assert (await ask(client, "variable.get(), variable.set('in a handler')")).startswith("('before start'")
        assert await ask(client, "variable.get()") == "before start"
        assert await ask(client, "push_later(frame.fd)") == "None"
        assert await client.recv() == "before start"


async def test_an_event_loop_that_the_application_chooses_is_used(launch: Launch) -> None:
    launched = await launch(
        """
        class Loop(asyncio.SelectorEventLoop):
            pass

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self):
                return Loop()

        asyncio.set_event_loop_policy(Policy())
        """,
        workers=1,
    )
    async with launched.connect() as client:
        assert await ask(client, "type(asyncio.get_running_loop()).__name__") == "Loop"


async def test_a_bug_in_a_turn_does_not_end_the_worker(launch: Launch) -> None:
    launched = await launch(
        """
        import logging; logging.basicConfig()

        @server.on("worker_start")
        def on_worker_start(server, worker_id):
            # As if there were a bug in what answers requests.
            def on_request(token, request):
                raise ZeroDivisionError("a bug")
            server._role.worker.on_request = on_request
        """,
        workers=1,
    )
    async with launched.connect() as client:
        pid = await ask(client, "os.getpid()")
        with socket.create_connection(("127.0.0.1", launched.port)) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await launched.log.wait_for("a bug")
        assert await ask(client, "os.getpid()") == pid


async def test_an_idle_worker_sleeps(launch: Launch) -> None:
    launched = await launch(
        """
        # A descriptor that stays readable.
        source, sink = os.pipe()
        calls = 0

        def count():
            global calls
            calls += 1
            if calls == 3:
                asyncio.get_running_loop().remove_reader(source)
                tell("removed")

        def begin():
            asyncio.get_running_loop().add_reader(source, count)
            os.write(sink, b"x")
        """,
        workers=1,
        stuck_after=None,
    )
    async with launched.connect() as client:
        await ask(client, "begin()")
        await launched.told.wait_for("removed")
        (worker,) = launched.workers().values()

        def is_asleep() -> bool:
            with open(f"/proc/{worker}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "S"

        await until(is_asleep)
        spent = await ask(client, "time.process_time()")
        await asyncio.sleep(0.3)
        assert float(await ask(client, "time.process_time()")) - float(spent) < 0.1
