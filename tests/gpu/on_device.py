"""The operators on the device that tests/gpu runs on, or why there is none."""

import os

import torch

BACKEND = os.environ.get("RESNET_FUSED_GPU_TESTS", "cuda")  # or triton, library, cuda_emulated
EMULATED = BACKEND == "cuda_emulated"


class Moved:
    """Operators whose arguments go to the device and whose results come back, so that the CPU can judge them."""

    def __init__(self, operators, device) -> None:
        self._operators, self._device = operators, device

    def __getattr__(self, name):
        operator = getattr(self._operators, name)

        def call(*arguments):
            results = operator(*(self._there(argument) for argument in arguments))
            return tuple(map(self._back, results)) if isinstance(results, tuple) else self._back(results)

        return call

    def _there(self, argument):
        if isinstance(argument, list):
            return [self._there(item) for item in argument]
        return argument.to(self._device) if isinstance(argument, torch.Tensor) else argument

    def _back(self, result):
        return result.cpu() if isinstance(result, torch.Tensor) else result


class Gpu:
    def __init__(self, device: str, backend: str, operators) -> None:
        self.device, self.backend, self.operators = torch.device(device), backend, operators
        self.kernels = Moved(operators, self.device)

    def on(self, index: int) -> Moved:
        """The operators on another device of the machine."""
        return Moved(self.operators, torch.device(self.device.type, index))


def why_not() -> str | None:
    if EMULATED:
        return None
    if not torch.cuda.is_available():
        return "no CUDA device here"
    from resnet_fused import backends

    return backends.available()[BACKEND]
