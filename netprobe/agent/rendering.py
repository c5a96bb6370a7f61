"""Where requests are worked on: two threads that render, one that changes; the event loop only carries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from netprobe.agent.answers import Answer

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
            self._readers.submit(_carry, found, begin)
        # a client that goes away must not take the answer from the others
        return await asyncio.shield(asyncio.wrap_future(found))

    async def change(self, function: Callable[[], Answer]) -> Answer:
        # what was begun is finished, also when the client goes away
        return await asyncio.shield(asyncio.wrap_future(self._writer.submit(function)))

    def close(self) -> None:
        """Let the threads end; what has begun is finished."""
        self._readers.shutdown(wait=False)
        self._writer.shutdown(wait=False)


def _carry(future: Future[Answer], function: Callable[[], Answer]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
