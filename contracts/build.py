"""Compiles the Vyper sources into `contracts/artifacts`, one JSON file for each contract.

The same sources give the same bytes on any machine. `make contracts` runs this program in an
environment of its own (`contracts/compiler.txt`), since the compiler needs older libraries than
the daemon. With `--check` the program writes nothing, and fails if the committed artifacts are not
what the sources give.
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
# The newest rules that py-evm and anvil both run and that Plumise's fork is likely to have. Vyper's
# default is newer.
EVM = "cancun"


def artifact_of(source: Path) -> bytes:
    """Compile one contract.

    Returns the artifact: ABI, creation and runtime code, storage layout, and each source's digest.
    """
    # Late, since the compiler exists only in its own environment.
    from vyper import __version__  # noqa: PLC0415
    from vyper.compiler import compile_from_file_input  # noqa: PLC0415
    from vyper.compiler.input_bundle import FilesystemInputBundle  # noqa: PLC0415
    from vyper.compiler.settings import OptimizationLevel, Settings  # noqa: PLC0415

    bundle = FilesystemInputBundle([SOURCES])
    made = compile_from_file_input(
        bundle.load_file(source.name),
        input_bundle=bundle,
        # The compiler checks NatSpec only when it is asked for the documentation.
        output_formats=["abi", "bytecode", "bytecode_runtime", "layout", "userdoc", "devdoc"],
        settings=Settings(evm_version=EVM, optimize=OptimizationLevel.GAS),
    )
    read = [source, *imported_by(source)]
    record = {
        "contract": source.stem,
        "compiler": f"vyper {__version__.partition('+')[0]}, evm {EVM}, optimize gas",
        "sources": {
            str(file.relative_to(SOURCES)): sha256(file.read_bytes()).hexdigest() for file in read
        },
        "abi": made["abi"],
        "bytecode": made["bytecode"],
        "bytecode_runtime": made["bytecode_runtime"],
        "layout": made["layout"],
    }
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def imported_by(source: Path) -> list[Path]:
    """Return the modules of `library` that a contract imports. These modules import nothing."""
    lines = source.read_text().splitlines()
    prefix = "from library import "
    return [
        SOURCES / "library" / f"{line.removeprefix(prefix)}.vy"
        for line in lines
        if line.startswith(prefix)
    ]


def main() -> int:
    """Write the artifacts, or check them. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail if the committed artifacts are not what the sources give",
    )
    parser.add_argument("--only", default="*", metavar="NAME", help="compile one contract")
    options = parser.parse_args()
    differ = []
    for source in sorted(SOURCES.glob(f"{options.only}.vy")):
        artifact = ARTIFACTS / f"{source.stem}.json"
        made = artifact_of(source)
        if not artifact.is_file() or artifact.read_bytes() != made:
            differ.append(artifact.name)
            if not options.check:
                artifact.write_bytes(made)
    if not options.check:
        print(f"Wrote {len(differ)} of {len(list(SOURCES.glob('*.vy')))} artifacts.")
        return 0
    if differ:
        print(
            f"These artifacts are not what the sources give: {', '.join(differ)}. "
            "Type: make contracts",
            file=sys.stderr,
        )
        return 1
    print("All artifacts are what the sources give.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
