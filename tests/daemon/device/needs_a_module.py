"""A task's module whose own import is missing on this machine."""

import no_such_library  # noqa: F401
