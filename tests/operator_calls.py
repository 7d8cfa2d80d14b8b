"""Counts the operators that are called within a context, by name."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

FREE = {"aten::detach", "aten::view", "aten::slice", "aten::select", "aten::ones_like"}  # no kernel runs, or not ours


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function._schema.name] += 1
        return function(*args, **(kwargs or {}))

    def working(self) -> dict[str, int]:
        return {name.removeprefix("resnet_fused::"): n for name, n in self.calls.items() if name not in FREE}

    def masking_passes(self) -> int:
        """Over gradients of blocks' outputs, which handing over saves."""
        return self.calls["resnet_fused::bn_backward_mask_reduce"]
