"""Steps of a loaded model: a ragged batch of contexts in, the chosen tokens out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan, ContextRows, HeadShape, PlanTooLargeError, TileLimits, backend, fits
from parrot_kernels.tiled import MANY_ROWS
from parrot_nb.engine.embedded import triton_use
from parrot_nb.engine.embedded.adjust import adjust
from parrot_nb.engine.embedded.blocks import BLOCK_ROWS, BlockRows, Blocks, depends_on_others
from parrot_nb.engine.embedded.cache import KVMemory
from parrot_nb.engine.embedded.crew import Crew
from parrot_nb.engine.embedded.decoder import Decoder, Replaceable
from parrot_nb.engine.embedded.device import CaptureError, Device, measuring
from parrot_nb.engine.embedded.failures import lost_device
from parrot_nb.engine.embedded.fused import PARTS, FusedDecoder
from parrot_nb.engine.embedded.graphs import Capture, StepGraphs
from parrot_nb.engine.embedded.inputs import StepInputs
from parrot_nb.engine.embedded.linear import PACKED_BYTES
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.embedded.scores import ScoredRows
from parrot_nb.engine.embedded.script import prescribed
from parrot_nb.engine.embedded.step import Chosen, Run, StepBatch, StepContext
from parrot_nb.engine.embedded.trial import Outcome, Tiled, Trial, deviation, is_narrow
from parrot_nb.engine.memory import first_line, forget_locals, ran_out_of_memory, return_freed
from parrot_nb.engine.protocol import Sampling, Verdict
from parrot_nb.errors import EngineError, EngineLostError, ModelLoadError

T = TypeVar("T")

TILED, GRAPHED = "Triton kernels", "steps as CUDA graphs"  # parts that can be lost while the engine works
GROWTH_SHARE = 0.8  # of the free memory that a larger cache may take: steps and graphs need some, and one layer is there twice


class StepModel:
    """A loaded model that computes steps. Its methods run in the engine's worker thread.

    Args:
        decoder: the model.
        off: optimisations to do without: "two_phase" (attention reads shared tokens once for all), "graphs".
        fuse: makes a fused decoder of this one, which is a `Replaceable`, or raises LookupError. It is taken if it passes a trial.
        compile: have torch.compile compile the fused decoder's layers, on a CPU.
        give_back: is called when the decoder is needed no more: a fused one has its place, or the model is released.
        text: token ids of ordinary text, for trials.
        reproducible: compute in blocks of always as many rows, so that logits do not depend on what else is in a step.
        device: the engine's use of the decoder's device; a new one if None.
        no_triton: why this engine does without Triton, as a clause; None if it works.
        max_context_tokens: the longest context; None if the cache alone limits it.
        crew: decides how many threads compute; if None, always as many.

    Attributes:
        verdicts: what was decided about parts that can run in place of the model's own, and why.
        on_verdict: is told of one that comes after loading, and of the parts that no longer run; in the thread that computes.
    """

    def __init__(
        self,
        decoder: Decoder,
        off: Collection[str] = (),
        fuse: Callable[[], FusedDecoder] | None = None,
        *,
        compile: bool = False,  # noqa: A002 - as torch calls it
        give_back: Callable[[], None] | None = None,
        text: Sequence[int] = (0,),
        reproducible: bool = False,
        device: Device | None = None,
        no_triton: str | None = None,
        max_context_tokens: int | None = None,
        crew: Crew | None = None,
    ) -> None:
        self._device = device or Device(decoder.device)
        self._crew = crew
        self._give_back = give_back
        self._reproducible = reproducible
        self._blocks: Blocks | None = None
        self._text, self._max_context_tokens = text, max_context_tokens
        self.verdicts: tuple[Verdict, ...] = ()
        self.on_verdict: Callable[[Verdict, Collection[str]], None] | None = None
        self._uses_triton = no_triton is None
        if no_triton is not None:
            self._decide(triton_use.PART, "failed", no_triton)
        self._decoder: Decoder | None = decoder
        self._fuse = fuse
        self._compile = compile
        self.device, self.dtype, self.shapes = decoder.device, decoder.dtype, decoder.shapes
        self.num_embeddings = decoder.num_embeddings
        self._off = off
        shape = next(iter(self.shapes.values()))  # layers differ little; what pays for one pays for all
        self._heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.key_dim, shape.value_dim, self.dtype.itemsize)
        self._costs = None if "two_phase" in off else self._heads.costs(self.device)
        self._tiled: TileLimits | None = None
        self._graphs: StepGraphs | None = None
        self._chosen: Tensor | None = None  # by the step before; None where it failed
        self._memory: KVMemory | None = None
        self._page_size = self._num_pages = 0

    def bytes_per_token(self) -> int:
        """KV memory that one token takes, over all layers."""
        return sum(shape.num_bytes(self.dtype.itemsize) for shape in self.shapes.values())

    def prepare(self, page_size: int) -> None:
        """Choose what computes. That lays weights out anew, so it comes before the cache, which gets a share of what is left."""
        self._page_size, given = page_size, self._decoder
        trial = Trial(self._text, page_size, self.shapes, self.device)
        if self._fuse is not None:
            self._with_fallback(partial(self._try_fused, self._fuse, trial))
            self._fuse = None  # it knows the modules, whose weights would stay beside the packed ones
        if self._compile:
            self._try_compiled(trial)
        if self._give_back is not None and self._decoder is not given:
            self._give_back()
        if self._reproducible:
            self._check_reproducible()

    def _check_reproducible(self) -> None:
        """Refuse what cannot be computed reproducibly: before there is a cache."""
        if self.device.type != "cpu" or self._decoder is None or not set(PARTS) <= set(self._decoder.parts):
            why = next((f" ({verdict})" for verdict in self.verdicts if verdict.part == "fused decoder"), "")
            raise ModelLoadError(f"Only fused decoders on a CPU are reproducible{why}: load this model without --reproducible.")
        memory = KVMemory(self.shapes, (BLOCK_ROWS + 2) * self._page_size, self.dtype, self.device)
        with torch.inference_mode():
            if depends_on_others(self._decoder, memory, self._page_size, self._text):
                raise ModelLoadError(
                    f"Products in {str(self.dtype).removeprefix('torch.')} depend on their other rows on this machine, even where "
                    "these are always as many: load the model without --reproducible."
                )

    def allocate(self, num_pages: int) -> None:
        """Make the cache's memory; `settle` comes next."""
        # One page more than the pool has: rows that fill up a captured graph write there.
        self._memory = KVMemory(self.shapes, (num_pages + 1) * self._page_size, self.dtype, self.device)
        self._num_pages = num_pages
        if self._reproducible:
            assert self._decoder is not None
            self._blocks = Blocks(self._decoder, self._memory, self._page_size, spare_page=num_pages)

    def settle(self) -> None:
        """Choose how steps are computed on the cache's memory."""
        if self._device.is_cuda and backend.enabled and self._uses_triton:
            self._with_fallback(partial(self._try_triton, 2 * self._device.num_processors))
        if self._device.is_cuda and self._uses_triton and self._tileable():
            self._tiled = TileLimits(2 * self._device.num_processors)
            self._with_fallback(partial(self._graphs_anew, self._num_pages))
        if self._tiled is not None:
            self._with_fallback(self._warm_up)

    def _warm_up(self) -> None:
        """Compute a prompt that is long enough for the kernels of many rows, which would be compiled while somebody waits."""
        room = self._num_pages * self._page_size
        num_tokens = min(MANY_ROWS + 1, room, self._max_context_tokens or room)  # beyond it, learned positions would end CUDA
        tokens = tuple(self._text[i % len(self._text)] for i in range(num_tokens))
        pages = tuple(range(-(-num_tokens // self._page_size)))
        prompt = StepContext(tokens, 0, pages, Sampling(max_tokens=1), seed=0, position=0)
        with torch.inference_mode():
            self._step(StepBatch((prompt,)), None)

    def resize(self, num_pages: int) -> int:
        """Give the cache so many pages, if there is room for them; returns how many there are then. Graphs are captured anew, since
        they know where the old tensors were.

        Raises:
            EngineLostError: the device computes nothing more for this process.
        """
        try:
            return self._resized(num_pages)
        except Exception as error:
            if (found := self.judged(error)) is error:
                raise
            raise found from None

    def _resized(self, num_pages: int) -> int:
        assert self._memory is not None
        before = self._num_pages
        captured, self._graphs = self._graphs, None
        del captured
        with measuring(self.device), torch.inference_mode():
            growth = (num_pages - before) * self._page_size * self.bytes_per_token()
            if growth > GROWTH_SHARE * self._device.free_bytes():
                num_pages = before
            try:
                if num_pages != before:
                    self._memory.resize((num_pages + 1) * self._page_size)
            except Exception as error:  # as a rule, somebody else took the memory meanwhile
                if self._device.is_lost():
                    raise lost_device(self.device, error) from None
                forget_locals(error)
                num_pages = min(before, num_pages)
            self._device.give_back()
        self._num_pages = num_pages
        if self._tiled is not None:
            self._with_fallback(partial(self._graphs_anew, num_pages))
        return num_pages

    def _graphs_anew(self, num_pages: int) -> None:
        if self._tiled is not None:  # as long as Triton has not failed
            self.use_tiles(self._tiled.target_programs, self._device.capture, num_pages)

    def _tileable(self) -> bool:
        heads = {(shape.num_heads, shape.num_kv_heads) for shape in self.shapes.values()}
        return len(heads) == 1 and all(
            fits(s.num_heads, s.num_kv_heads, s.key_dim, s.value_dim) and self.dtype.itemsize <= 4 for s in self.shapes.values()
        )

    def _try_triton(self, target_programs: int) -> None:
        """Compute a step by Triton's kernels and by torch: that compiles the kernels, and shows ones that compute something else."""
        decoder = self._decoder
        assert decoder is not None
        trial = Trial(self._text, self._page_size, self.shapes, self.device)
        tiled = Tiled(self._heads, self._costs, TileLimits(target_programs)) if self._tileable() else None
        with backend.without():
            own = trial.logits(decoder, self.dtype)
        found = trial.logits(decoder, self.dtype, tiled)
        if is_narrow(self.dtype):
            with backend.without():
                truth = self._in_float32(trial)
            outcome = Outcome(self.dtype, None, deviation(found, truth), deviation(own, truth))
        else:
            outcome = Outcome(self.dtype, deviation(found, own, worst=True))
        if not outcome.passed:
            self._do_without_triton("refused", f"{outcome}; torch computes instead")

    def _in_float32(self, trial: Trial) -> Tensor:
        """Logits of a trial by the decoder's weights, computed in float32."""
        if isinstance(self._decoder, FusedDecoder):
            return trial.logits(self._decoder.widened(), torch.float32)
        plain = cast("Replaceable", self._decoder)
        with plain.in_float32():
            return trial.logits(plain, torch.float32)

    def use_tiles(self, target_programs: int, capture: Capture, num_pages: int, ladder: Sequence[int] | None = None) -> None:
        """Attend by the Triton kernel from now on, and run steps of few rows as graphs where the decoder is fused."""
        assert self._memory is not None
        self._tiled = TileLimits(target_programs)
        if not isinstance(self._decoder, FusedDecoder) or "graphs" in self._off:
            return
        self._device.new_pool()
        try:
            with torch.inference_mode():
                self._graphs = StepGraphs(
                    self._captured,
                    self._memory,
                    num_pages=num_pages,
                    page_size=self._page_size,
                    shape=self._heads,
                    costs=self._costs,
                    target_programs=target_programs,
                    device=self._device,
                    capture=capture,
                    ladder=ladder,
                )
        except Exception as error:
            if self._device.is_lost() or (triton_use.is_from_triton(error) and not isinstance(error, CaptureError)):
                raise
            forget_locals(error)  # which hold what the graphs before it were given
            why = str(error) if isinstance(error, CaptureError) else f"{type(error).__name__}: {first_line(error)}"
            self._decide("CUDA graphs", "failed", f"a capture raised {why}; steps run without")
            self._device.give_back()

    def _decide(self, part: str, outcome: Literal["taken", "refused", "unavailable", "failed"], reason: str) -> None:
        if any((before.part, before.outcome) == (part, outcome) for before in self.verdicts):
            return  # as at every resize
        self.verdicts += (Verdict(part, outcome, reason),)
        if self.on_verdict is not None:
            self.on_verdict(self.verdicts[-1], {TILED, GRAPHED} - set(self.swapped))

    def _try_fused(self, fuse: Callable[[], FusedDecoder], trial: Trial) -> None:
        """Take the fused decoder if there is one for this model and it passes the trial."""
        plain = cast("Replaceable", self._decoder)
        try:
            fused = fuse()
        except LookupError as error:
            return self._decide("fused decoder", "unavailable", f"{error}; the model's own modules run")
        own, found = trial.logits(plain, self.dtype), trial.logits(fused, self.dtype)
        if is_narrow(self.dtype):
            with plain.in_float32():
                truth = trial.logits(plain, torch.float32)
            apart = deviation(trial.logits(fused.widened(), torch.float32), truth, worst=True)
            outcome = Outcome(self.dtype, apart, deviation(found, truth), deviation(own, truth))
        else:
            outcome = Outcome(self.dtype, deviation(found, own, worst=True))
        if outcome.passed:
            try:
                self._decoder = fused.final()
            except LookupError as error:
                return self._decide("fused decoder", "unavailable", f"{error}; the model's own modules run")
            return self._decide("fused decoder", "taken", str(outcome))
        return self._decide("fused decoder", "refused", f"{outcome}; the model's own modules run")

    def _try_compiled(self, trial: Trial) -> None:
        """Take the compiled decoder if there is one for this model and machine and it passes the trial."""
        from parrot_nb.engine.embedded.compiled import PART, CompiledDecoder, copied_bytes, may_compile

        plain = self._decoder
        if not isinstance(plain, FusedDecoder) or self.device.type != "cpu":
            return self._decide(PART, "unavailable", "there are none but for a fused decoder on a CPU")
        if (num_bytes := copied_bytes(plain)) > PACKED_BYTES:
            limit = f"{PACKED_BYTES / 2**30:g} GB"
            copied = f"torch.compile would copy {num_bytes / 2**30:.1f} GB of weights"
            return self._decide(PART, "unavailable", f"{copied}, which pays up to {limit}")
        if not may_compile():
            version = f"torch {torch.__version__} can compile for one engine of a process, and has"
            return self._decide(PART, "unavailable", f"{version}; restart the kernel, or install torch 2.13")
        own = trial.logits(plain, self.dtype)
        compiled = CompiledDecoder(plain)
        try:
            with compiled.compiling():
                found = trial.logits(compiled, self.dtype)
        except Exception as error:  # a compiler can fail in any way, such as by not being installed
            reason = (str(error).strip().splitlines() or [""])[0]
            return self._decide(PART, "failed", f"torch.compile raised {type(error).__name__} ({reason}); the model runs without")
        if is_narrow(self.dtype):
            truth = trial.logits(plain.widened(), torch.float32)
            outcome = Outcome(self.dtype, found=deviation(found, truth), own=deviation(own, truth))
        else:
            outcome = Outcome(self.dtype, deviation(found, own, worst=True))
        if outcome.passed:
            self._decoder = compiled
            return self._decide(PART, "taken", str(outcome))
        return self._decide(PART, "refused", f"{outcome}; the model runs without")

    @property
    def swapped(self) -> tuple[str, ...]:
        """Names of the parts that run in place of transformers' own modules and functions."""
        attention = "attention row by row in fixed blocks" if self._reproducible else "attention over shared pages"
        parts = (attention,) + (() if self._decoder is None else self._decoder.parts)
        if self._tiled is not None:
            parts += (TILED,)
        return parts + ((GRAPHED,) if self._graphs is not None else ())

    def release(self) -> None:
        """Drop weights and cache, and give their memory back."""
        weights = None if self._decoder is None else weakref.ref(self._decoder)
        self._memory = self._blocks = None
        self._decoder = self._fuse = self._graphs = self._chosen = None
        self.on_verdict = None  # which knows the engine, whose model this is
        if self._give_back is not None:
            self._give_back()
        if weights is not None and weights() is not None:
            gc.collect()  # what a first import of model classes caught keeps the frames that imported them, in a cycle
        self._device.give_back()
        return_freed()

    def step(self, batch: StepBatch) -> Chosen:
        """Compute one ragged step, or have the device begin to.

        Raises:
            EngineLostError: the device computes nothing more for this process.
        """
        if self._crew is not None:
            self._crew.before_step()
        before, self._chosen = self._chosen, None  # a step that was planned ahead of one that fails has nothing to go on with
        try:
            with torch.inference_mode():
                chosen = self._with_fallback(partial(self._step, batch, before)).fetched(self._device)
        except Exception as error:
            if (found := self.judged(error)) is error:
                raise
            raise found from None
        self._chosen = chosen.ids
        return chosen

    @property
    def threads(self) -> tuple[int, int]:
        """Threads that compute now, and that may; (0, 0) for a GPU."""
        if self.device.type != "cpu":
            return 0, 0
        return (self._crew.count, self._crew.most) if self._crew is not None else (torch.get_num_threads(),) * 2

    def judged(self, error: BaseException) -> BaseException:
        """Return the error of a step or a resize, or an EngineLostError in its place if it comes from a lost device."""
        known = isinstance(error, EngineLostError) or not isinstance(error, Exception)
        if known or ran_out_of_memory(error) or not self._device.is_lost():
            return error
        forget_locals(error)
        return lost_device(self.device, error)

    def _with_fallback(self, compute: Callable[[], T]) -> T:
        """Compute; where Triton fails, do without it from then on and compute again."""
        try:
            with triton_use.running(uses_triton=self._uses_triton):
                return compute()
        except Exception as error:
            if not self._uses_triton or not triton_use.is_from_triton(error) or self._device.is_lost():
                raise
            forget_locals(error)
            reason = triton_use.failed(error)
        self._do_without_triton("failed", reason)
        with triton_use.running(uses_triton=False):
            return compute()  # what the failed attempt wrote is written again

    def _do_without_triton(self, outcome: Literal["refused", "failed"], reason: str) -> None:
        self._tiled = self._graphs = None
        self._uses_triton = False
        self._decide(triton_use.PART, outcome, reason)

    def _step(self, batch: StepBatch, before: Tensor | None) -> Chosen:
        """Compute a step that may go on from the samples of the one before it, int64 [S]."""
        contexts = batch.contexts
        assert self._memory is not None, "allocate() comes first"
        assert self._decoder is not None
        if before is None and any(context.after is not None for context in contexts):
            raise EngineError("The step that this one was to continue has failed.")
        self._memory.copy(batch.copies, self._page_size, self._device)
        if self._graphs is not None and self._graphs.serves(contexts):
            try:
                return Chosen(self._graphs.step(contexts))
            except PlanTooLargeError:
                pass  # computed without a graph
        if self._blocks is not None:
            logits = self._blocks.logits([BlockRows(c.token_ids, c.start, c.pages, c.num_samples) for c in contexts])
            return _chosen(logits, contexts, _sampling(contexts))
        rows = [ContextRows(c.start, len(c.token_ids), c.pages) for c in contexts]
        place = self.device if self._tiled is None else "cpu"  # tiles are moved with all else
        plan = AttentionPlan.build(rows, self._page_size, place, shape=self._heads, costs=self._costs, tiled=self._tiled)
        host = StepInputs.of(contexts, plan)
        inputs = host.moved(self._device.send_all(host.tensors()))
        logits = self._decoder(inputs.known(before), inputs.positions, Run(inputs.plan, self._memory), inputs.keep)
        chosen = _chosen(logits, contexts, inputs.sampling)
        if self._graphs is not None and chosen.ids is not None:
            self._graphs.keep(chosen.ids)
        return chosen

    def _captured(self, token_ids: Tensor, positions: Tensor, run: Run, keep: Tensor | None, rows: SamplingRows) -> Tensor:
        """A step on tensors alone: the chosen tokens, int64 [number of samples]."""
        assert self._decoder is not None
        return rows.sample(self._decoder(token_ids, positions, run, keep))


def _sampling(contexts: Sequence[StepContext]) -> SamplingRows:
    """Return how tokens are chosen after the rows that are sampled; on the host."""
    samples = [(c, i) for c in contexts for i in range(c.num_samples)]
    samplings = [c.sampling for c, _ in samples if c.sampling is not None]
    return SamplingRows.of(samplings, [c.seed for c, _ in samples], [c.position + i for c, i in samples])


def _chosen(logits: Tensor, contexts: Sequence[StepContext], sampling: SamplingRows) -> Chosen:
    """Sample a step's tokens from logits [S, V], with scores where they are requested."""
    if not any(context.num_samples for context in contexts):
        return Chosen(None)
    scored = ScoredRows.of(logits, contexts)  # before anything changes them
    chosen = prescribed(sampling.sample(adjust(logits, contexts)), contexts)
    return Chosen(chosen, None if scored is None else scored.chosen(chosen))
