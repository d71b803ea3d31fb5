"""`python -m parrot_nb.runtime`: a runtime in a process of its own, which hears and speaks through its standard input and output."""

from __future__ import annotations

from parrot_nb.runtime.process import main

if __name__ == "__main__":
    main()
