"""Makes a node tell a lie of the simulator (`simulator/faults/lies.py`) to its real peers.

Python imports this module at its start if this folder is on the path. `E2E_LIE` names the lie, and
`E2E_ACCOMPLICES` the homes of all nodes that tell it, separated by colons. The node prints TOLD
once it has told the lie.
"""

import importlib.util
import os
import random
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ENGINE = "daemon.services.training.native.engine"
TOLD = "the lie was told"
LIE, ACCOMPLICES = os.environ.get("E2E_LIE", ""), os.environ.get("E2E_ACCOMPLICES", "")


def lie(module: ModuleType) -> None:
    """Put a liar between the engine and its network."""
    # Late, since the module that imports these is not complete before.
    from msgspec.structs import replace  # noqa: PLC0415

    from daemon.home.layout import KEY_FILE  # noqa: PLC0415
    from protocol.averaging.vector_layout import chunk_count  # noqa: PLC0415
    from protocol.identity import Signer  # noqa: PLC0415
    from simulator.faults.injector import FaultInjector, FaultyNetwork  # noqa: PLC0415
    from simulator.faults.liar import Situation  # noqa: PLC0415
    from simulator.faults.lies import LIES  # noqa: PLC0415

    engine = module.NativeEngine
    honest = engine.__init__
    signers = tuple(
        Signer((Path(home) / KEY_FILE).read_bytes()) for home in ACCOMPLICES.split(":") if home
    )

    def lying(self, *, context, ports, exclusion_reason=lambda _: "", **more):  # type: ignore[no-untyped-def]
        injector = FaultInjector(random.Random(LIE))
        liar = LIES[LIE](context.signer, context.run, context.manifest, injector.rng)
        injector.liar = liar
        told: list[bool] = []

        def tell(happened: object) -> None:
            if happened and not told:
                told.append(True)
                print(TOLD, flush=True)

        def watched(name: str) -> None:
            """Print when a method of the liar changes anything."""
            method = getattr(liar, name)

            def watch(*arguments: object) -> object:
                result = method(*arguments)
                tell(result != [arguments[-1]] if name == "gossip" else result)
                return result

            setattr(liar, name, watch)

        for name in ("spreads", "gossip", "excludes"):
            watched(name)

        def tip():  # type: ignore[no-untyped-def]
            if parameters := self._parameters():
                liar.situation = replace(liar.situation, chunks=chunk_count(parameters))
            return self.state.tip if self.state is not None else None

        liar.situation = Situation(
            tip=tip, lineage=lambda: self.peers.lineage, accomplices=lambda: signers, chunks=1
        )
        network = FaultyNetwork(ports.network, injector, lambda *_: None)
        honest(
            self,
            context=context,
            ports=replace(ports, network=network),
            exclusion_reason=lambda peer: liar.excludes(peer) or exclusion_reason(peer),
            **more,
        )

    engine.__init__ = lying


class EvilVoter:
    """A finder that lets the usual finders load a module, and changes the module then."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != ENGINE:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_lie(module: ModuleType) -> None:
            execute(module)
            lie(module)

        spec.loader.exec_module = execute_and_lie  # type: ignore[method-assign]
        return spec


if LIE:
    sys.meta_path.insert(0, EvilVoter())  # type: ignore[arg-type]
