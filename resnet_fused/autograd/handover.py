"""What consecutive residual chains hand on in the backward pass: a gradient that is masked already, and its sums.

    forward     x → chain k → out → chain k+1 → …
    backward                  g, Σg, Σg·x̂ ←

A chain's output out = relu(z_n(raw_n) + shortcut) has its gradient masked, and summed for z_n's gradients, before
anything else is done with it. Chain k+1, whose first convolution's epilogue writes that gradient, reads out as its own
input; so the epilogue can do both,

    g = dx where not (out <= 0),  Σg,  Σg·x̂_n,

and no pass reads dx, out and raw_n again. Whoever looked at out.grad would see g in dx's place: so chains hand over
only within together(), whose caller vouches that nobody else reads or watches what one of them leaves for the next
(modules/stages.py). A hook on a node of the autograd graph, found by walking it, does see g. Parameters' gradients are
right in any case: what chain k receives counts as handed over if it is that very tensor, unchanged. If another gradient
was added to it, it is masked and summed as ever, and masking g twice is masking it once.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

BACKENDS = ("cpu",)  # whose conv_backward has the epilogue; elsewhere handing over would save nothing


class Handed:
    """The place for one gradient between two chains' backward passes."""

    def __init__(self) -> None:
        self._put: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def put(self, grad: Tensor, sums: Tensor) -> None:
        # Weak, for of a part of the gradients (autograd.grad) chain k's may not be, and then nobody takes it.
        self._put = None if grad.is_inference() else (weakref.ref(grad), grad._version, sums)

    def take(self, grad: Tensor) -> Tensor | None:
        """The sums that were put here with `grad`, if it was that and is unchanged: autograd adds in place."""
        put, self._put = self._put, None
        if put is None or put[0]() is not grad or put[1] != grad._version:
            return None
        return put[2]


class Tail(NamedTuple):
    """A chain's end: its output, (raw, affine) of the batch norms whose sum that is, and where its gradient is put."""

    out: Tensor
    norms: tuple[Tensor, ...]
    handed: Handed


class Link(NamedTuple):
    """Of one chain: where its output's gradient is put, and the end of the chain before it, if that is to be served."""

    received: Handed
    norms: tuple[Tensor, ...] = ()
    onward: Handed | None = None


class _State(threading.local):
    open = False
    tail: Tail | None = None


_state = _State()


@contextlib.contextmanager
def together(is_open: bool = True):
    """Chains called within hand over, each to the one whose output it reads; together(False): not those within."""
    before = _state.open, _state.tail
    _state.open, _state.tail = is_open, None
    try:
        yield
    finally:
        _state.open, _state.tail = before


def interrupt() -> None:
    """What the next chain reads is read or watched by others too."""
    _state.tail = None


def link(backend: str, x: Tensor, alone: bool) -> Link | None:
    """For a chain that reads x; alone: x is not an operand of its shortcut's too."""
    if not _state.open or backend not in BACKENDS or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return None
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:  # as of checkpoints, which run it twice
        return None
    tail, _state.tail = _state.tail, None
    if tail is None or tail.out is not x or not x.requires_grad or not alone:
        return Link(Handed())
    return Link(Handed(), tail.norms, tail.handed)


def leave(tail: Tail) -> None:
    """For the chain that may read tail.out."""
    _state.tail = tail
