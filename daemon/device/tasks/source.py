"""Computes the digest of a task's source, which ignores comments, docstrings and blank lines.

It covers the loaded modules in the folder of the author's module: a member with another version of
one of them trains another task. Libraries do not count, because their versions differ between
machines.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from protocol.digest import Digest, digest
from protocol.run.task_digest import MAX_LABEL_CHARS, SourcePart

# The limit for one author's folder, which may be a home folder with many other files.
MAX_MODULES = 256
_DOMAIN = b"hypergpu/source/1\0"
_OURS = frozenset({"daemon", "protocol", "contracts", "simulator", "configs", "hypergpu", "tests"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def sources_of(module_name: str) -> tuple[SourcePart, ...]:
    """Return the digests of the module and of the loaded modules beside it, ordered by name."""
    module = sys.modules.get(module_name)
    file = _file_of(module) if module is not None else None
    if file is None:
        return ()
    top = module_name.partition(".")[0]
    top_file = _file_of(sys.modules.get(top)) or file
    root = top_file.parent.parent if top_file.name == "__init__.py" else top_file.parent
    found: dict[str, Path] = {module_name: file}
    for name, other in sorted(sys.modules.items()):
        path = _file_of(other)
        if path is not None and _belongs(name, path, root, top):
            found[name] = path
    names = sorted(found)[:MAX_MODULES]
    return tuple(
        SourcePart(name=f"module {name}"[:MAX_LABEL_CHARS], digest=source_digest(found[name]))
        for name in names
    )


def _belongs(name: str, path: Path, root: Path, top: str) -> bool:
    if name.partition(".")[0] == top:
        return True
    if (
        not path.is_relative_to(root)
        or name.partition(".")[0] in _OURS
        or name.startswith("__main")
    ):
        return False
    inside = path.relative_to(root).parts
    return not (_INSTALLED & {*inside, *root.parts}) and not path.is_relative_to(
        sysconfig.get_path("stdlib")
    )


def _file_of(module: ModuleType | None) -> Path | None:
    named = getattr(module, "__file__", None)
    return Path(named).resolve() if isinstance(named, str) and named.endswith(".py") else None


def source_digest(path: Path) -> Digest:
    """Return the digest of a Python file's syntax tree, without docstrings.

    For a file that does not parse any more, this is the digest of its bytes.
    """
    try:
        source = path.read_bytes()
    except OSError:
        return digest(_DOMAIN, b"unreadable")
    return _digest_of(source)


# A large folder takes seconds, and a node asks for the description more than once. With room for
# two folders, another author's module does not push all files of the first one out.
@lru_cache(maxsize=2 * MAX_MODULES)
def _digest_of(source: bytes) -> Digest:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return digest(_DOMAIN, source)
    return digest(_DOMAIN, _written(tree).encode("utf-8", "surrogatepass"))


def _written(node: object) -> str:
    """A node as text, without positions, empty fields and docstrings."""
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        fields.pop("kind", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields["body"] = _without_docstring(node.body)
        inner = ",".join(
            f"{name}={_written(value)}" for name, value in fields.items() if value not in (None, [])
        )
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    return repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return body[1:] if is_text else body
