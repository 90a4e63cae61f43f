"""The pool of threads."""

import gc
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from hubbub.threads import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(3)
    yield pool
    pool.close()


def test_a_job_has_a_result_or_an_exception(pool: Pool) -> None:
    def fail() -> None:
        raise LookupError("in a thread")

    assert pool.submit(lambda: "result").result() == "result"
    assert isinstance(pool.submit(fail).exception(), LookupError)
    assert isinstance(pool.submit(exit).exception(), SystemExit)
    assert pool.submit(lambda: "it goes on").result() == "it goes on"


def test_jobs_run_at_the_same_time_in_so_many_threads(pool: Pool) -> None:
    all_are_here = threading.Barrier(3)
    jobs = [pool.submit(all_are_here.wait) for _ in range(9)]
    assert sorted(job.result() for job in jobs) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_threads_are_started_as_they_are_needed(pool: Pool) -> None:
    before = set(threading.enumerate())
    goes_on = threading.Event()
    first = pool.submit(goes_on.wait)
    assert len(set(threading.enumerate()) - before) == 1
    second = pool.submit(goes_on.wait)
    assert len(set(threading.enumerate()) - before) == 2
    jobs = [pool.submit(goes_on.wait) for _ in range(5)]
    assert len(set(threading.enumerate()) - before) == 3
    goes_on.set()
    for job in (first, second, *jobs):
        job.result()
    assert len(set(threading.enumerate()) - before) == 3


def test_one_thread_runs_jobs_in_order() -> None:
    pool = Pool(1)
    order: list[int] = []
    jobs = [pool.submit(partial(order.append, number)) for number in range(100)]
    for job in jobs:
        job.result()
    assert order == list(range(100))
    pool.close()


def test_a_job_that_is_cancelled_before_it_begins_does_not_run() -> None:
    pool, goes_on = Pool(1), threading.Event()
    ran: list[str] = []
    blocking = pool.submit(goes_on.wait)
    cancelled = pool.submit(lambda: ran.append("cancelled"))
    last = pool.submit(lambda: ran.append("last"))
    assert cancelled.cancel()
    goes_on.set()
    blocking.result()
    last.result()
    assert ran == ["last"]
    pool.close()


def test_threads_are_daemons_and_end_with_the_pool() -> None:
    pool = Pool(2)
    threads = [pool.submit(threading.current_thread).result() for _ in range(5)]
    assert all(thread.daemon for thread in threads)
    assert all(thread.name.startswith("hubbub-") for thread in threads)
    pool.close()
    for thread in threads:
        thread.join()


def test_what_waits_is_done_before_the_threads_end() -> None:
    pool, goes_on = Pool(1), threading.Event()
    blocking = pool.submit(goes_on.wait)
    waiting = pool.submit(lambda: "done")
    pool.close()
    goes_on.set()
    blocking.result()
    assert waiting.result() == "done"


def test_an_idle_thread_keeps_nothing_of_its_last_job(pool: Pool) -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)
    pool.submit(partial(isinstance, large, Large)).result()
    del large
    # The next job has begun, so the previous one has been released.
    pool.submit(lambda: None).result()
    gc.collect()
    assert gone() is None
