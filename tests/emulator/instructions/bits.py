"""Moves and logic."""

from ..operands import unsigned, vector
from ..ptx import BITS, Unsupported
from . import handles


@handles("mov")
def move(t, i, m):
    kind = m.type()
    target, source = i.operands
    if target.startswith("{"):
        parts = vector(target)
        part = f"u{BITS[kind] // len(parts)}"
        pieces = [t.write(name, part, f"{part}(whole >> {n * BITS[part]})") for n, name in enumerate(parts)]
        return f"{{ const {unsigned(kind)} whole = {t.read(source, unsigned(kind))}; {' '.join(pieces)} }}"
    if source.startswith("{"):
        parts, whole = vector(source), unsigned(kind)
        part = f"u{BITS[kind] // len(parts)}"
        pieces = [f"{whole}({t.read(name, part)}) << {n * BITS[part]}" for n, name in enumerate(parts)]
        return t.write(target, whole, f"{whole}({' | '.join(pieces)})")
    return t.write(target, kind, t.read(source, kind))


@handles("and", "or", "xor")
def logic(t, i, m):
    kind = m.type()
    operator = {"and": "&", "or": "|", "xor": "^"}[i.parts[0]]
    a, b = (t.read(operand, kind) for operand in i.operands[1:])
    if kind == "pred":
        return t.write(i.operands[0], kind, f"bool(({a}) {operator} ({b}))")
    return t.write(i.operands[0], kind, f"{unsigned(kind)}({a} {operator} {b})")


@handles("not")
def complement(t, i, m):
    kind = m.type()
    a = t.read(i.operands[1], kind)
    return t.write(i.operands[0], kind, f"!{a}" if kind == "pred" else f"{unsigned(kind)}(~{a})")


@handles("cnot")
def logical_not(t, i, m):
    kind = m.type()
    return t.write(i.operands[0], kind, f"{unsigned(kind)}({t.read(i.operands[1], kind)} == 0)")


@handles("shl", "shr")
def shift(t, i, m):
    kind = m.type()
    if i.parts[0] == "shl" or kind[0] == "b":
        kind = unsigned(kind)
    function = "shift_left" if i.parts[0] == "shl" else "shift_right"
    value, count = t.read(i.operands[1], kind), t.read(i.operands[2], "u32")
    return t.write(i.operands[0], kind, f"{function}<{kind}>({value}, {count})")


@handles("shf")
def funnel_shift(t, i, m):
    m.type()
    direction, mode = m.one_of("l", "r"), m.one_of("wrap", "clamp")
    low, high, count = (t.read(operand, "u32") for operand in i.operands[1:])
    count = f"{count} & 31" if mode == "wrap" else f"at_most_32({count})"
    function = "funnel_left" if direction == "l" else "funnel_right"
    return t.write(i.operands[0], "u32", f"{function}({low}, {high}, {count})")


@handles("bfe")
def extract(t, i, m):
    kind = m.type()
    value, position, length = t.read(i.operands[1], kind), *(t.read(operand, "u32") for operand in i.operands[2:])
    return t.write(i.operands[0], kind, f"extract_field<{kind}>({value}, {position}, {length})")


@handles("bfi")
def insert(t, i, m):
    kind = unsigned(m.type())
    field, into = (t.read(operand, kind) for operand in i.operands[1:3])
    position, length = (t.read(operand, "u32") for operand in i.operands[3:])
    return t.write(i.operands[0], kind, f"insert_field<{kind}>({field}, {into}, {position}, {length})")


@handles("bfind")
def find(t, i, m):
    kind, shift_amount = m.type(), m.flag("shiftamt")
    value = f"find_leading<{kind}>({t.read(i.operands[1], kind)}, {str(shift_amount).lower()})"
    return t.write(i.operands[0], "u32", value)


@handles("clz", "popc")
def count(t, i, m):
    kind = unsigned(m.type())
    function = {"clz": "leading_zeros", "popc": "ones"}[i.parts[0]]
    return t.write(i.operands[0], "u32", f"{function}({t.read(i.operands[1], kind)})")


@handles("brev")
def reverse(t, i, m):
    kind = unsigned(m.type())
    return t.write(i.operands[0], kind, f"reverse_bits<{kind}>({t.read(i.operands[1], kind)})")


@handles("prmt")
def permute(t, i, m):
    m.type()
    if m.rest:
        raise Unsupported("modes of prmt")
    arguments = ", ".join(t.read(operand, "u32") for operand in i.operands[1:])
    return t.write(i.operands[0], "u32", f"permute_bytes({arguments})")


@handles("lop3")
def logic3(t, i, m):
    m.type()
    a, b, c = (t.read(operand, "u32") for operand in i.operands[1:4])
    return t.write(i.operands[0], "u32", f"logic3<{int(i.operands[4], 0)}>({a}, {b}, {c})")
