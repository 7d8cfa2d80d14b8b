"""PTX -> C++: every entry becomes a function that each lane runs, with branches as goto."""

import hashlib
import re
from pathlib import Path

from . import instructions
from .operands import Operands, cpp_type, identifier
from .ptx import BranchTargets, Entry, Instruction, Label, Location, Module, Unsupported, parse

# Compile time grows faster than a file: larger ones are split, at entries.
INSTRUCTIONS_PER_FILE = 3000


class Translator(Operands):
    """One entry. `sites` are shared by the entries of a file."""

    def __init__(self, module: Module, entry: Entry, sites: list[str]):
        super().__init__(module, entry)
        self.sites = sites
        self.instruction: Instruction | None = None
        self.labels = {item.name: i for i, item in enumerate(entry.body) if isinstance(item, Label)}
        self.targets = {item.name: item.labels for item in entry.body if isinstance(item, BranchTargets)}
        self.position = 0

    def site(self) -> str:
        """The record of the present instruction, for messages, checks and counters."""
        where = _where(self.module, self.instruction.location)
        self.sites.append(f'  {{"{where}", "{self.instruction.text}"}},')
        return f"sites[{len(self.sites) - 1}]"

    def jump(self, label: str) -> str:
        if label not in self.labels:
            raise Unsupported(f"label {label}")
        back = f"back_edge(lane, {self.site()}); " if self.labels[label] <= self.position else ""
        return f"{back}goto {identifier(label)};"

    def function(self, name: str) -> list[str]:
        body = []
        for self.position, item in enumerate(self.entry.body):
            if isinstance(item, Label):
                body.append(f"{identifier(item.name)}:;")
            elif isinstance(item, Instruction):
                body += self._statement(item)
        registers = [f"  {cpp_type(self.entry.registers[register])} {identifier(register)} = {_poison(self.entry, register)};"
                     for register in sorted(self.used)]  # fmt: skip
        arrays = [line for variable in self.locals.values() for line in _local_array(variable)]
        return [f"static void {name}(Lane& lane, const u8* parameters) {{", *registers, "  u32 carry = 0;", *arrays, *body, "}"]

    def _statement(self, instruction: Instruction) -> list[str]:
        self.instruction = instruction
        try:
            code = instructions.translate(self, instruction)
            if instruction.guard:
                register, negated = instruction.guard
                code = f"if ({'!' if negated else ''}{self.read(register, 'pred')}) {{ {code} }}"
        except Unsupported as unsupported:
            raise Unsupported(f"{self.entry.name}: {instruction.text}: {unsupported}") from None
        location = instruction.location
        line = [f'#line {location.line} "{self.module.files[location.file]}"'] if location else []
        return [*line, f"  {code}"]


def _poison(entry: Entry, register: str) -> str:
    """A register that was never written reads as NaN."""
    kind = cpp_type(entry.registers[register])
    return {"float": "__builtin_nanf(\"\")", "double": "__builtin_nan(\"\")", "bool": "false"}.get(kind, f"{kind}(~u64(0))")


def _local_array(variable) -> list[str]:
    name = identifier(variable.name)
    return [f"  alignas({variable.align}) u8 {name}[{variable.size}];", f"  __builtin_memset({name}, 0xff, sizeof {name});"]


def _where(module: Module, location: Location | None) -> str:
    """conv.cu:12, or load.cuh:5 (conv.cu:12) where it was inlined."""
    if location is None:
        return "?"
    place = f"{Path(module.files[location.file]).name}:{location.line}"
    return place if location.caller is None else f"{place} ({_where(module, location.caller)})"


def _hash(entry: Entry) -> str:
    body = [item.text if isinstance(item, Instruction) else item.name for item in entry.body]
    return hashlib.sha256(re.sub(r"\$L_\w+", "", "\n".join(body)).encode()).hexdigest()[:16]


def _module_variables(module: Module, namespace: str, define: bool) -> list[str]:
    """Device variables, with unused memory around them so that accesses out of bounds are found."""
    lines = []
    for variable in module.variables.values():
        if variable.space not in ("global", "const"):
            continue
        name = identifier(variable.name)
        if not define:
            lines.append(f"extern u8* const {name};")
            continue
        value = "{" + ", ".join(str(byte) for byte in variable.value) + "}"
        lines.append(f"static struct {{ alignas(256) u8 before[256]; alignas(256) u8 value[{variable.size}]; alignas(256) "
                     f"u8 after[256]; }} {name}_memory = {{{{}}, {value}, {{}}}};")  # fmt: skip
        lines.append(f"extern u8* const {name};")
        lines.append(f"u8* const {name} = {name}_memory.value;")
    return [f"namespace {namespace} {{", *lines, "}", f"using namespace {namespace};"]


def _register(module: Module, translators: list[tuple[Translator, str]], source: str, define: bool) -> list[str]:
    lines = []
    for translator, name in translators:
        layout = [f"{{{p.offset}, {p.size}}}" for p in translator.entry.parameters] or ["{0, 0}"]
        lines.append(f"static const ParameterLayout {name}_parameters[] = {{{', '.join(layout)}}};")
    lines.append("static const Entry entries[] = {")
    for translator, name in translators:
        entry = translator.entry
        lines.append(f'  {{"{entry.name}", "{_hash(entry)}", {name}, {name}_parameters, {len(entry.parameters)}, '
                     f'{entry.parameter_bytes}, {translator.shared_bytes}, {entry.max_threads or 0}, "{source}"}},')  # fmt: skip
    lines.append("};")
    variables = [v for v in module.variables.values() if v.space in ("global", "const")] if define else []
    lines.append("static const ModuleVariable variables[] = {")
    lines += [f'  {{"{v.name}", {identifier(v.name)}, {v.size}}},' for v in variables]
    lines += ["  {nullptr, nullptr, 0}};", f"static const Registration registration(entries, {len(translators)}, variables, "
              f"{len(variables)});"]  # fmt: skip
    return lines


def _parts(entries: list[Entry]) -> list[list[Entry]]:
    parts, size = [[]], 0
    for entry in entries:
        if parts[-1] and size + len(entry.body) > INSTRUCTIONS_PER_FILE:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += len(entry.body)
    return parts


def translate(ptx: str, source: str) -> list[str]:
    """The C++ files for one PTX module. `source`: the .cu file's name. Raises Unsupported."""
    module = parse(ptx)
    namespace = "module_" + hashlib.sha256((source + ptx).encode()).hexdigest()[:16]
    files = []
    for number, entries in enumerate(_parts(module.entries)):
        sites: list[str] = []
        translators = [(Translator(module, entry, sites), f"entry_{i}") for i, entry in enumerate(entries)]
        functions = [line for translator, name in translators for line in translator.function(name)]
        files.append("\n".join([
            '#include "lane.h"',
            "using namespace emulator;",
            *_module_variables(module, namespace, define=number == 0),
            "static Site sites[] = {",
            *sites,
            '  {"", ""}};',
            *functions,
            *_register(module, translators, source, define=number == 0),
            "",
        ]))  # fmt: skip
    return files
