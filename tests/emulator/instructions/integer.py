"""Integer arithmetic, and the opcodes that integers and floating-point numbers share."""

from ..operands import integer, unsigned
from ..ptx import BITS, Unsupported
from . import floating, handles

_OPERATORS = {"add": "+", "sub": "-"}


@handles("add", "sub")
def add(t, i, m):
    kind = m.type()
    if not integer(kind):
        return floating.binary(t, i, m, kind)
    kind, operator = _wrapping(kind, m), _OPERATORS[i.parts[0]]
    a, b = (t.read(operand, kind) for operand in i.operands[1:])
    if m.flag("sat"):
        if i.parts[-1] != "s32":
            raise Unsupported(".sat of a type other than .s32")
        a, b = (t.read(operand, "s32") for operand in i.operands[1:])
        return t.write(i.operands[0], "u32", f"add_saturated({a}, {operator}s64({b}))")
    if m.flag("cc"):
        return _with_carry_out(t, i.operands[0], kind, a, b, operator, "")
    return t.write(i.operands[0], kind, f"{kind}({a} {operator} {b})")


@handles("addc", "subc")
def add_with_carry(t, i, m):
    kind = _wrapping(m.type(), m)
    a, b = (t.read(operand, kind) for operand in i.operands[1:])
    operator = _OPERATORS[i.parts[0][:3]]
    if m.flag("cc"):
        return _with_carry_out(t, i.operands[0], kind, a, b, operator, f" {operator} carry")
    return t.write(i.operands[0], kind, f"{kind}({a} {operator} {b} {operator} carry)")


def _with_carry_out(t, target, kind, a, b, operator, carry_in):
    """`carry` is 1 where an addition overflowed, or a subtraction borrowed."""
    if kind not in ("u32", "u64"):
        raise Unsupported(f".cc of .{kind}")
    wide = f"const unsigned __int128 wide = (unsigned __int128)({a}) {operator} {b}{carry_in};"
    return f"{{ {wide} {t.write(target, kind, f'{kind}(wide)')} carry = u32(wide >> {BITS[kind]} & 1); }}"


def _wrapping(kind, m):
    """Sums and products wrap around, so they are taken of unsigned numbers."""
    if kind[0] == "b":
        raise Unsupported(f"arithmetic of .{kind}")
    return unsigned(kind)


@handles("mul", "mad")
def multiply(t, i, m):
    kind = m.type()
    if not integer(kind):
        return floating.fma(t, i, m, kind) if i.parts[0] == "mad" else floating.binary(t, i, m, kind)
    part = m.one_of("lo", "hi", "wide")
    target, *sources = i.operands
    if part == "wide":
        result = f"{kind[0]}{2 * BITS[kind]}"
        a, b = (t.read(source, kind) for source in sources[:2])
        product = f"{unsigned(result)}({result}({a}) * {result}({b}))"
    elif part == "hi":
        result = kind
        a, b = (f"{kind}({t.read(source, kind)})" for source in sources[:2])
        product = f"{unsigned(kind)}(multiply_high({a}, {b}))"
    else:
        result = kind
        a, b = (t.read(source, unsigned(kind)) for source in sources[:2])
        product = f"{unsigned(kind)}(1u * {a} * {b})"
    result = unsigned(result)
    if i.parts[0] == "mad":
        product = f"{result}({product} + {t.read(sources[2], result)})"
    return t.write(target, result, product)


@handles("mul24", "mad24")
def multiply24(t, i, m):
    raise Unsupported("24-bit products")


@handles("div")
def divide(t, i, m):
    kind = m.type()
    if not integer(kind):
        return floating.divide(t, i, m, kind)
    return _call(t, i, kind, "divide")


@handles("rem")
def remainder(t, i, m):
    return _call(t, i, m.type(), "remainder")


@handles("sad")
def sum_of_absolute_differences(t, i, m):
    kind = m.type()
    a, b = (t.read(operand, kind) for operand in i.operands[1:3])
    bits = unsigned(kind)
    difference, c = f"{bits}(absolute_difference<{kind}>({a}, {b}))", t.read(i.operands[3], bits)
    return t.write(i.operands[0], bits, f"{bits}({difference} + {c})")


def _call(t, i, kind, function):
    a, b = (t.read(operand, kind) for operand in i.operands[1:])
    return t.write(i.operands[0], kind, f"{function}<{kind}>({a}, {b})")


@handles("abs", "neg")
def unary(t, i, m):
    kind = m.type()
    if not integer(kind):
        return floating.unary(t, i, m, kind)
    a, target = t.read(i.operands[1], unsigned(kind)), i.operands[0]
    negated = f"{unsigned(kind)}(0 - {a})"
    if i.parts[0] == "neg":
        return t.write(target, unsigned(kind), negated)
    return t.write(target, unsigned(kind), f"{kind}({a}) < 0 ? {negated} : {a}")


@handles("min", "max")
def extreme(t, i, m):
    kind = m.type()
    if not integer(kind):
        return floating.extreme(t, i, m, kind)
    a, b = (t.read(operand, kind) for operand in i.operands[1:])
    return t.write(i.operands[0], kind, f"{a} {'<' if i.parts[0] == 'min' else '>'} {b} ? {a} : {b}")


@handles("dp4a")
def dot4(t, i, m):
    kinds = [m.rest.pop(0), m.rest.pop(0)]
    if set(kinds) - {"u32", "s32"}:
        raise Unsupported("types of dp4a")
    a, b, c = (t.read(operand, "u32") for operand in i.operands[1:])
    elements = ", ".join(f"{kind[0]}8" for kind in kinds)
    return t.write(i.operands[0], "u32", f"dot4<{elements}>({a}, {b}, {c})")


_INTEGER_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
                        "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # fmt: skip
_COMPARISONS = [*_INTEGER_COMPARISONS, "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]


def comparison(t, a, b, operator, kind, ftz=False):
    """A C++ expression of a bool."""
    if not integer(kind):
        return floating.comparison(t, a, b, operator, kind, ftz)
    if operator not in _INTEGER_COMPARISONS:
        raise Unsupported(f"comparison .{operator} of .{kind}")
    return f"{t.read(a, kind)} {_INTEGER_COMPARISONS[operator]} {t.read(b, kind)}"


def _combined(t, i, m, operands, compared):
    """With a further predicate: (and, or, xor)."""
    combine = m.one_of("and", "or", "xor", default="none")
    if combine == "none":
        return lambda value: value
    operator = {"and": "&&", "or": "||", "xor": "!="}[combine]
    other = t.read(operands, "pred")
    return lambda value: f"({value}) {operator} ({other})"


@handles("setp")
def set_predicate(t, i, m):
    kind = m.type()
    operator, ftz = m.one_of(*_COMPARISONS), m.flag("ftz")
    targets = [part.strip() for part in i.operands[0].split("|")]
    combined = _combined(t, i, m, i.operands[-1], None)
    if kind in ("f16x2", "bf16x2"):
        halves = floating.packed_comparisons(t, i.operands[1], i.operands[2], operator, kind, ftz)
        values = [combined(half) for half in halves]
    else:
        value = comparison(t, i.operands[1], i.operands[2], operator, kind, ftz)
        values = [combined(value), combined(f"!({value})")][: len(targets)]
    code = "".join(f"const bool p{n} = {value}; " for n, value in enumerate(values))
    return "{ " + code + " ".join(t.write(target, "pred", f"p{n}") for n, target in enumerate(targets)) + " }"


@handles("set")
def set_value(t, i, m):
    source = m.type()
    result = m.type()
    operator, ftz = m.one_of(*_COMPARISONS), m.flag("ftz")
    combined = _combined(t, i, m, i.operands[-1], None)
    if source in ("f16x2", "bf16x2"):
        if result not in (source, "u32", "s32"):
            raise Unsupported(f"set from .{source} to .{result}")
        one = floating.ONE[source[:-2]] if result == source else "0xffff"
        low, high = floating.packed_comparisons(t, i.operands[1], i.operands[2], operator, source, ftz)
        value = f"pack({combined(low)} ? {one} : 0, {combined(high)} ? {one} : 0)"
        return t.write(i.operands[0], result, value)
    value = combined(comparison(t, i.operands[1], i.operands[2], operator, source, ftz))
    ones = {"u32": "~0u", "s32": "-1", "f32": "1.0f", **{k: f"u16({v})" for k, v in floating.ONE.items()}}
    if result not in ones:
        raise Unsupported(f"set to .{result}")
    zero = {"f32": "0.0f"}.get(result, "0")
    return t.write(i.operands[0], result, f"{value} ? {ones[result]} : {zero}")


@handles("selp")
def select(t, i, m):
    kind = m.type()
    a, b = (t.read(operand, kind) for operand in i.operands[1:3])
    return t.write(i.operands[0], kind, f"{t.read(i.operands[3], 'pred')} ? {a} : {b}")


@handles("slct")
def select_by_sign(t, i, m):
    by = m.type()
    kind = m.type()
    if by not in ("s32", "f32"):
        raise Unsupported(f"slct by .{by}")
    a, b = (t.read(operand, kind) for operand in i.operands[1:3])
    return t.write(i.operands[0], kind, f"{t.read(i.operands[3], by)} >= 0 ? {a} : {b}")
