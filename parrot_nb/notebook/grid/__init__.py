"""The table view: rows of a map, an evaluation or a comparison, of which the page gets what is in sight.

Like the graph it comes to life over still HTML that every notebook file holds (see `widget.lively`).
"""

from parrot_nb.notebook.grid.csv_text import csv_chunk
from parrot_nb.notebook.grid.grid import Grid, Query
from parrot_nb.notebook.grid.view import GridView

__all__ = ["Grid", "GridView", "Query", "csv_chunk"]
