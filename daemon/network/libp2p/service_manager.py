"""Runs py-libp2p's services so that a task that fails ends itself alone.

The library's own manager cancels the whole service, and with it the node, when any of its tasks
raises. A stranger's malformed message is enough for that. This manager implements the same
interface and contains the errors of each task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.tools.anyio_service.api import InternalManagerAPI, ManagerAPI, ServiceAPI
from libp2p.tools.anyio_service.stats import Stats, TaskStats

from daemon.network.error_boundary import contain_errors


class ContainedManager(InternalManagerAPI):
    """Runs the tasks of a libp2p `Service` inside the block of `run_service()`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._finished = trio.Event()
        self.failures = 0

    @property
    def is_started(self) -> bool:
        return True

    @property
    def is_running(self) -> bool:
        return not self._finished.is_set()

    @property
    def is_cancelled(self) -> bool:
        return self._finished.is_set()

    @property
    def is_finished(self) -> bool:
        return self._finished.is_set()

    @property
    def did_error(self) -> bool:
        return False

    @property
    def stats(self) -> Stats:
        return Stats(tasks=TaskStats(total_count=0, finished_count=0))

    def run_task(
        self,
        async_fn: Callable[..., Any],
        *args: Any,
        daemon: bool = False,
        name: str | None = None,
    ) -> None:
        if self.is_running:
            self._nursery.start_soon(self._contain, async_fn, args, name=name or async_fn)

    def run_daemon_task(
        self, async_fn: Callable[..., Any], *args: Any, name: str | None = None
    ) -> None:
        self.run_task(async_fn, *args, name=name)

    def run_child_service(
        self, service: ServiceAPI, daemon: bool = False, name: str | None = None
    ) -> ManagerAPI:
        service._manager = self
        self.run_task(service.run, name=name)
        return self

    def run_daemon_child_service(self, service: ServiceAPI, name: str | None = None) -> ManagerAPI:
        return self.run_child_service(service, name=name)

    async def _contain(self, async_fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        doing = getattr(async_fn, "__qualname__", str(async_fn))
        with contain_errors(doing) as outcome:
            await async_fn(*args)
        if outcome.failed is None:
            return
        self.failures += 1
        owner: Any = getattr(async_fn, "__self__", None)
        # The task was the reader of a connection, which is of no use without it.
        if hasattr(owner, "cut"):
            await owner.cut("its reader failed")

    async def wait_started(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_finished(self) -> None:
        await self._finished.wait()

    def cancel(self) -> None:
        self._finished.set()
        self._nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        self.cancel()

    async def run(self) -> None:
        raise NotImplementedError("entered through service()")

    @classmethod
    async def run_service(cls, service: ServiceAPI) -> None:
        raise NotImplementedError("entered through service()")


@asynccontextmanager
async def run_service(service: ServiceAPI) -> AsyncIterator[ContainedManager]:
    """Run a libp2p service inside the block."""
    async with trio.open_nursery() as nursery:
        manager = ContainedManager(nursery)
        service._manager = manager
        manager.run_task(service.run)
        try:
            yield manager
        finally:
            manager.cancel()
