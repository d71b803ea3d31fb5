"""parrot-tiny, the embedded model: an ordinary Hugging Face checkpoint that needs no network, with all that made it: the
generator of its data, its tokenizer, its training and its evaluation. `weights/README.md` is its card.
"""

from parrot_nb.tiny.checkpoint import default_model

__all__ = ["default_model"]
