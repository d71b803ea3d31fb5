"""The interactive graph: what is sent to the page about a graph's calls, and what the page may ask.

It comes to life over the still picture that every notebook file holds (see `view`), so a notebook that is saved,
executed without a browser, untrusted or opened without a kernel shows that picture, and nothing else is ever written
into a file.
"""

from parrot_nb.notebook.widget.details import details
from parrot_nb.notebook.widget.front import FrontEnd
from parrot_nb.notebook.widget.view import GraphView
from parrot_nb.notebook.widget.wire import Sent, structure

__all__ = ["FrontEnd", "GraphView", "Sent", "details", "structure"]
