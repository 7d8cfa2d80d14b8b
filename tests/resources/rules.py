"""What every kernel must be like, as the table shows it."""

import re

CONV_16_BIT = re.compile(
    r"conv_(?:fprop|dgrad|wgrad)\w*kernel<(?:MathHalf|MathBFloat16|__half|__nv_bfloat16)\b.*\b(true|false)>"
)
WARPGROUPS = re.compile(r"conv_\w+_kernel<Math\w+Sm90\b")
LOCAL_MEMORY = ("spill_stores", "spill_loads", "stack", "LDL", "STL")
WIDTHS = (128, 64, 32, 16, 8)


def _keeps_to_registers(row: dict) -> list[str]:
    return [f"{column} is {row[column]}, not 0" for column in LOCAL_MEMORY if row[column]]


def _says_global(row: dict) -> list[str]:
    """A generic access finds out at run time which memory its address is of."""
    return [f"{row['generic']} generic accesses"] if row["generic"] else []


def _accesses_are_wide(row: dict) -> list[str]:
    """Kernels bound by memory, where a thread takes N > 1 elements: 16 bytes at a time.

    The stem's winners are one byte an element: N bytes at a time, less than 16.
    """
    vector = re.match(r"(\w+)<\w+, (\d+)", row["kernel"])
    if not vector or int(vector[2]) == 1 or vector[1].startswith("conv_"):
        return []
    winners = 8 * int(vector[2]) if vector[1].startswith("stem_pool") else None
    narrow = [f"{row[f'activation.{bits}']} accesses of {bits} bits" for bits in WIDTHS[1:]
              if row[f"activation.{bits}"] and bits != winners]  # fmt: skip
    return narrow if row["activation.128"] else [*narrow, "no access of 128 bits"]


def _uses_tensor_cores(row: dict) -> list[str]:
    """Convolutions of 16-bit types: matrix instructions fed by ldmatrix, and by asynchronous copies of 16 bytes.

    Without VECTOR, the last template argument, elements are copied one by one.
    """
    conv = CONV_16_BIT.match(row["kernel"])
    if not conv:
        return []
    needed = ("HMMA", "LDSM", "LDGSTS.128") if conv[1] == "true" else ("HMMA", "LDSM")
    missing = [f"no {column}" for column in needed if not row[column]]
    narrow = row["LDGSTS"] - row["LDGSTS.128"]
    return [*missing, f"{narrow} LDGSTS narrower than 128 bits"] if narrow else missing


def _uses_warpgroups(row: dict) -> list[str]:
    """Products read shared memory themselves: matrix instructions and asynchronous copies, no ldmatrix."""
    if not WARPGROUPS.match(row["kernel"]):
        return []
    missing = [f"no {column}" for column in ("HMMA", "LDGSTS.128") if not row[column]]
    narrow = row["LDGSTS"] - row["LDGSTS.128"]
    fragments = [f"{row['LDSM']} LDSM"] if row["LDSM"] else []
    return [*missing, *fragments, *([f"{narrow} LDGSTS narrower than 128 bits"] if narrow else [])]


RULES = (_keeps_to_registers, _says_global, _accesses_are_wide, _uses_tensor_cores, _uses_warpgroups)


def broken(rows: list[dict]) -> list[str]:
    """A line for each kernel and architecture that breaks a rule."""
    lines = []
    for row in rows:
        reasons = [reason for rule in RULES for reason in rule(row)]
        if reasons:
            lines.append(f"{row['kernel']} {row['arch']}: {', '.join(reasons)}")
    return lines
