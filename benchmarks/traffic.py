"""The bytes that a Bottleneck moves in float16 training, fused: counted by the emulator, beside the formulas. No GPU.

    python benchmarks/traffic.py --batch 4 --size 56 --json FILE

A unit is a tensor of N x 64 x size x size; the block is 256-64-64-256 with an identity shortcut. Counted are the distinct
sectors of 32 bytes that each launch of our CUDA kernels reads or writes, weights, statistics and partial results included.
By formula, with activations alone and each read or written once a kernel:

    eager  forward   convolution reads and writes 5, 2, 5; statistics read 1, 1, 4; normalise 2, 2, 8; ReLU 2, 2;
                     add 12; ReLU 8
           backward  ReLU 12; add 0; sums 2, 2, 8 and apply 3, 3, 12 of the batch norms; ReLU 3, 3;
                     dgrad 5, 2, 5; wgrad 5, 2, 5; the shortcut's gradient added 12
    fused  forward   fprop 5, 2, 5; apply 12, and the mask of its ReLU, a bit for 16
           backward  mask and sums 12, and that mask; dgrad 10, 4, 10; wgrad 6, 3, 9
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Sequence

import torch

import resnet_fused
from resnet_fused.bench import environment
from resnet_fused.bench.result import Unwritable, check_writable, to_json, write_output
from resnet_fused.cli.bench import positive

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # where the emulator is

EAGER = {"forward": [5, 2, 5, 1, 1, 4, 2, 2, 8, 2, 2, 12, 8], "backward": [12, 2, 2, 8, 3, 3, 12, 3, 3, 5, 2, 5, 5, 2, 5, 12]}
MASK = 4 / 16
FUSED = {"forward": [5, 2, 5, 12, MASK], "backward": [12, MASK, 10, 4, 10, 6, 3, 9]}


def formula(terms: dict[str, list[float]]) -> float:
    return sum(map(sum, terms.values()))


def launches(batch: int, size: int) -> list[dict[str, Any]]:
    """A training step of the block, as its launches: kernel, bytes read and written, summed over equal kernels."""
    import cuda_emulated

    emulated = cuda_emulated.load()
    torch.manual_seed(0)
    block = resnet_fused.Bottleneck(256, 64).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 256, size, size).to(torch.float16, memory_format=torch.channels_last).requires_grad_()
    with emulated.counting() as read, resnet_fused.backend("cuda_emulated"), torch.autocast("cpu", torch.float16):
        out = block(x)
        out.backward(torch.randn_like(out))
        counts = read().values()
    kinds = ("bytes_read", "bytes_written")
    return [{"kernel": count["name"], **{kind: count[kind] for kind in kinds}} for count in counts]


def measure(batch: int, size: int) -> dict[str, Any]:
    unit = batch * 64 * size * size * torch.float16.itemsize
    kernels = launches(batch, size)
    moved = sum(kernel["bytes_read"] + kernel["bytes_written"] for kernel in kernels)
    return {
        "block": "Bottleneck 256-64-64-256, identity, float16, training",
        "batch": batch,
        "size": size,
        "unit_bytes": unit,
        "units_fused_counted": moved / unit,
        "units_fused_formula": formula(FUSED),
        "units_eager_formula": formula(EAGER),
        "counted_to_eager": moved / unit / formula(EAGER),
        "kernels": kernels,
    }


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=positive, default=4, metavar="N")
    parser.add_argument("--size", type=positive, default=56, metavar="S", help="height and width")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        check_writable(options.json)
        run(options)
    except Unwritable as error:
        print(f"traffic.py: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Measure, show and write."""
    result = measure(options.batch, options.size)
    print(f"{result['units_fused_counted']:.1f} units counted ({result['units_fused_formula']} by formula), "
          f"{result['counted_to_eager']:.3f} of eager's {result['units_eager_formula']}")  # fmt: skip
    if options.json:
        command = ["python", "benchmarks/traffic.py", "--batch", options.batch, "--size", options.size]
        result = {"command": shlex.join(map(str, command)), "date": time.strftime("%Y-%m-%d"), **result,
                  "versions": environment.versions()}  # fmt: skip
        write_output(options.json, to_json(result))


if __name__ == "__main__":
    sys.exit(main())
