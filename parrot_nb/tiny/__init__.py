"""The embedded model: an ordinary Hugging Face checkpoint that needs no network. Until parrot-tiny is trained its weights are
random, drawn from a fixed seed on first use.
"""

from parrot_nb.tiny.cache import cache_folder, default_model

__all__ = ["cache_folder", "default_model"]
