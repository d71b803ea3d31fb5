"""The sessions of a process: the one that is entered, the default one, and what becomes of them at exit and in forks."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from parrot_nb.language.host import entered_session, provide_default_host
from parrot_nb.session import spare
from parrot_nb.session.ending import let_threads_hang

if TYPE_CHECKING:
    from parrot_nb.session.session import Session

FORKED = "The session belongs to the process that this one was forked from: make a new one here with P.Session()."

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_default_session: Session | None = None
_making_default = threading.Lock()
_make: Callable[..., Session] | None = None
default_settings: dict[str, Any] = {}  # arguments of the default session, as a face is configured
on_default_session: Callable[[Session], None] | None = None  # a face wants to know its session before the first call


def serve(make: Callable[..., Session]) -> None:
    """Called once, by `parrot_nb.session.session`: how the default session is made."""
    global _make
    _make = make
    provide_default_host(current_session)


def opened(session: Session) -> None:
    """A session was made: it is closed at exit, at the latest."""
    _sessions.add(session)


def current_session() -> Session:
    """The session entered with `with`, else the default one, made on first need."""
    entered = entered_session()
    if entered is not None:
        return cast("Session", entered)
    global _default_session
    with _making_default:
        if _default_session is None or not _default_session.is_open:
            assert _make is not None, "parrot_nb.session.session says how sessions are made"
            _default_session = _make(**default_settings)
            if on_default_session is not None:
                on_default_session(_default_session)
        return _default_session


def default_session_or_none() -> Session | None:
    """The default session, if one was made and is open."""
    return _default_session if _default_session is not None and _default_session.is_open else None


def prepare() -> None:
    """Start a process for the runtime that will be needed soon, unless a session of this process has one. Returns at once."""
    if not any(session.has_runtime for session in list(_sessions)):
        spare.prepare()


@atexit.register
def _close_all() -> None:
    for session in list(_sessions):
        with contextlib.suppress(Exception):  # the process ends; there is nobody left to tell
            session.close()
    let_threads_hang()


def _in_child() -> None:
    """The threads that a session lives by are not copied into a fork, which must not wait for them."""
    global _default_session, _making_default
    _default_session, _making_default = None, threading.Lock()
    for session in list(_sessions):
        session.abandon(FORKED)
    _sessions.clear()
    spare.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
