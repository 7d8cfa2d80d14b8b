"""Parses what nvcc and Triton write as PTX. https://docs.nvidia.com/cuda/parallel-thread-execution/"""

import re
from dataclasses import dataclass, field

BITS = {"pred": 1, "b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16, "b32": 32,
        "u32": 32, "s32": 32, "f32": 32, "tf32": 32, "f16x2": 32, "bf16x2": 32, "b64": 64, "u64": 64, "s64": 64,
        "f64": 64}  # fmt: skip

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_NAME = r"[%$\w.]+"
_LABEL = re.compile(rf"({_NAME})\s*:(?!:)")
_LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+\d+(?:,?\s*function_name\s+\S+,\s*inlined_at\s+(\d+)\s+(\d+))?")
_ENTRY = re.compile(rf"(?:\.(?:visible|weak)\s+)?\.entry\s+({_NAME})\s*\(([^)]*)\)([^{{]*)\{{")
_FUNCTION = re.compile(r"(?:\.(?:visible|weak|extern)\s+)*\.func\b([^;{]*)([;{])")
_VARIABLE = re.compile(
    r"(?P<linkage>(?:\.(?:visible|extern|weak|common)\s+)*)\.(?P<space>global|const|shared|local)\s+"
    r"(?:\.attribute\([^)]*\)\s*)?(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+"
    rf"(?P<name>{_NAME})\s*(?P<array>\[(?P<count>\d*)\])?\s*(?:=\s*(?P<value>.*))?$",
    re.S,
)


class Unsupported(Exception):
    """PTX that the emulator does not know. Never a guess."""


@dataclass(frozen=True)
class Location:
    """Line `line` of file number `file`; `caller` is where that code was inlined, if it was."""

    file: int
    line: int
    caller: "Location | None" = None


@dataclass
class Instruction:
    """`@!%p1 ld.global.v4.f32 {%f1, ...}, [%rd1+16]`: guard ("%p1", True), parts ["ld", "global", "v4", "f32"]."""

    guard: tuple[str, bool] | None
    parts: list[str]
    operands: list[str]
    text: str
    location: Location | None


@dataclass
class Label:
    name: str


@dataclass
class BranchTargets:
    """The labels that `brx.idx` chooses from."""

    name: str
    labels: list[str]


@dataclass
class Variable:
    name: str
    space: str
    align: int
    size: int  # 0: extern shared memory, whose size the launch gives
    value: bytes = b""


@dataclass
class Parameter:
    name: str
    offset: int
    size: int


@dataclass
class Entry:
    name: str
    parameters: list[Parameter]
    parameter_bytes: int
    max_threads: int | None
    registers: dict[str, str] = field(default_factory=dict)  # name, unique over scopes -> type
    variables: dict[str, Variable] = field(default_factory=dict)  # shared and local ones declared in the body
    call_parameters: set[str] = field(default_factory=set)  # .param variables of the body, for functions that it calls
    body: list[Instruction | Label | BranchTargets] = field(default_factory=list)


@dataclass
class Module:
    files: dict[int, str]
    variables: dict[str, Variable]
    entries: list[Entry]


def split_operands(text: str) -> list[str]:
    """At the commas outside of brackets."""
    operands, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "[{(") - (c in "]})")
        if c == "," and depth == 0:
            operands.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return operands + [last] if last else operands


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _end_of_block(text: str, start: int) -> int:
    """Behind the brace that closes the one at `start`."""
    depth = 0
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    raise Unsupported("a brace that is not closed")


def _variable(statement: str) -> Variable:
    match = _VARIABLE.match(statement)
    if not match:
        raise Unsupported(f"declaration {statement!r}")
    element = BITS[match["type"]] // 8
    value = b""
    if match["value"]:
        numbers = match["value"].strip("{} \n").split(",")
        if not all(re.fullmatch(r"\s*-?(0x)?[\da-fA-F]+\s*", number) for number in numbers):
            raise Unsupported(f"initial value of {match['name']}: {match['value'][:80]}")
        value = b"".join((int(n, 0) % 256**element).to_bytes(element, "little") for n in numbers)
    count = int(match["count"] or 0) if match["array"] else 1
    return Variable(match["name"], match["space"], int(match["align"] or element), element * count, value)


def _parameters(text: str) -> tuple[list[Parameter], int]:
    parameters, end = [], 0
    for declaration in split_operands(text):
        words = declaration.split()
        name, _, count = words[-1].rstrip("]").partition("[")
        types = [word[1:] for word in words if word[1:] in BITS]
        size = BITS[types[0]] // 8 * int(count or 1)
        # The alignment of a pointer parameter's target is .align as well, after .ptr.
        align = re.search(r"\.align\s+(\d+)", declaration.partition(".ptr")[0])
        offset = _round_up(end, int(align[1]) if align else size)
        parameters.append(Parameter(name, offset, size))
        end = offset + size
    return parameters, end


class _Body:
    """Reads the statements of one entry. Scopes are flattened: their registers and labels get names of their own."""

    def __init__(self, entry: Entry, text: str, start: int):
        self.entry, self.text, self.position = entry, text, start
        self.scopes: list[dict[str, str]] = [{}]
        self.location: Location | None = None
        self.scope_count = 0

    def read(self) -> int:
        """Returns where the entry's text ends."""
        while True:
            self.position = re.compile(r"[\s;]*").match(self.text, self.position).end()
            c = self.text[self.position]
            if c == "{":
                self.scopes.append(self._names_in_scope())
                self.position += 1
            elif c == "}":
                self.scopes.pop()
                self.position += 1
                if not self.scopes:
                    return self.position
            elif c == "." and re.match(r"\.(loc|file)\b", self.text[self.position : self.position + 6]):
                end = self.text.index("\n", self.position)
                self._locate(self.text[self.position : end])
                self.position = end
            else:
                self._statement()

    def _names_in_scope(self) -> dict[str, str]:
        """Labels may be used before they are found, so a scope's names are looked for first."""
        self.scope_count += 1
        end = _end_of_block(self.text, self.position)
        labels = re.findall(r"(?:^|[;{}\n])\s*(\w+)\s*:(?!:)", self.text[self.position : end])
        return {label: f"{label}_scope{self.scope_count}" for label in labels}

    def _locate(self, directive: str) -> None:
        match = _LOCATION.match(directive)
        if not match:
            return
        file, line, caller_file, caller_line = (int(number or 0) for number in match.groups())
        if line:  # line 0: the compiler does not say
            self.location = Location(file, line, Location(caller_file, caller_line) if caller_line else None)

    def _statement(self) -> None:
        label = _LABEL.match(self.text, self.position)
        if label:
            self.position = label.end()
            name = self._rename(label[1])
            targets = re.compile(r"\s*\.branchtargets\s+([^;]*);").match(self.text, self.position)
            if targets:
                self.position = targets.end()
                labels = [self._rename(target.strip()) for target in targets[1].split(",")]
                self.entry.body.append(BranchTargets(name, labels))
            else:
                self.entry.body.append(Label(name))
            return
        end = self.text.index(";", self.position)
        statement = " ".join(self.text[self.position : end].split())
        self.position = end + 1
        if statement.startswith(".reg"):
            self._registers(statement)
        elif statement.startswith((".shared", ".local")):
            variable = _variable(statement)
            self.entry.variables[variable.name] = variable
        elif statement.startswith(".pragma"):
            pass  # unrolling: a hint
        elif statement.startswith(".param"):
            self.entry.call_parameters.add(re.match(rf".*\.\w+\s+({_NAME})", statement)[1])
        elif statement.startswith("."):
            raise Unsupported(f"{self.entry.name}: {statement}")
        else:
            self.entry.body.append(self._instruction(statement))

    def _registers(self, statement: str) -> None:
        kind, names = re.fullmatch(r"\.reg\s*\.(\w+)\s+(.*)", statement).groups()
        for declaration in names.split(","):
            name, _, count = declaration.strip().rstrip(">").partition("<")
            for full in [f"{name}{i}" for i in range(int(count))] if count else [name]:
                unique = full if len(self.scopes) == 1 else f"{full}_scope{self.scope_count}"
                self.scopes[-1][full] = unique
                self.entry.registers[unique] = kind

    def _rename(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name

    def _instruction(self, statement: str) -> Instruction:
        match = re.match(rf"(?:@(!?)({_NAME})\s+)?([\w.:]+)\s*(.*)$", statement)
        negated, guard, opcode, rest = match.groups()
        if len(self.scopes) > 1:
            rest = re.sub(_NAME, lambda name: self._rename(name[0]), rest)
        operands = split_operands(rest)
        parts = re.split(r"\.", opcode)
        guard = (self._rename(guard), bool(negated)) if guard else None
        return Instruction(guard, parts, operands, statement, self.location)


def _without_debug_sections(text: str) -> str:
    return re.sub(r"\.section\s+\S+\s*\{[^}]*\}", "", text)


def parse(text: str) -> Module:
    """Raises Unsupported, with the statement."""
    text = _without_debug_sections(_COMMENT.sub("", text))
    module = Module({}, {}, [])
    for number, name in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', text, re.M):
        module.files[int(number)] = name
    position = 0
    while True:
        position = re.compile(r"(\s|;|\.(version|target|address_size|file)\b[^\n]*\n?)*").match(text, position).end()
        if position == len(text):
            return module
        entry, function = _ENTRY.match(text, position), _FUNCTION.match(text, position)
        if entry:
            name, parameters, directives = entry.groups()
            threads = re.search(r"\.(?:maxntid|reqntid)\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", directives)
            bound = None
            if threads:
                bound = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
            module.entries.append(Entry(name, *_parameters(parameters), bound))
            position = _Body(module.entries[-1], text, entry.end()).read()
        elif function:
            position = _end_of_block(text, function.end() - 1) if function[2] == "{" else function.end()
        else:
            end = text.index(";", position)
            variable = _variable(text[position:end].strip())
            module.variables[variable.name] = variable
            position = end + 1
