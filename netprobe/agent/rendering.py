"""Where requests are worked on: two threads that render, one that changes; the event loop only carries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from netprobe.agent.answers import Answer
from netprobe.agent.threads import beginning

__all__ = ["Work"]

# more would only take turns at the interpreter's lock
READERS = 2


class Work:
    """Runs the functions behind the routes off the event loop.

    Equal reads share one run as long as it has not begun: whoever asks sees nothing older than the question,
    and a storm of scrapes costs two runs at a time. Changes go one after the other.
    """

    def __init__(self) -> None:
        self._readers = ThreadPoolExecutor(READERS, "web-read")
        self._writer = ThreadPoolExecutor(1, "web-admin")
        self._waiting: dict[Hashable, Future[Answer]] = {}
        self._begun = False

    def begin(self) -> None:
        """Have a thread of each kind: later there may be none left to be had. InputError."""
        if not self._begun:
            for pool in (self._readers, self._writer):
                with beginning("web server"):
                    pool.submit(int)
        self._begun = True

    @property
    def queued(self) -> int:
        """Reads that have not begun."""
        return len(self._waiting)

    async def read(self, key: Hashable, function: Callable[[], Answer]) -> Answer:
        found = self._waiting.get(key)
        if found is None:

            def begin() -> Answer:
                self._waiting.pop(key, None)
                return function()

            # only this thread adds, and a reader takes the entry away when it begins
            found = Future()
            self._waiting[key] = found
            # without a thread for a second reader it is the first one's turn
            with contextlib.suppress(RuntimeError):
                self._readers.submit(_carry, found, begin)
        return await _result_of(found)

    async def change(self, function: Callable[[], Answer]) -> Answer:
        # what was begun is finished, also when the client goes away
        return await _result_of(self._writer.submit(function))

    def close(self) -> None:
        """Let the threads end; what has begun is finished."""
        self._readers.shutdown(wait=False)
        self._writer.shutdown(wait=False)


def _result_of(work: Future[Answer]) -> asyncio.Future[Answer]:
    """Work of a thread, for one who waits on the event loop.

    A client that goes away takes the answer from nobody else; work that ends after the loop is no trouble.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[Answer] = loop.create_future()

    def settle() -> None:
        if not waiter.done():
            error = work.exception()
            if error is None:
                waiter.set_result(work.result())
            else:
                waiter.set_exception(error)

    def tell(_: Future[Answer]) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    work.add_done_callback(tell)
    return waiter


def _carry(future: Future[Answer], function: Callable[[], Answer]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
