"""Whether the kernel that runs is one that the face works in.

What is installed says little: a hosted notebook may have started its kernel before it was replaced, or install without
dependencies. In some older kernels a cell that waits never ends, so it is said when the extension is loaded.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from IPython.core.error import UsageError

OLDEST = (7, 4)  # of ipykernel; a test compares it with pyproject.toml


def require_kernel(ip: Any, running: str | None = None) -> None:
    """Refuse a shell whose kernel is too old.

    Args:
        ip: the shell; without a kernel of ipykernel nothing is asked of it.
        running: the kernel's version; by default that of the ipykernel in memory, which may not be the one on the disk.

    Raises:
        UsageError: it is too old. Says what to type.
    """
    version = running or getattr(sys.modules.get("ipykernel"), "__version__", None)
    if getattr(ip, "kernel", None) is None or version is None:
        return
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(
            f"parrot_nb needs ipykernel {oldest} or later, and this kernel runs {version}: "
            f"run `%pip install -U 'ipykernel>={oldest}'`, then restart the kernel."
        )
