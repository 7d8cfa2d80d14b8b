"""Floating-point arithmetic. f32 and f64 are float and double; fp16 and bf16, single or packed, functions on bits."""

from ..ptx import Unsupported
from . import handles

ROUNDS = {"rn": "Round::kNearest", "rz": "Round::kZero", "rm": "Round::kDown", "rp": "Round::kUp"}
FORMATS = {"f16": "F16", "f16x2": "F16", "bf16": "BF16", "bf16x2": "BF16"}
ONE = {"f16": "0x3c00", "bf16": "0x3f80"}
_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_ROUNDED = {"add": "add_rounded", "sub": "add_rounded", "mul": "multiply_rounded", "div": "divide_rounded"}
_NARROW = {"add": "narrow_add", "sub": "narrow_subtract", "mul": "narrow_multiply", "min": "narrow_min",
           "max": "narrow_max", "neg": "narrow_negate", "abs": "narrow_absolute", "ex2": "narrow_exp2",
           "tanh": "narrow_tanh"}  # fmt: skip


def _read(t, operand, kind, ftz):
    value = t.read(operand, kind)
    if ftz and kind != "f32":
        raise Unsupported(f".ftz of .{kind}")
    return f"flush({value})" if ftz else value


def _finished(value, ftz, saturated):
    value = f"flush({value})" if ftz else value
    return f"saturate({value})" if saturated else value


def _narrow(t, i, m, kind, function):
    """A function of fp16 or bf16, or of each half of a pair."""
    for modifier in ("ftz", "rz", "rm", "rp"):
        if m.flag(modifier):
            raise Unsupported(f".{modifier} of .{kind}")
    m.flag("rn")
    saturated, relu = m.flag("sat"), m.flag("relu")
    arguments = [t.read(operand, kind) for operand in i.operands[1:]]
    template, call = f"{FORMATS[kind]}", f"({', '.join(arguments)})"
    wrapped = (lambda f: f"packed<{f}<{template}>>") if kind.endswith("x2") else (lambda f: f"{f}<{template}>")
    value = wrapped(function) + call
    for wanted, name in ((saturated, "narrow_saturate"), (relu, "narrow_relu")):
        value = f"{wrapped(name)}({value})" if wanted else value
    return t.write(i.operands[0], kind, value)


def binary(t, i, m, kind):
    opcode = i.parts[0]
    if kind in FORMATS:
        return _narrow(t, i, m, kind, _NARROW[opcode])
    rounding, ftz, saturated = m.one_of(*ROUNDS, default="rn"), m.flag("ftz"), m.flag("sat")
    a, b = (_read(t, operand, kind, ftz) for operand in i.operands[1:])
    if rounding == "rn":
        value = f"{a} {_OPERATORS[opcode]} {b}"
    else:
        value = f"{_ROUNDED[opcode]}({ROUNDS[rounding]}, {a}, {'-' if opcode == 'sub' else ''}{b})"
    return t.write(i.operands[0], kind, _finished(value, ftz, saturated))


@handles("fma")
def _fma(t, i, m):
    return fma(t, i, m, m.type())


def fma(t, i, m, kind):
    if kind in FORMATS:
        return _narrow(t, i, m, kind, "narrow_fma")
    rounding, ftz, saturated = m.one_of(*ROUNDS), m.flag("ftz"), m.flag("sat")
    arguments = ", ".join(_read(t, operand, kind, ftz) for operand in i.operands[1:])
    value = f"fma({arguments})" if rounding == "rn" else f"fma_rounded({ROUNDS[rounding]}, {arguments})"
    return t.write(i.operands[0], kind, _finished(value, ftz, saturated))


def divide(t, i, m, kind):
    """.approx and .full are computed exactly."""
    if m.one_of("approx", "full", *ROUNDS) in ("approx", "full"):
        ftz = m.flag("ftz")
        a, b = (_read(t, operand, kind, ftz) for operand in i.operands[1:])
        return t.write(i.operands[0], kind, _finished(f"{a} / {b}", ftz, False))
    m.rest.append(next(part for part in i.parts if part in ROUNDS))
    return binary(t, i, m, kind)


@handles("rcp", "sqrt")
def root_or_reciprocal(t, i, m):
    kind = m.type()
    rounding, ftz = m.one_of("approx", *ROUNDS), m.flag("ftz")
    if kind == "f64" and rounding == "approx":
        return t.write(i.operands[0], kind, f"reciprocal_upper({t.read(i.operands[1], kind)})")
    a = _read(t, i.operands[1], kind, ftz)
    one = "1.0f" if kind == "f32" else "1.0"
    if rounding in ("approx", "rn"):
        value = f"sqrt({a})" if i.parts[0] == "sqrt" else f"{one} / {a}"
    elif i.parts[0] == "sqrt":
        value = f"sqrt_rounded({ROUNDS[rounding]}, {a})"
    else:
        value = f"divide_rounded({ROUNDS[rounding]}, {one}, {a})"
    return t.write(i.operands[0], kind, _finished(value, ftz, False))


_APPROXIMATIONS = {"rsqrt": "reciprocal_sqrt", "ex2": "exp2_exact", "lg2": "log2_exact", "sin": "sin_exact",
                   "cos": "cos_exact", "tanh": "tanh_exact"}  # fmt: skip


@handles(*_APPROXIMATIONS)
def approximation(t, i, m):
    """Computed exactly: there is no promise about the hardware's bits."""
    kind = m.type()
    m.one_of("approx")
    if kind in FORMATS:
        m.flag("ftz")  # bf16's ex2 has it always; it matters below 2^-126 only
        return _narrow(t, i, m, kind, _NARROW[i.parts[0]])
    if kind != "f32" and i.parts[0] != "rsqrt":
        raise Unsupported(f".{kind}")
    ftz = m.flag("ftz")
    value = f"{_APPROXIMATIONS[i.parts[0]]}({_read(t, i.operands[1], kind, ftz)})"
    return t.write(i.operands[0], kind, _finished(value, ftz, False))


def unary(t, i, m, kind):
    if kind in FORMATS:
        return _narrow(t, i, m, kind, _NARROW[i.parts[0]])
    ftz = m.flag("ftz")
    a = _read(t, i.operands[1], kind, ftz)
    return t.write(i.operands[0], kind, f"-{a}" if i.parts[0] == "neg" else f"absolute({a})")


def extreme(t, i, m, kind):
    nan = "_nan" if m.flag("NaN") else ""
    if kind in FORMATS:
        return _narrow(t, i, m, kind, _NARROW[i.parts[0]] + nan)
    ftz = m.flag("ftz")
    function = {"min": "minimum", "max": "maximum"}[i.parts[0]] + nan
    arguments = ", ".join(_read(t, operand, kind, ftz) for operand in i.operands[1:])
    return t.write(i.operands[0], kind, f"{function}({arguments})")


@handles("copysign")
def copy_sign(t, i, m):
    kind = m.type()
    sign, magnitude = (t.read(operand, kind) for operand in i.operands[1:])
    return t.write(i.operands[0], kind, f"copy_sign({sign}, {magnitude})")


@handles("testp")
def test(t, i, m):
    kind = m.type()
    a = t.read(i.operands[1], kind)
    tests = {"finite": f"__builtin_isfinite({a})", "infinite": f"__builtin_isinf({a})", "number": f"!is_nan({a})",
             "notanumber": f"is_nan({a})", "normal": f"__builtin_isnormal({a})"}  # fmt: skip
    return t.write(i.operands[0], "pred", f"bool({tests[m.one_of(*tests)]})")


# By whether the numbers are ordered; the others are true where one is NaN.
_COMPARISONS = {"eq": "{a} == {b}", "ne": "less_or_greater({a}, {b})", "lt": "{a} < {b}", "le": "{a} <= {b}",
                "gt": "{a} > {b}", "ge": "{a} >= {b}", "equ": "!less_or_greater({a}, {b})", "neu": "{a} != {b}",
                "ltu": "!({a} >= {b})", "leu": "!({a} > {b})", "gtu": "!({a} <= {b})", "geu": "!({a} < {b})",
                "num": "!unordered({a}, {b})", "nan": "unordered({a}, {b})"}  # fmt: skip


def comparison(t, a, b, operator, kind, ftz):
    a, b = (_read(t, operand, kind, ftz) for operand in (a, b))
    if kind in FORMATS:
        a, b = (f"{FORMATS[kind]}::to_float({value})" for value in (a, b))
    return _COMPARISONS[operator].format(a=a, b=b)


def packed_comparisons(t, a, b, operator, kind, ftz):
    """Of the low halves and of the high halves."""
    if ftz:
        raise Unsupported(f".ftz of .{kind}")
    a, b = (t.read(operand, kind) for operand in (a, b))
    halves = []
    for shift in (0, 16):
        low = (f"{FORMATS[kind]}::to_float(u16({value} >> {shift}))" for value in (a, b))
        halves.append(_COMPARISONS[operator].format(**dict(zip("ab", low))))
    return halves
