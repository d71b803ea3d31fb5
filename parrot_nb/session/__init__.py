"""A session: the notebook's side of what runs, and the line to the runtime."""

from parrot_nb.session.budget import Budget, budget
from parrot_nb.session.plans import Plan, plan
from parrot_nb.session.session import Session
from parrot_nb.session.sessions import current_session, default_session_or_none, prepare
from parrot_nb.session.splitting import split

__all__ = ["Budget", "Plan", "Session", "budget", "current_session", "default_session_or_none", "plan", "prepare", "split"]
