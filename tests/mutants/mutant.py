"""What a seeded bug is."""

import re
from typing import NamedTuple

import cuda_emulated

from .target import FLOAT32, Convolutions, Operators, Stale

SOURCES = cuda_emulated.ROOT / "csrc" / "cuda"


class Mutant(NamedTuple):
    name: str
    file: str  # in csrc/cuda
    old: str  # text that the file has exactly once
    new: str
    symptom: str
    # The .cu files that are compiled with it. A header's bug in one of its kernels is harder to find than in all.
    sources: tuple[str, ...] = ()
    target: Operators | Convolutions = FLOAT32
    host: bool = False  # a .cuh file's bug changes what the launchers do, too

    @property
    def of_device_alone(self) -> bool:
        return self.file.endswith(".cuh") and self.file not in ("launch.cuh", "variant.cuh") and not self.host

    def compiled(self) -> tuple[str, ...]:
        own = self.file.partition(".")[0]
        return self.sources or ((own,) if own in self.target.kernels else self.target.header_kernels)

    def edit_source(self, text: str) -> str:
        if text.count(self.old) != 1:
            raise Stale(f"{self.name}: {self.file} has its text {text.count(self.old)} times, not once:\n{self.old}")
        return text.replace(self.old, self.new)

    def check(self) -> None:
        """Raises Stale."""
        self.compiled()
        self.edit_source((SOURCES / self.file).read_text())


class PtxMutant(NamedTuple):
    """A bug between the compiler's output and its translation, as a compiler's would be."""

    name: str
    source: str  # the .cu file
    entry: str  # of the kernel's mangled name
    pattern: str  # a regular expression within an instruction
    which: int  # of its matches in that kernel
    new: str  # as re.sub's
    symptom: str
    target: Operators | Convolutions = FLOAT32

    def compiled(self) -> tuple[str, ...]:
        return (self.source,)

    def edit_ptx(self, source: str, ptx: str) -> str:
        if source != f"{self.source}.cu":
            return ptx
        entries = [m.start() for m in re.finditer(r"\.entry \w+", ptx) if self.entry in m[0]]
        if len(entries) != 1:
            raise Stale(f"{self.name}: {source} has {len(entries)} kernels named {self.entry}")
        next_entry = ptx.find(".entry ", entries[0] + 1)
        end = len(ptx) if next_entry < 0 else next_entry
        matches = list(re.finditer(self.pattern, ptx[entries[0] : end]))
        if len(matches) <= self.which:
            raise Stale(f"{self.name}: {self.entry} has {len(matches)} times {self.pattern}")
        match = matches[self.which]
        begin = entries[0] + match.start()
        return ptx[:begin] + match.expand(self.new) + ptx[entries[0] + match.end() :]

    def check(self) -> None:
        """Whether its place is there is known once the kernels are compiled."""
        if self.source not in self.target.kernels:
            raise Stale(f"{self.name}: there is no {self.source}.cu")
