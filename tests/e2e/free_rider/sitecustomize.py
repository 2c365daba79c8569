"""Makes a node a free rider: it offers nothing of what it trained, and claims the samples.

Python imports this module at its start if this folder is on the path. It changes the ledger once
the node imports it.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

LEDGER_STORE = "daemon.services.training.native.state.ledger_store"


def ride(module: ModuleType) -> None:
    """Let every offer hold zeros."""
    store = module.LedgerStore
    make_offer = store.make_offer

    async def offer_nothing(self, delta, *arguments, **more):  # type: ignore[no-untyped-def]
        delta[:] = 0
        return await make_offer(self, delta, *arguments, **more)

    store.make_offer = offer_nothing


class FreeRider:
    """A finder that lets the usual finders load a module, and changes the module then."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != LEDGER_STORE:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_ride(module: ModuleType) -> None:
            execute(module)
            ride(module)

        spec.loader.exec_module = execute_and_ride  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, FreeRider())  # type: ignore[arg-type]
