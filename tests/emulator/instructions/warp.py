"""What the lanes of a warp do together."""

from ..operands import vector
from ..ptx import Unsupported
from . import handles


@handles("shfl")
def shuffle(t, i, m):
    m.one_of("sync")
    mode = m.one_of("up", "down", "bfly", "idx")
    m.one_of("b32")
    value, source, clamp, lanes = (t.read(operand, "u32") for operand in i.operands[1:])
    call = f"shuffle(lane, {t.site()}, Shuffle::k{mode.title()}, {value}, {source}, {clamp}, {lanes})"
    target, _, in_range = (part.strip() for part in i.operands[0].partition("|"))
    writes = [t.write(target, "u32", "s.value")] + ([t.write(in_range, "pred", "s.in_range")] if in_range else [])
    return f"{{ const Shuffled s = {call}; {' '.join(writes)} }}"


@handles("vote")
def vote(t, i, m):
    m.one_of("sync")
    mode = m.one_of("all", "any", "uni", "ballot")
    m.one_of("pred", "b32")
    value, lanes = t.read(i.operands[1], "pred"), t.read(i.operands[2], "u32")
    call = f"vote(lane, {t.site()}, Vote::k{mode.title()}, {value}, {lanes})"
    return t.write(i.operands[0], *(("u32", call) if mode == "ballot" else ("pred", f"bool({call})")))


@handles("activemask")
def active_lanes(t, i, m):
    """Nothing is promised about which lanes run together: this one alone."""
    m.one_of("b32")
    return t.write(i.operands[0], "u32", "1u << lane.laneid")


@handles("match")
def match(t, i, m):
    every = m.one_of("any", "all") == "all"
    m.one_of("sync")
    kind = m.one_of("b32", "b64")
    value, lanes = t.read(i.operands[1], f"u{kind[1:]}"), t.read(i.operands[2], "u32")
    call = f"match(lane, {t.site()}, {str(every).lower()}, {value}, {lanes})"
    target, _, equal = (part.strip() for part in i.operands[0].partition("|"))
    writes = [t.write(target, "u32", "matched.lanes")] + ([t.write(equal, "pred", "matched.all")] if equal else [])
    return f"{{ const Matched matched = {call}; {' '.join(writes)} }}"


@handles("redux")
def reduce(t, i, m):
    m.one_of("sync")
    operation = m.one_of("add", "min", "max", "and", "or", "xor")
    kind = m.type()
    if kind not in ("u32", "s32", "b32"):
        raise Unsupported(f"redux of .{kind}")
    signed = str(kind == "s32").lower()
    value, lanes = (t.read(operand, "u32") for operand in i.operands[1:])
    call = f"redux(lane, {t.site()}, Redux::k{operation.title()}, {signed}, {value}, {lanes})"
    return t.write(i.operands[0], "u32", call)


@handles("ldmatrix")
def load_matrices(t, i, m):
    for part in ("sync", "aligned", "m8n8"):
        m.one_of(part)
    count = int(m.one_of("x1", "x2", "x4")[1])
    transposed = str(m.flag("trans")).lower()
    m.one_of("shared", "shared::cta")
    m.one_of("b16")
    call = f"load_matrices(lane, {t.site()}, {count}, {transposed}, {t.address(i.operands[1], 'u32')})"
    writes = [t.write(target, "u32", f"rows.row[{n}]") for n, target in enumerate(vector(i.operands[0]))]
    return f"{{ const Matrices rows = {call}; {' '.join(writes)} }}"


# Shape and type of the operands -> registers of a, b; all with c and d in f32.
_PRODUCTS = {("m16n8k16", "f16"): (4, 2), ("m16n8k16", "bf16"): (4, 2), ("m16n8k8", "f16"): (2, 1),
             ("m16n8k8", "bf16"): (2, 1), ("m16n8k8", "tf32"): (4, 2), ("m16n8k4", "tf32"): (2, 1)}  # fmt: skip
_TYPES = {"f16": "kF16", "bf16": "kBF16", "tf32": "kTF32"}


@handles("mma")
def multiply_matrices(t, i, m):
    for part in ("sync", "aligned", "row", "col"):
        m.one_of(part)
    shape, *kinds = m.rest
    m.rest = []
    key = (shape, kinds[1])
    if key not in _PRODUCTS or kinds != ["f32", kinds[1], kinds[1], "f32"]:
        raise Unsupported(f"a product {shape} of {kinds}")
    counts = _PRODUCTS[key]
    a, b, c = (vector(operand) for operand in i.operands[1:])
    if (len(a), len(b), len(c)) != (*counts, 4):
        raise Unsupported("the number of registers")
    registers = [", ".join(t.read(register, "u32") for register in part) for part in (a, b)]
    sums = ", ".join(t.read(register, "f32") for register in c)
    operands = f"const MmaOperands o = {{{{{registers[0]}}}, {{{registers[1]}}}, {{{sums}}}}};"
    call = f"multiply_matrices(lane, {t.site()}, MmaType::{_TYPES[kinds[1]]}, {shape.rpartition('k')[2]}, o)"
    writes = [t.write(target, "f32", f"r.d[{n}]") for n, target in enumerate(vector(i.operands[0]))]
    return f"{{ {operands} const MmaResult r = {call}; {' '.join(writes)} }}"
