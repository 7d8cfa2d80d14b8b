"""One function per opcode, which returns its C++ statement. Add one with @handles("opcode", ...)."""

from ..operands import Modifiers
from ..ptx import Instruction, Unsupported

_HANDLERS = {}


def handles(*opcodes):
    def register(function):
        for opcode in opcodes:
            assert opcode not in _HANDLERS
            _HANDLERS[opcode] = function
        return function

    return register


def translate(translator, instruction: Instruction) -> str:
    opcode = instruction.parts[0]
    if opcode not in _HANDLERS:
        raise Unsupported(f"opcode {opcode}")
    modifiers = Modifiers(instruction)
    code = _HANDLERS[opcode](translator, instruction, modifiers)
    modifiers.finish()
    return code


# They register themselves.
from . import bits, control, conversion, floating, integer, memory, warp, warpgroup  # noqa: E402, F401
