"""The module of a task that imports a library which is not installed."""

import no_such_library  # noqa: F401
