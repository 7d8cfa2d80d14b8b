"""Operators that are Python functions, for tracers too: torch.compile, torch.export and make_fx see each as one node.

Called through torch.library a function takes 7 to 30 microseconds longer, the more arguments it has: as long as a few
launches of kernels. So only tracers get the operators of the library; all others call the functions themselves.
"""

from __future__ import annotations

from typing import Callable

import torch

from resnet_fused.backends.schemas import SCHEMAS


def tracing() -> bool:
    """Whether operators are recorded, or run on tensors without data: by dynamo, a mode that is open, or torch.func."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


class Traceable:
    """Registers torch.ops.<namespace>.<operator>, each of which calls the function of that name in `load()`.

    Not before the first call: what is loaded may take long to import. ops.fake.register(namespace) adds fake kernels.
    """

    def __init__(self, namespace: str, load: Callable[[], object]):
        self._load = load
        self._registered = getattr(torch.ops, namespace)
        self._library = torch.library.Library(namespace, "DEF")  # which registers for as long as it lives
        for schema in SCHEMAS:
            name = schema.partition("(")[0]
            self._library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
            self._library.impl(name, self._implementation(name), "CompositeExplicitAutograd")

    def operators(self):
        """The namespace for a call now."""
        return self._registered if tracing() else self._load()

    def _implementation(self, name: str):
        def call(*arguments):
            return getattr(self._load(), name)(*arguments)

        return call
