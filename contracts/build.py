"""Compiles the Vyper sources into `contracts/artifacts`: one JSON file per contract, the same bytes
from the same sources on any machine.

Run by `make contracts` in an environment of its own (`contracts/compiler.txt`), since the compiler
wants older libraries than the daemon has. `--check` writes nothing and fails when what is committed
is not what the sources make.
"""

from __future__ import annotations

import argparse
import json
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "src"
ARTIFACTS = HERE / "artifacts"
# The newest rules that both py-evm and anvil run and Plumise's fork is likely to have; Vyper's
# default is newer.
EVM = "cancun"


def artifact_of(source: Path) -> bytes:
    """What is committed for one source: ABI, creation and runtime code, where the state lies, and
    the digest of the source.
    """
    from vyper import __version__  # noqa: PLC0415  # the compiler is in an environment of its own
    from vyper.compiler import compile_from_file_input  # noqa: PLC0415
    from vyper.compiler.input_bundle import FilesystemInputBundle  # noqa: PLC0415
    from vyper.compiler.settings import OptimizationLevel, Settings  # noqa: PLC0415

    site = Path(sys.modules["vyper"].__file__ or "").parents[1]
    bundle = FilesystemInputBundle([site, SOURCES])
    made = compile_from_file_input(
        bundle.load_file(source.name),
        input_bundle=bundle,
        # The last two for their checks alone.
        output_formats=["abi", "bytecode", "bytecode_runtime", "layout", "userdoc", "devdoc"],
        settings=Settings(evm_version=EVM, optimize=OptimizationLevel.GAS),
    )
    record = {
        "contract": source.stem,
        "compiler": f"vyper {__version__.partition('+')[0]}, evm {EVM}, optimize gas",
        "source_sha256": sha256(source.read_bytes()).hexdigest(),
        "abi": made["abi"],
        "bytecode": made["bytecode"],
        "bytecode_runtime": made["bytecode_runtime"],
        "layout": made["layout"],
    }
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when the committed files differ"
    )
    parser.add_argument("--only", default="*", metavar="NAME", help="one contract instead of all")
    wanted = parser.parse_args()
    check = wanted.check
    differ = []
    for source in sorted(SOURCES.glob(f"{wanted.only}.vy")):
        artifact = ARTIFACTS / f"{source.stem}.json"
        made = artifact_of(source)
        if not artifact.is_file() or artifact.read_bytes() != made:
            differ.append(artifact.name)
            if not check:
                artifact.write_bytes(made)
    if check and differ:
        print(
            f"not what the sources make: {', '.join(differ)}; type: make contracts", file=sys.stderr
        )
        return 1
    print(
        f"{len(differ)} of {len(list(SOURCES.glob('*.vy')))} artifacts written"
        if not check
        else "the artifacts are what the sources make"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
