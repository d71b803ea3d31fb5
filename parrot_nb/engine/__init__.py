"""What fills, generates and frees contexts: the protocol that the runtime speaks, and the engines that meet it."""

from parrot_nb.engine.codec import Codec
from parrot_nb.engine.protocol import Engine, EngineLoad, GenerationEnd, ModelInfo, Piece, Sampling, StepRecord

__all__ = ["Codec", "Engine", "EngineLoad", "GenerationEnd", "ModelInfo", "Piece", "Sampling", "StepRecord"]
