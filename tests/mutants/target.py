"""What is compiled with a seeded bug, and checked: as few kernels as show it, for compilers take longer than checks."""

import re
from pathlib import Path
from typing import NamedTuple

import cuda_emulated
from csrc import cuda_conv

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
# Files that choose a kernel, and where: what is not chosen is not compiled.
CHOICE = ("conv_choose.cuh", "auto choose_kernel(const ConvProblem& problem, const TilePlan& plan) {\n")
CHOICE_SM90 = ("conv_choose_sm90.cuh", "auto choose_sm90_kernel(DType dtype, const TilePlan& plan) {\n")
NOTHING = '  throw std::runtime_error("not compiled");\n  return nullptr;'


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
        _choose(sources, CHOICE, "  return kernel_of_plan<Pass, MathFfma>(plan);")
        _choose(sources, CHOICE_SM90, NOTHING)

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
    """The convolutions by themselves, of one arithmetic, tile and way to copy operands; or of all tiles by wgmma."""

    math: str
    tile: str = "64x64"
    vector: bool = True
    wgmma: bool = False

    @property
    def name(self) -> str:
        kind = "wgmma" if self.wgmma else f"{self.tile}-{'vector' if self.vector else 'scalar'}"
        return f"{self.math}-{kind}".lower()

    @property
    def kernels(self) -> tuple[str, ...]:
        return cuda_conv.KERNELS

    @property
    def header_kernels(self) -> tuple[str, ...]:
        raise Stale("a bug in a header of the convolutions names the kernels that it is compiled into")

    def reduce(self, sources: Path) -> None:
        for choice in (CHOICE, CHOICE_SM90):
            _choose(sources, choice, NOTHING)
        self.choose(sources)

    def choose(self, sources: Path) -> None:
        """Its kernels, of those with wgmma or of those without."""
        if self.wgmma:
            _choose(sources, CHOICE_SM90, f"  return sm90_kernel_of_plan<Pass, Math{self.math}Sm90>(plan);")
            return
        vector = str(self.vector).lower()
        _choose(sources, CHOICE, f"""\
  if (plan.tile != TileChoice::k{self.tile} || plan.vector != {vector}) {{
    throw std::runtime_error("not compiled");
  }}
  return Pass::template kernel<Math{self.math}, Tile{self.tile}, {vector}>();""")

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
CONV_WGMMA = Convolutions("BFloat16", wgmma=True)


def _edit(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def _choose(sources: Path, choice, statements: str) -> None:
    """A copy of csrc/cuda with these statements for a choice's: what they do not name is not compiled."""
    file, begin = choice
    before, found, after = (sources / file).read_text().partition(begin)
    if not found:
        raise Stale(f"{file}: its choice is not where it was")
    end = after.index("\n}\n")
    (sources / file).write_text(f"#include <stdexcept>\n{before}{found}{statements}{after[end:]}")
