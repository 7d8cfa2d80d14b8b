"""What is compiled with a seeded bug, and checked: as few kernels as show it, for compilers take longer than checks."""

import re
from pathlib import Path
from typing import NamedTuple

import cuda_emulated
from csrc import cuda_conv

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
CHOOSE_KERNEL = "auto choose_kernel(const ConvProblem& problem, const TilePlan& plan) {\n"


class Stale(Exception):
    """The kernels have changed: an entry of the table no longer says where its bug belongs."""


class Operators(NamedTuple):
    """The operators, on kernels of these dtypes. Their convolutions, which are not what is checked, are float32's."""

    dtypes: tuple[str, ...]

    @property
    def name(self) -> str:
        return "-".join(self.dtypes)

    @property
    def kernels(self) -> tuple[str, ...]:
        """The .cu files of the library."""
        return tuple(path.stem for path in cuda_emulated.KERNELS)

    @property
    def header_kernels(self) -> tuple[str, ...]:
        """Those that a header's bug is compiled into. The convolutions share only elements and launches."""
        return tuple(kernels for kernels in self.kernels if not kernels.startswith("conv_"))

    def reduce(self, sources: Path) -> None:
        """Leaves the other kernels out of a copy of csrc/cuda."""
        _edit(sources / "variant.cuh", self._with_dtypes)
        choice = "  return kernel_of_plan<Pass, MathFfma>(plan);"
        _edit(sources / "conv_choose.cuh", lambda text: _choosing(text, choice))

    def checked_by(self) -> list[Path]:
        """The files between the kernels and what is asserted."""
        between = [*(cuda_emulated.CSRC / "torch").glob("*"), *cuda_emulated.HERE.glob("*")]
        return [*between, TESTS / "backends" / "checks.py", HERE / "battery_operators.py"]

    def build(self, sources, name: str, edit_ptx=None) -> Path:
        return cuda_emulated.build_library(sources, name, guarded=True, edit_ptx=edit_ptx)

    def _with_dtypes(self, text: str) -> str:
        kept = {f"k{name.replace('float', 'Float').replace('b', 'B')}" for name in self.dtypes}
        cases = list(re.finditer(r"    case DType::(\w+):\n      return f\(.*\);\n", text))
        if len(cases) != 4:
            raise Stale("variant.cuh: with_type is not where its cases were")
        for case in reversed(cases):
            if case[1] not in kept:
                text = text[: case.start()] + text[case.end() :]
        last = max(text.index(case[0]) + len(case[0]) for case in cases if case[1] in kept)
        return text[:last] + '    default:\n      throw std::runtime_error("not compiled");\n' + text[last:]


class Convolutions(NamedTuple):
    """The convolutions by themselves, of one arithmetic, tile and way to copy operands."""

    math: str
    tile: str = "64x64"
    vector: bool = True

    @property
    def name(self) -> str:
        return f"{self.math}-{self.tile}-{'vector' if self.vector else 'scalar'}".lower()

    @property
    def kernels(self) -> tuple[str, ...]:
        return cuda_conv.KERNELS

    @property
    def header_kernels(self) -> tuple[str, ...]:
        raise Stale("a bug in a header of the convolutions names the kernels that it is compiled into")

    def reduce(self, sources: Path) -> None:
        vector = str(self.vector).lower()
        _edit(sources / "conv_choose.cuh", lambda text: _choosing(text, f"""\
  if (plan.tile != TileChoice::k{self.tile} || plan.vector != {vector}) {{
    throw std::runtime_error("not compiled");
  }}
  return Pass::template kernel<Math{self.math}, Tile{self.tile}, {vector}>();"""))

    def checked_by(self) -> list[Path]:
        return [*(TESTS / "csrc").glob("cuda_conv*"), HERE / "battery_conv.py"]

    def build(self, sources, name: str, edit_ptx=None) -> Path:
        return cuda_conv.build_library(sources, name, edit_ptx=edit_ptx)


FLOAT32 = Operators(("float32",))
BFLOAT16 = Operators(("bfloat16",))
OTHER_DTYPES = Operators(("float64", "float16"))
CONV = Convolutions("BFloat16")
CONV_SCALAR = Convolutions("BFloat16", vector=False)
CONV_LARGE = Convolutions("BFloat16", "128x128")
CONV_FLOAT32 = Convolutions("Ffma")
CONV_TF32 = Convolutions("Tf32")


def _edit(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def _choosing(text: str, statements: str) -> str:
    """conv_choose.cuh with these statements for choose_kernel's: what they do not name is not compiled."""
    before, found, after = text.partition(CHOOSE_KERNEL)
    if not found:
        raise Stale("conv_choose.cuh: choose_kernel is not where it was")
    end = after.index("\n}\n")
    return f"#include <stdexcept>\n{before}{found}{statements}{after[end:]}"
