"""A session: the notebook's side of what runs, and the line to the runtime."""

from parrot_nb.session.session import Session
from parrot_nb.session.sessions import current_session, default_session_or_none, prepare

__all__ = ["Session", "current_session", "default_session_or_none", "prepare"]
