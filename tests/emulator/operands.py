"""What an instruction's operands and modifiers are in C++.

Registers are local variables: u16, u32, u64, float, double or bool, by their declaration. PTX lets an instruction of
one type use a register declared with another of the same size, so reading and writing reinterpret bits where they
differ.
"""

import re

from .ptx import BITS, Entry, Instruction, Module, Unsupported

SPECIAL = {
    **{f"%tid.{axis}": f"lane.tid[{i}]" for i, axis in enumerate("xyz")},
    **{f"%ntid.{axis}": f"block.ntid[{i}]" for i, axis in enumerate("xyz")},
    **{f"%ctaid.{axis}": f"block.ctaid[{i}]" for i, axis in enumerate("xyz")},
    **{f"%nctaid.{axis}": f"block.nctaid[{i}]" for i, axis in enumerate("xyz")},
    "%laneid": "lane.laneid",
    "%warpid": "lane.warpid",
    "%smid": "0u",
    "%lanemask_eq": "(1u << lane.laneid)",
    "%lanemask_lt": "((1u << lane.laneid) - 1)",
    "%lanemask_le": "((2u << lane.laneid) - 1)",
    "%lanemask_gt": "(~0u << 1 << lane.laneid)",
    "%lanemask_ge": "(~0u << lane.laneid)",
    "%dynamic_smem_size": "block.dynamic_shared_bytes",
    "%total_smem_size": "block.shared_bytes",
}
SINK = "_"


def integer(kind: str) -> bool:
    return kind[0] in "usb" and kind not in ("bf16", "bf16x2")


def unsigned(kind: str) -> str:
    """The type that holds the bits of `kind`."""
    return f"u{BITS[kind]}"


def cpp_type(kind: str) -> str:
    """Of a value of PTX type `kind`; fp16, bf16 and tf32 are their bits."""
    if kind == "pred":
        return "bool"
    if kind in ("f32", "f64"):
        return {"f32": "float", "f64": "double"}[kind]
    return kind if kind[0] == "s" else unsigned(kind)


def identifier(name: str) -> str:
    return "v_" + re.sub(r"\W", "_", name.replace("%", "").replace("$", "S"))


class Modifiers:
    """What follows the opcode's name. Each must be taken: one that is not understood is not passed over."""

    def __init__(self, instruction: Instruction):
        self.rest = instruction.parts[1:]

    def flag(self, name: str) -> bool:
        if name in self.rest:
            self.rest.remove(name)
            return True
        return False

    def ignore(self, *names: str) -> None:
        """Hints for the caches, and those of the names."""
        if "L2::cache_hint" in self.rest:
            raise Unsupported("an operand that is a policy of the cache")
        self.rest = [part for part in self.rest if part not in names and not part.startswith(("L1::", "L2::"))]

    def one_of(self, *names: str, default: str | None = None) -> str:
        for part in self.rest:
            if part in names:
                self.rest.remove(part)
                return part
        if default is None:
            raise Unsupported(f"none of .{', .'.join(names)}")
        return default

    def type(self) -> str:
        """The last type."""
        for i in reversed(range(len(self.rest))):
            if self.rest[i] in BITS:
                return self.rest.pop(i)
        raise Unsupported("no type")

    def finish(self) -> None:
        if self.rest:
            raise Unsupported(f"modifier .{self.rest[0]}")


class Operands:
    """Reads and writes the operands of one entry's instructions."""

    def __init__(self, module: Module, entry: Entry):
        self.module, self.entry = module, entry
        self.used: set[str] = set()  # registers
        self.parameters = {parameter.name: parameter for parameter in entry.parameters}
        self._lay_out_shared()

    def _lay_out_shared(self) -> None:
        """The variables that this entry uses; dynamic shared memory is behind the static."""
        names = set()
        for instruction in self.entry.body:
            if isinstance(instruction, Instruction):
                names.update(re.findall(r"[$\w.]+", instruction.text))
        everything = {**self.module.variables, **self.entry.variables}
        variables = [v for v in everything.values() if v.space == "shared" and v.name in names]
        self.shared: dict[str, int] = {}
        self.shared_bytes = 0
        for variable in sorted(variables, key=lambda v: v.size == 0):
            self.shared_bytes = -(-self.shared_bytes // variable.align) * variable.align
            self.shared[variable.name] = self.shared_bytes
            self.shared_bytes += variable.size
        self.locals = {v.name: v for v in self.entry.variables.values() if v.space == "local"}

    def register(self, name: str) -> str:
        """The type that a register was declared with."""
        if name not in self.entry.registers:
            raise Unsupported(f"operand {name}")
        self.used.add(name)
        return self.entry.registers[name]

    def read(self, operand: str, kind: str) -> str:
        """A C++ expression of cpp_type(kind)."""
        if operand in SPECIAL:
            return f"{cpp_type(kind)}({SPECIAL[operand]})"
        if re.match(r"-?\d", operand):
            return _literal(operand, kind)
        if operand.startswith("!") and kind == "pred":
            return f"!{self.read(operand[1:], kind)}"
        if operand not in self.entry.registers:
            return f"{cpp_type(kind)}({self.symbol(operand)})"
        declared = self.register(operand)
        name, have, want = identifier(operand), cpp_type(declared), cpp_type(kind)
        if BITS[declared] < BITS[kind] or (BITS[declared] != BITS[kind] and not (integer(declared) and integer(kind))):
            raise Unsupported(f"{operand} is .{declared}, which is read as .{kind}")
        if have == want or (have[0] == "s" and unsigned(declared) == want):
            return name
        if "float" in (have, want) or "double" in (have, want):
            return f"bit_cast<{want}>({name})"
        return f"{want}({name})"

    def write(self, operand: str, kind: str, expression: str) -> str:
        """The statement that assigns an expression of cpp_type(kind); a wider register gets it extended by its sign."""
        if operand == SINK:
            return f"(void)({expression});"
        declared = self.register(operand)
        name, have, want = identifier(operand), cpp_type(kind), cpp_type(declared)
        if BITS[declared] < BITS[kind] or (BITS[declared] != BITS[kind] and not (integer(declared) and integer(kind))):
            raise Unsupported(f"{operand} is .{declared}, to which .{kind} is written")
        if have != want and {"float", "double"} & {have, want}:
            return f"{name} = bit_cast<{want}>({have}({expression}));"
        return f"{name} = {expression};" if have == want or integer(kind) else f"{name} = {have}({expression});"

    def symbol(self, name: str) -> str:
        """The address of a variable in its space: an offset in shared memory, otherwise a pointer."""
        if name in self.shared:
            return f"{self.shared[name]}u"
        if name in self.locals:
            return f"reinterpret_cast<u64>({identifier(name)})"
        if name in self.parameters:
            return f"reinterpret_cast<u64>(parameters + {self.parameters[name].offset})"
        if name in self.module.variables:
            return f"reinterpret_cast<u64>({identifier(name)})"
        raise Unsupported(f"operand {name}")

    def address(self, operand: str, kind: str) -> str:
        """Of `[base]`, `[base+8]` or `[16]`, as an expression of type `kind` (u32 or u64)."""
        match = re.fullmatch(r"\[\s*([^+\s\]]+?)\s*(?:\+\s*(-?\w+))?\s*\]", operand)
        if not match:
            raise Unsupported(f"address {operand}")
        base, offset = match[1], int(match[2] or "0", 0)
        expression = self.read(base, kind)
        return f"{kind}({expression} + {kind}({offset}))" if offset else expression


def vector(operand: str) -> list[str]:
    """The elements of `{a, b}`, or the operand."""
    return [part.strip() for part in operand[1:-1].split(",")] if operand.startswith("{") else [operand]


def _literal(text: str, kind: str) -> str:
    want = cpp_type(kind)
    if text[:2] in ("0f", "0F", "0d", "0D"):
        width = 32 if text[1] in "fF" else 64
        bits = f"u{width}(0x{text[2:]})"
        if BITS[kind] != width:
            raise Unsupported(f"literal {text} of type .{kind}")
        return bits if want == f"u{width}" else f"bit_cast<{want}>({bits})"
    value = int(text.rstrip("U"), 8 if re.fullmatch(r"0[0-7]+U?", text) else 0)
    if kind == "pred":
        return "true" if value else "false"
    bits = f"u{BITS[kind]}(0x{value % 2 ** BITS[kind]:x})"
    if want in ("float", "double"):
        raise Unsupported(f"literal {text} of type .{kind}")
    return bits if want[0] == "u" else f"{want}({bits})"
