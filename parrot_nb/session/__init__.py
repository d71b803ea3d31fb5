"""A session: the notebook's side of what runs, and the line to the runtime."""

from parrot_nb.session.budget import Budget, budget
from parrot_nb.session.session import Session
from parrot_nb.session.sessions import current_session, default_session_or_none, prepare

__all__ = ["Budget", "Session", "budget", "current_session", "default_session_or_none", "prepare"]
