"""The face in Jupyter: magics, live views and their still pictures, and how cells wait and fail. Loading it loads no
model and no torch."""

from parrot_nb.notebook.extension import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "unload_ipython_extension"]
