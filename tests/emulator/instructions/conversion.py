"""cvt: integers, floating-point numbers and the narrow formats, into each other."""

from ..operands import cpp_type, integer, unsigned
from ..ptx import BITS, Unsupported
from . import handles
from .floating import FORMATS, ROUNDS

_TO_INTEGER = {"rni": "Round::kNearest", "rzi": "Round::kZero", "rmi": "Round::kDown", "rpi": "Round::kUp"}


@handles("cvt")
def convert(t, i, m):
    source, result = m.type(), m.type()
    if m.flag("pack"):
        raise Unsupported("cvt.pack")
    if result in ("f16x2", "bf16x2"):
        return _pair(t, i, m, result, source)
    if result == "tf32":
        m.one_of("rna")
        return t.write(i.operands[0], "b32", f"tf32_from({t.read(i.operands[1], source)})")
    ftz, saturated = m.flag("ftz"), m.flag("sat")
    a = t.read(i.operands[1], source)
    if ftz and source == "f32":
        a = f"flush({a})"
    if integer(source) and integer(result):
        value = f"clamp_integer<{result}>({a})" if saturated else f"{cpp_type(result)}({a})"
        return t.write(i.operands[0], result, value)
    if integer(result):
        return t.write(i.operands[0], result, _float_to_integer(m, a, source, result))
    if integer(source):
        value = _integer_to_float(m, a, source, result)
    else:
        value = _float_to_float(m, a, source, result)
    return t.write(i.operands[0], result, _limited(value, result, ftz, saturated))


def _limited(value, kind, ftz, saturated):
    if kind in FORMATS:
        return f"narrow_saturate<{FORMATS[kind]}>({value})" if saturated else value
    value = f"flush({value})" if ftz and kind == "f32" else value
    return f"saturate({value})" if saturated else value


def _float_to_integer(m, a, source, result):
    rounding = _TO_INTEGER[m.one_of(*_TO_INTEGER)]
    if source in FORMATS:
        a = f"{FORMATS[source]}::to_float({a})"
    return f"to_integer<{result}>({rounding}, {a})"  # out of range is clamped, with .sat or without


def _integer_to_float(m, a, source, result):
    rounding = m.one_of(*ROUNDS)
    if result in FORMATS:
        if BITS[source] == 64:
            raise Unsupported(f".{source} to .{result}")
        return _narrowed(f"double({a})", result, rounding)
    if rounding == "rn":
        return f"{cpp_type(result)}({a})"
    return f"{'float' if result == 'f32' else 'double'}_from({ROUNDS[rounding]}, {source[0]}64({a}))"


def _float_to_float(m, a, source, result):
    if source in FORMATS:
        a = f"{FORMATS[source]}::to_float({a})"
    rounding = m.one_of(*ROUNDS, *_TO_INTEGER, default="none")
    if rounding in _TO_INTEGER:
        if source != result:
            raise Unsupported(f".{rounding} from .{source} to .{result}")
        whole = f"round_to_integer({_TO_INTEGER[rounding]}, {a})"
        return f"{FORMATS[result]}::from({whole})" if result in FORMATS else whole
    if result in FORMATS:
        return _narrowed(a, result, rounding, m.flag("relu"))
    if result == "f32" and source == "f64":
        if rounding == "none":
            raise Unsupported("cvt.f32.f64 without a rounding")
        return f"float({a})" if rounding == "rn" else f"float_from({ROUNDS[rounding]}, {a})"
    return f"{cpp_type(result)}({a})"  # to a wider type, or the same


def _narrowed(a, kind, rounding, relu=False):
    if rounding == "none":
        raise Unsupported(f"cvt to .{kind} without a rounding")
    if rounding == "rn":
        value = f"{FORMATS[kind]}::from({a})"
    else:
        value = f"{kind.removesuffix('x2')}_from({ROUNDS[rounding]}, {a})"
    return f"narrow_relu<{FORMATS[kind]}>({value})" if relu else value


def _pair(t, i, m, kind, source):
    """cvt.rn.bf16x2.f32 d, a, b: a becomes the high half."""
    if source != "f32" or len(i.operands) != 3:
        raise Unsupported(f".{source} to .{kind}")
    rounding, relu = m.one_of("rn", "rz"), m.flag("relu")
    if m.flag("satfinite"):
        raise Unsupported(".satfinite")
    high, low = (_narrowed(t.read(operand, "f32"), kind, rounding, relu) for operand in i.operands[1:])
    return t.write(i.operands[0], unsigned(kind), f"pack({low}, {high})")
