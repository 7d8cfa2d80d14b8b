"""PTX -> C++: every entry becomes a function that each lane runs, with branches as goto."""

import hashlib
import re
from pathlib import Path

from . import instructions
from .operands import Operands, cpp_type, identifier
from .ptx import BranchTargets, Entry, Instruction, Label, Location, Module, Unsupported, Variable, parse

# Larger files are split, at entries, so that two compilers share them.
INSTRUCTIONS_PER_FILE = 3000


class Translator(Operands):
    """One entry. `sites` are shared by the entries of a file."""

    def __init__(self, module: Module, entry: Entry, sites: list[str]):
        super().__init__(module, entry)
        self.sites = sites
        self.instruction: Instruction | None = None
        self.position = 0
        self.labels = {item.name: i for i, item in enumerate(entry.body) if isinstance(item, Label)}
        opcodes = {item.parts[0] for item in entry.body if isinstance(item, Instruction)}
        self.reads_by_async_proxy = "wgmma" in opcodes  # so writes to shared memory are told of
        self.targets = {item.name: item.labels for item in entry.body if isinstance(item, BranchTargets)}

    def site(self) -> str:
        """The record of the present instruction, for messages, checks and counters."""
        where = _where(self.module, self.instruction.location)
        text = re.sub(r"\{([^,}]*),[^}]{80,},([^,}]*)\}", r"{\1, ...,\2}", self.instruction.text)
        self.sites.append(f'  {{"{where}", "{text}"}},')
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
        return [
            f"static void {name}(Lane& lane, const u8* parameters) {{",
            *[_register(register, self.entry.registers[register]) for register in sorted(self.used)],
            "  u32 carry = 0;",
            *[line for variable in self.locals.values() for line in _local_array(variable)],
            *body,
            "}",
        ]

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


def _register(name: str, kind: str) -> str:
    """One that was never written reads as NaN."""
    kind = cpp_type(kind)
    poison = {"float": '__builtin_nanf("")', "double": '__builtin_nan("")', "bool": "false"}
    return f"  {kind} {identifier(name)} = {poison.get(kind, f'{kind}(~u64(0))')};"


def _local_array(variable: Variable) -> list[str]:
    name = identifier(variable.name)
    return [
        f"  alignas({variable.align}) u8 {name}[{variable.size}];",
        f"  __builtin_memset({name}, 0xff, sizeof {name});",
    ]


def _where(module: Module, location: Location | None) -> str:
    """conv.cu:12, or load.cuh:5 (conv.cu:12) where it was inlined."""
    if location is None:
        return "?"
    place = f"{Path(module.files[location.file]).name}:{location.line}"
    return place if location.caller is None else f"{place} ({_where(module, location.caller)})"


def _hash(entry: Entry) -> str:
    body = [item.text if isinstance(item, Instruction) else item.name for item in entry.body]
    return hashlib.sha256(re.sub(r"\$L_\w+", "", "\n".join(body)).encode()).hexdigest()[:16]


def _device_variables(module: Module) -> list[Variable]:
    return [variable for variable in module.variables.values() if variable.space in ("global", "const")]


def _variables(module: Module, namespace: str, define: bool) -> list[str]:
    """Device variables, with unused memory around them so that accesses out of bounds are found."""
    lines = []
    for variable in _device_variables(module):
        name = identifier(variable.name)
        lines.append(f"extern u8* const {name};")
        if define:
            value = ", ".join(str(byte) for byte in variable.value)
            fields = [f"alignas(256) u8 {field};" for field in ("before[256]", f"value[{variable.size}]", "after[256]")]
            lines.append(f"static struct {{ {' '.join(fields)} }} {name}_memory = {{{{}}, {{{value}}}, {{}}}};")
            lines.append(f"u8* const {name} = {name}_memory.value;")
    return [f"namespace {namespace} {{", *lines, "}", f"using namespace {namespace};"]


def _registration(module: Module, translators: list[tuple[Translator, str]], source: str, define: bool) -> list[str]:
    lines, entries = [], []
    for translator, name in translators:
        entry = translator.entry
        layout = ", ".join(f"{{{p.offset}, {p.size}}}" for p in entry.parameters) or "{0, 0}"
        lines.append(f"static const ParameterLayout {name}_parameters[] = {{{layout}}};")
        fields = [f'"{entry.name}"', f'"{_hash(entry)}"', name, f"{name}_parameters", len(entry.parameters),
                  entry.parameter_bytes, translator.shared_bytes, entry.max_threads or 0, f'"{source}"']  # fmt: skip
        entries.append(f"  {{{', '.join(map(str, fields))}}},")
    variables = _device_variables(module) if define else []
    return [
        *lines,
        "static const Entry entries[] = {",
        *entries,
        "};",
        "static const ModuleVariable variables[] = {",
        *[f'  {{"{v.name}", {identifier(v.name)}, {v.size}}},' for v in variables],
        "  {nullptr, nullptr, 0}};",
        f"static const Registration registration(entries, {len(entries)}, variables, {len(variables)});",
    ]


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
        lines = [
            '#include "lane.h"',
            "using namespace emulator;",
            *_variables(module, namespace, define=number == 0),
            "static Site sites[] = {",
            *sites,
            '  {"", ""}};',
            *functions,
            *_registration(module, translators, source, define=number == 0),
        ]
        files.append("\n".join([*lines, ""]))
    return files
