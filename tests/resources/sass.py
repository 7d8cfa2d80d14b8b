"""Counts the instructions of a cubin, as nvdisasm writes them. https://docs.nvidia.com/cuda/cuda-binary-utilities/"""

import re
from collections import Counter

_SECTION = re.compile(r"^\s*\.section\s+\.text\.([^\s,]+)")
_FRAME = re.compile(r'^\s*//## File "([^"]+)", line \d+')
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
_BITS = {"256": 256, "128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}

GLOBAL = {"LDG": "LDG", "STG": "STG", "LD": "generic", "ST": "generic"}
COUNTED = {name: name for name in ("LDGSTS", "LDSM", "LDL", "STL", "BAR", "FFMA", "FADD", "FMUL", "DADD", "DFMA")}
# Two floats at a time, of sm_100 and later; tensor cores by their generations' names.
COUNTED |= {"FFMA2": "FFMA", "FADD2": "FADD", "FMUL2": "FMUL", "HMMA": "HMMA", "HGMMA": "HMMA", "UTCHMMA": "HMMA"}
COLUMNS = [
    "instructions", "HMMA", "LDGSTS", "LDGSTS.128", "LDSM",
    *[f"{kind}.{bits}" for kind in ("LDG", "STG", "activation") for bits in (128, 64, 32, 16, 8)],
    "generic", "LDL", "STL", "BAR", "FFMA", "FADD", "FMUL", "DADD", "DFMA",
]  # fmt: skip


def _bits(modifiers: list[str]) -> int:
    """Of an access of memory: 32 unless the instruction says otherwise."""
    return next((_BITS[modifier] for modifier in modifiers if modifier in _BITS), 32)


def _of_activations(frames: list[str]) -> bool:
    """Whether load() and store() of element.cuh made it, and not for PerChannel in sweep.cuh, which calls them too."""
    ours = [frame.rpartition("/")[2] for frame in frames if "/csrc/cuda/" in frame]
    callers = [name for name in ours if name != "element.cuh"]
    return ours[:1] == ["element.cuh"] and callers[:1] != ["sweep.cuh"]


def _kinds(name: str, modifiers: list[str], frames: list[str]):
    yield "instructions"
    if name in COUNTED:
        yield COUNTED[name]
    if name == "LDGSTS" and _bits(modifiers) == 128:
        yield "LDGSTS.128"
    if name in GLOBAL:
        yield "generic" if GLOBAL[name] == "generic" else f"{name}.{_bits(modifiers)}"
        if _of_activations(frames):
            yield f"activation.{_bits(modifiers)}"


def count(text: str) -> dict[str, dict[str, int]]:
    """By mangled name, what COLUMNS say. The padding at a kernel's end is not counted, its own subroutines are.

    activation.N is the loads and stores of N bits that element.cuh's functions made, as the line numbers tell (nvdisasm
    -gi); generic those of which the compiler does not know that they are of global memory.
    """
    counts: dict[str, Counter] = {}
    frames: list[str] = []  # the instruction's file, that of the code it was inlined into, and so on
    current, frames_end = Counter(), False
    for line in text.splitlines():
        if match := _FRAME.match(line):
            frames = [match[1]] if frames_end else [*frames, match[1]]
            frames_end = False
        elif match := _INSTRUCTION.match(line):
            frames_end = True
            name, *modifiers = match[1].split(".")
            if name != "NOP":
                current.update(_kinds(name, modifiers, frames))
        elif match := _SECTION.match(line):
            frames, current = [], counts.setdefault(match[1], Counter())
    unknown = {kind for counter in counts.values() for kind in counter} - {*COLUMNS}
    if unknown:
        raise ValueError(f"no column for {sorted(unknown)}")
    return {name: {column: counter[column] for column in COLUMNS} for name, counter in counts.items()}
