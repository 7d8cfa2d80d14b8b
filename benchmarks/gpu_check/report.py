"""A part's result as tables for a terminal."""

from __future__ import annotations

from typing import Any

from resnet_fused.bench.table import MISSING, error, grid, number, times

MOST_KERNELS = 25  # of a profile


def rate(spread: dict[str, float] | None, digits: int = 3) -> str:
    """A median with its spread."""
    if spread is None:
        return MISSING
    return f"{number(spread['median'], digits)} ({number(spread['p20'], digits)}-{number(spread['p80'], digits)})"


def rates_text(result: dict[str, Any]) -> str:
    rows = [["copy, GB/s", rate(result["copy_gb_per_s"])]]
    for name, product in result["mm"].items():
        rows.append([f"mm {name}, TFLOP/s", rate(product["tflops"]) if "tflops" in product else product["error"]])
    return grid(("", "median (p20-p80)"), rows)


def operators_text(result: dict[str, Any]) -> str:
    copy = result["copy_gb_per_s"]["median"]
    rows = []
    for row in result["rows"]:
        name = f"{row['operator']} {row['activation']}"
        if row["status"] != "ok":
            rows.append([name, row["status"], MISSING, MISSING, MISSING])
            continue
        ours, eager = row["gb_per_s"]["ours"], row["gb_per_s"].get("eager")
        rows.append([name, rate(ours), f"{ours['median'] / copy:.2f}", rate(eager),
                     times(row["speedup"]) if "speedup" in row else MISSING])  # fmt: skip
    heading = f"{result['dtype']}, batch {result['batch']}, channels_last; copy {number(copy)} GB/s"
    note = "GB/s count each operand and result once; a tensor that fits a cache can be faster than the copy"
    return "\n".join([heading, "", grid(("", "GB/s (p20-p80)", "of copy", "eager", "ours is"), rows), note])


def layers_text(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        name = [f"{row['layer']} {row['pass']}"]
        if row["status"] != "ok":
            rows.append([*name, row["status"], *[MISSING] * 5])
            continue
        took, roof = row["milliseconds"], row["of_roof"]
        rate = row["operations"] / took["ours"]["median"] / 1e9
        ours, library = (number(took[who]["median"], 3) for who in ("ours", "library"))
        rows.append([*name, ours, number(rate, 3), f"{roof['ours']:.2f}", library, f"{roof['library']:.2f}",
                     times(row["speedup"])])  # fmt: skip
    heading = (f"{result['backend']} {result['dtype']}, batch {result['batch']}, channels_last; mm "
               f"{number(result['tflops'])} TFLOP/s, copy {number(result['copy_gb_per_s'])} GB/s")  # fmt: skip
    header = ("", "ms", "TFLOP/s", "of roof", "library ms", "of roof", "ours is")
    note = "ours with batch norm, ReLU and their sums; the library's convolution alone"
    return "\n".join([heading, "", grid(header, rows), note])


def profile_text(result: dict[str, Any]) -> str:
    tables = [f"{result['model']} {result['mode']} {result['precision']}, batch {result['batch']}"]
    for row in result["contenders"]:
        if "error" in row:
            tables.append(f"{row['label']} failed: {row['error']}")
            continue
        heading = (f"{row['label']}: a step {number(row['step_milliseconds'])} ms, its kernels "
                   f"{number(row['kernel_milliseconds'])} ms, {row['launches']} launches")  # fmt: skip
        kernels = [[kernel["name"][:90], number(kernel["milliseconds"], 3), str(kernel["launches"])]
                   for kernel in row["kernels"][:MOST_KERNELS]]  # fmt: skip
        tables.append("\n".join([heading, "", grid(("", "ms", "launches"), kernels)]))
    return "\n\n".join(tables)


def race_text(result: dict[str, Any]) -> str:
    faster = {(s["over"], s["of"]): s for s in result["speedups"]}
    rows, notes = [], []
    for row in result["contenders"]:
        if row["status"] in ("failed", "unchecked"):
            notes.append(f"{row['label']} {row['status']}: {row['error']}")
            rows.append([row["label"], row["status"], *[MISSING] * 4])
            continue
        if row["status"] == "wrong":
            notes.append(f"{row['label']} is WRONG, no speed-up is given: {'; '.join(row['reasons'])}")
        ratio = faster.get((row["name"], "fused+graph" if row["graph"] else "fused"))
        faster_by = "wrong" if row["status"] == "wrong" else times(ratio) if ratio else MISSING
        errors = [error(row["output_error"]), error(row["gradient_error"]), number(row["gradient_ratio"], 2)]
        rows.append([row["label"], rate(row.get("images_per_second")), faster_by, *errors])
    heading = (f"{result['model']} {result['mode']} {result['precision']}, batch {result['batch']}, "
               f"{result['image']} x {result['image']}, {result['images']}")  # fmt: skip
    header = ("", "img/s (p20-p80)", "fused is", "output err", "grad err", "vs eager")
    return "\n".join([heading, "", grid(header, rows), *notes])


def suite_text(result: dict[str, Any]) -> str:
    lines = [", ".join(f"{count} {name}" for name, count in result["counts"].items())]
    lines += [f"{count} skipped: {reason}" for reason, count in result["skips"].items()]
    return "\n".join(lines + [f"{failure['test']}: {failure['why']}" for failure in result["failures"]])


def sanitizer_text(result: dict[str, Any]) -> str:
    if not result["found"]:
        return f"not run: {result['reason']}"
    return "\n".join([f"{result['errors']} errors", *result["lines"]])


def build_text(result: dict[str, Any]) -> str:
    return f"for {result['architectures']}, {result['seconds']:.0f} s"


TEXTS = {"rates": rates_text, "operators": operators_text, "layers": layers_text, "profile": profile_text,
         "race": race_text, "suite": suite_text, "sanitizer": sanitizer_text, "build": build_text}  # fmt: skip


def part_text(entry: dict[str, Any]) -> str:
    """The tables of one part's entry; "" where it said nothing."""
    show = TEXTS.get(entry["kind"])
    return show(entry["result"]) if show and entry["result"] else ""
