"""Products of four warps, sm_90a's wgmma: both operands from shared memory, d in f32."""

import re

from ..operands import identifier, vector
from ..ptx import BITS, Unsupported
from . import handles

_K = {"f16": ("kF16", 16), "bf16": ("kBF16", 16), "tf32": ("kTF32", 8)}


@handles("wgmma")
def warpgroup(t, i, m):
    what = m.one_of("mma_async", "fence", "commit_group", "wait_group")
    for part in ("sync", "aligned"):
        m.one_of(part)
    if what == "mma_async":
        return _product(t, i, m)
    if what == "wait_group":
        return f"wait_for_products(lane, {t.site()}, {int(i.operands[0], 0)});"
    return f"{what.removesuffix('_group')}_products(lane, {t.site()});"


def _product(t, i, m):
    """`{d...}, descriptor a, descriptor b, add to d, scale a, scale b[, a is MN-major, b is MN-major]`"""
    shape, *kinds = m.rest
    m.rest = []
    extents = re.fullmatch(r"m64n(\d+)k(\d+)", shape)
    if not extents or len(kinds) != 3 or kinds[0] != "f32" or kinds[1] != kinds[2] or kinds[1] not in _K:
        raise Unsupported(f"a product {shape} of {kinds}")
    n, k = map(int, extents.groups())
    kind, right_k = _K[kinds[1]]
    if k != right_k or n % 8 or not 8 <= n <= 256:
        raise Unsupported(f"a product {shape} of {kinds}")
    d, a, b, add, *scales = i.operands
    registers = vector(d)
    if len(registers) != n // 2 or any(BITS[t.register(register)] != 32 for register in registers):
        raise Unsupported("the registers")
    if a.startswith("{"):
        raise Unsupported("a from registers")
    if scales[:2] != ["1", "1"] or len(scales) != (2 if kinds[1] == "tf32" else 4):
        raise Unsupported(f"scales and layouts {scales}")
    mn_major = [str(bool(int(flag))).lower() for flag in scales[2:]] or ["false", "false"]
    pointers = ", ".join(f"reinterpret_cast<float*>(&{identifier(register)})" for register in registers)
    shape = f"{{MmaType::{kind}, {n}, {k}, {', '.join(mn_major)}}}"
    operands = f"{t.read(a, 'u64')}, {t.read(b, 'u64')}, {t.read(add, 'pred')}"
    return f"{{ float* const d[] = {{{pointers}}}; issue_product(lane, {t.site()}, {shape}, {operands}, d); }}"
