"""Calls one launcher on arrays of int32, without torch: for processes that run under a sanitizer.

    python call.py LIBRARY LAUNCHER [ARGUMENT ...]    an argument is an integer, or "COUNT:" for an array 0, 1, 2, ...

Prints the last array, or the emulator's message on stderr.
"""

import ctypes
import sys


def main(path, launcher, *arguments):
    library = ctypes.CDLL(path)
    library.emulator_last_error.restype = ctypes.c_char_p
    passed = []
    for argument in arguments:
        count, colon, _ = argument.partition(":")
        passed.append((ctypes.c_int32 * int(count))(*range(int(count))) if colon else int(argument))
    status = getattr(library, f"launch_{launcher}")(*passed)
    message = library.emulator_last_error()
    if message:
        print(message.decode(), file=sys.stderr)
    arrays = [argument for argument in passed if not isinstance(argument, int)]
    print(list(arrays[-1]))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
