"""Engines that fill contexts, generate from them and free them, and the protocol through which the runtime speaks to them."""

from parrot_nb.engine.codec import Codec
from parrot_nb.engine.protocol import Engine, EngineLoad, GenerationEnd, ModelInfo, Piece, Sampling, StepRecord

__all__ = ["Codec", "Engine", "EngineLoad", "GenerationEnd", "ModelInfo", "Piece", "Sampling", "StepRecord"]
