"""How many blocks of a kernel an SM holds.

Limits: CUDA Programming Guide, section 5.1, table "Device and Streaming Multiprocessor (SM) Information per Compute
Capability", https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html. How registers
and shared memory are rounded up: the toolkit's own calculator, include/cuda_occupancy.h, the oracle of the test.
"""

from dataclasses import dataclass

WARP = 32
SUB_PARTITIONS = 4  # of an SM, each with its part of the registers and of the warps
REGISTER_UNIT = 256  # registers are given to a warp by so many
SHARED_UNIT = 128  # bytes
SHARED_RESERVED = 1024  # bytes of every block, the system's


@dataclass(frozen=True)
class Limits:
    """Of one SM."""

    blocks: int
    warps: int
    shared: int  # bytes
    registers: int = 65536


LIMITS = {
    "sm_80": Limits(blocks=32, warps=64, shared=164 * 1024),
    "sm_86": Limits(blocks=16, warps=48, shared=100 * 1024),
    "sm_89": Limits(blocks=24, warps=48, shared=100 * 1024),
    "sm_90": Limits(blocks=32, warps=64, shared=228 * 1024),
    "sm_100": Limits(blocks=32, warps=64, shared=228 * 1024),
    "sm_120": Limits(blocks=24, warps=48, shared=100 * 1024),
}


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def blocks_per_sm(arch: str, registers: int, threads: int, shared: int) -> int:
    """Blocks of `threads` threads with so many registers a thread and bytes of shared memory, static and dynamic."""
    limits = LIMITS[arch]
    warps = _round_up(threads, WARP) // WARP
    of_warp = _round_up(registers * WARP, REGISTER_UNIT)
    by_registers = limits.registers // SUB_PARTITIONS // of_warp * SUB_PARTITIONS // warps
    by_shared = limits.shared // _round_up(shared + SHARED_RESERVED, SHARED_UNIT)
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared)
