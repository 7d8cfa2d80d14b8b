"""Which tiling a convolution uses: remembered, measured or guessed.

It is measured where `torch.backends.cudnn.benchmark` asks for that, as cuDNN's algorithms are. What was found is kept
in a JSON file of the user's cache directory, one for each kind of device. Such a file, put beside this one, is a table that the package
ships. Where nothing is known or measured, and under torch.use_deterministic_algorithms, which the file of another run
must not influence, it is what a shipped table says, or the first of conv_plan.tilings. While a CUDA graph is captured
nothing is measured.

triton.autotune would measure one kernel. A convolution's tiling decides its second kernel and their memory too (the
partial sums of a tile, wgrad's splits), so all of that is measured together, by triton.testing.do_bench.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import triton

from resnet_fused.backends import cache
from resnet_fused.backends.triton.conv_plan import TILINGS, ConvShape, Tiling

FORMAT = 1
HERE = Path(__file__).resolve().parent


def key_of(kind: str, math: str, shape: ConvShape, variant: str) -> str:
    """The problem in words; `variant` says which tensors there are."""
    s = shape
    sizes = f"{s.N}x{s.C}x{s.H}x{s.W} {s.K}x{s.R}x{s.S}"
    pairs = " ".join(f"{a}x{b}" for a, b in (s.stride, s.padding, s.dilation))
    return f"{kind} {math} {sizes} {pairs} groups {s.groups} {variant}".rstrip()


def file_name(device: str) -> str:
    return f"tuned-{re.sub(r'[^A-Za-z0-9]+', '-', device).strip('-').lower()}.json"


@functools.cache
def kernels_version() -> str:
    """Changes with Triton and with the kernels: what was measured of others is no guide."""
    digest = hashlib.sha256(triton.__version__.encode())
    for path in [*sorted(HERE.glob("conv_*.py")), HERE / "element.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read_table(path: Path, device: str) -> dict[str, Tiling]:
    """The table of a file; empty, with a warning, if it is anything but a table for this device and these kernels."""
    try:
        content = json.loads(path.read_text())
        if (content["format"], content["device"], content["kernels"]) != (FORMAT, device, kernels_version()):
            raise ValueError("it is of another device or version")
        return {key: _tiling(key, values) for key, values in content["tilings"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{path} is ignored: {type(error).__name__}: {error}", stacklevel=2)
        return {}


def _tiling(key: str, values) -> Tiling:
    tiling = Tiling(*values)
    if tiling not in TILINGS[key.split()[1]]:
        raise ValueError(f"{key}: no such tiling: {values}")
    return tiling


def write_table(path: Path, device: str, table: dict[str, Tiling]) -> None:
    cache.replace(path, {"format": FORMAT, "device": device, "kernels": kernels_version(), "tilings": table})


class Tuner:
    """The tables of one kind of device. Each file is read once."""

    def __init__(self, device: str, folder: Path | None = None, shipped: Path = HERE):
        self.device = device
        self.path = (folder or cache.folder()) / file_name(device)
        self.shipped = read_table(shipped / file_name(device), device)
        self._measured: dict[str, Tiling] | None = None

    @property
    def measured(self) -> dict[str, Tiling]:
        if self._measured is None:
            self._measured = read_table(self.path, self.device)
        return self._measured

    def choose(self, key: str, tilings: tuple[Tiling, ...], seconds: Callable[[Tiling], float]) -> Tiling:
        """One of `tilings`, the first of which is the guess; `seconds` measures."""
        if not torch.are_deterministic_algorithms_enabled():
            if self.measured.get(key) in tilings:
                return self.measured[key]
            if may_measure() and len(tilings) > 1:
                return self._measure(key, tilings, seconds)
        shipped = self.shipped.get(key)
        return shipped if shipped in tilings else tilings[0]

    def _measure(self, key, tilings, seconds) -> Tiling:
        best = min(tilings, key=seconds)
        self._measured = self.measured | {key: best}
        try:
            with cache.alone(self.path), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._measured = read_table(self.path, self.device) | self._measured  # what others found meanwhile stays
                write_table(self.path, self.device, self._measured)
        except OSError as error:
            warnings.warn(f"what was measured is not kept: {error}", stacklevel=2)
        return best


def may_measure() -> bool:
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    return torch.backends.cudnn.benchmark and not capturing


def seconds_of(run: Callable[[], None], device: torch.device) -> float:
    """Median time of a launch; infinite where the device has not the resources."""
    try:
        with torch.cuda.device(device):
            return triton.testing.do_bench(run, warmup=5, rep=20, return_mode="median") / 1e3
    except triton.runtime.errors.OutOfResources:
        return float("inf")
