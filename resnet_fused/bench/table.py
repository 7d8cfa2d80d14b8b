"""The result as text for a terminal."""

from __future__ import annotations

from typing import Any, Sequence

MISSING = "-"


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits, or a dash."""
    return MISSING if value is None else f"{value:#.{digits}g}".rstrip(".")


def error(value: float | None) -> str:
    """An error in scientific notation, or a dash."""
    return MISSING if value is None else f"{value:.1e}"


def mebibytes(value: float | None) -> str:
    """Bytes as MiB, or a dash."""
    return MISSING if value is None else f"{value / 2**20:.1f}"


def times(spread: dict[str, float]) -> str:
    """A ratio with its spread."""
    return f"{spread['median']:.2f}x ({spread['p20']:.2f}-{spread['p80']:.2f})"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first is flush left, the others flush right."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def plural(count: int, noun: str) -> str:
    """``1 round``, ``2 rounds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def heading(job: dict[str, Any]) -> str:
    """One line that says what was run."""
    return (
        f"{job['model']} {job['mode']}, batch {job['batch']}, {job['image']} x {job['image']}, float32, "
        f"{plural(job['threads'], 'thread')}, {plural(job['rounds'], 'round')} in {job['seconds']:.0f} s"
    )


def row_of(row: dict[str, Any], speedup: dict[str, Any] | None) -> list[str]:
    """A contender's line in ``job_table``."""
    if row["status"] == "failed":
        return [row["label"], *["failed"] * 2, *[MISSING] * 6]
    rate = row["images_per_second"]
    if row["status"] == "wrong":
        ratio = "wrong"
    else:
        ratio = times(speedup) if speedup else MISSING
    return [
        row["label"],
        f"{number(rate['median'])} ({number(rate['p20'])}-{number(rate['p80'])})",
        ratio,
        error(row["output_error"]),
        error(row["gradient_error"]),
        number(row["gradient_ratio"], 2),
        mebibytes(row["saved_for_backward_bytes_per_image"]),
        mebibytes(row["peak_rss_bytes"]),
        mebibytes(row["peak_rss_growth_bytes"]),
    ]


FEW_ROUNDS = 3  # below, a median and its percentiles say little


def few_rounds(job: dict[str, Any]) -> str | None:
    """A caution where too few rounds fitted the budget for a spread."""
    if job["rounds"] >= FEW_ROUNDS:
        return None
    return f"only {plural(job['rounds'], 'round')}: too few for a spread; give a larger --budget, or --rounds"


HEADER = (
    "", "img/s (p20-p80)", "fused is", "output err", "grad err", "vs eager", "saved MiB/img", "peak RSS MiB", "growth",
)


def job_table(job: dict[str, Any]) -> str:
    """The table of one job with its notes."""
    faster = {speedup["over"]: speedup for speedup in job["speedups"]}
    lines = [heading(job), "", grid(HEADER, [row_of(row, faster.get(row["name"])) for row in job["contenders"]]), ""]
    for row in job["contenders"]:
        if row["status"] == "failed":
            lines.append(f"{row['label']} failed: {row['error']}")
        elif row["status"] == "wrong":
            lines.append(f"{row['label']} is WRONG, no speed-up is given: {'; '.join(row['reasons'])}")
        elif row["compile_seconds"] is not None:
            lines.append(f"{row['label']} compiled for {row['compile_seconds']:.0f} s in its first step (not counted)")
    lines += [f"{absent['name']} {absent['reason']}" for absent in job["left_out"]]
    if few_rounds(job):
        lines.append(f"caution: {few_rounds(job)}")
    lines.append(f"output err: largest error against float64 over {plural(job['check_images'], 'image')}; "
                 f"bound {error(job['output_bound'])}, largest output {number(job['output_scale'])}")
    if job["mode"] == "train":
        nchw = job["eager"]["nchw"]
        lines.append("grad err: largest error of any parameter's gradient, as a part of its largest element; "
                     "vs eager: median over parameters of error / eager channels_last's error, bound 2")
        if job["check_steps"] > 1:
            lines.append(f"each gradient's error is the least of {job['check_steps']} steps on different images: "
                         "in some no ReLU is within rounding of zero")
        lines.append(f"control: eager NCHW against eager channels_last gives {number(nchw['gradient_ratio'], 2)}")
    return "\n".join(lines)


def conclusion(job: dict[str, Any]) -> str:
    """Fused against the fastest right peer, in a sentence."""
    if not job["speedups"]:
        return f"{job['model']} {job['mode']}: no speed-up to report"
    rates = {row["name"]: row["images_per_second"]["median"] for row in job["contenders"] if row["status"] == "ok"}
    labels = {row["name"]: row["label"] for row in job["contenders"]}
    best = max(job["speedups"], key=lambda speedup: rates[speedup["over"]])
    peer = labels[best["over"]]
    return f"{job['model']} {job['mode']}: fused runs at {times(best)} the speed of the fastest peer, {peer}"
