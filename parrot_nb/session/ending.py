"""The end of a process in which threads of ours still compute."""

from __future__ import annotations

import contextlib
import ctypes
import threading


def let_threads_hang() -> None:
    """Have threads that come back to Python from now on wait for the end of the process, if any of ours is left.

    Python before 3.14 unwinds their stacks while it shuts down. torch's C++ frames take that for an exception that nobody may
    raise, and the whole process would abort after it has done its work.
    """
    if any(thread.name.startswith("parrot-") for thread in threading.enumerate()):
        with contextlib.suppress(OSError, AttributeError):  # another C++ library
            set_terminate = ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE  # noqa: SLF001 - std::set_terminate
            set_terminate.argtypes, set_terminate.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_terminate(ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p))
