"""The report page: one self-contained HTML file that says what was measured, how, on what, and how it went."""

from __future__ import annotations

from importlib import resources
from typing import Any

from . import charts, contenders, photographs, table
from .charts import Row
from .requirements import require

TEMPLATE = "report.html"


def _kind(row: dict[str, Any]) -> str:
    return "ours" if row["name"] == contenders.SUBJECT else "peer"


def _measured(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in job["contenders"] if row["status"] != "failed"]


def throughput_chart(job: dict[str, Any]) -> str:
    """img/s of everyone whose numbers are right, p20 to p80 as whiskers."""
    rows = []
    for row in _measured(job):
        if row["status"] == "ok":
            rate = row["images_per_second"]
            text = f"{table.number(rate['median'])} img/s"
            rows.append(Row(row["label"], rate["median"], text, _kind(row), rate["p20"], rate["p80"]))
    return charts.bars(rows)


def speedup_chart(job: dict[str, Any]) -> str:
    """The subject's paired ratios to its peers."""
    labels = {row["name"]: row["label"] for row in job["contenders"]}
    return charts.ratios([
        Row(labels[s["over"]], s["median"], table.times(s), "ours", s["p20"], s["p80"])
        for s in job["speedups"]
    ])


def saved_chart(job: dict[str, Any]) -> str:
    """Bytes saved for backward per image."""
    rows = _measured(job)
    return charts.bars([
        Row(row["label"], saved, f"{table.mebibytes(saved)} MiB", _kind(row))
        for row in rows
        if (saved := row["saved_for_backward_bytes_per_image"]) is not None
    ])


def memory_chart(job: dict[str, Any]) -> str:
    """Growth of the resident set over its size before the first step."""
    return charts.bars([
        Row(row["label"], growth, f"{table.mebibytes(growth)} MiB", _kind(row))
        for row in _measured(job)
        if (growth := row["peak_rss_growth_bytes"]) is not None
    ])


def error_chart(job: dict[str, Any], key: str, bound: float | None) -> str:
    """One of the errors against float64, logarithmic."""
    rows = [row for row in _measured(job) if row[key] is not None]
    return charts.logarithmic([Row(row["label"], row[key], table.error(row[key]), _kind(row)) for row in rows], bound)


def verdict_sentence(job: dict[str, Any]) -> dict[str, Any]:
    """What the job says of the subject, for the top of the page: its words and whether they are a win."""
    subject = next((row for row in job["contenders"] if row["name"] == contenders.SUBJECT), None)
    name = f"{job['model']}, {'training step' if job['mode'] == 'train' else 'inference'}"
    if subject is None or not job["speedups"]:
        reason = "has no right peer to compare with" if subject and subject["status"] == "ok" else "gets no speed-up"
        return {"name": name, "ratio": None, "text": f"Fused {reason} here; the table below says why.", "won": False}
    rates = {row["name"]: row["images_per_second"]["median"] for row in job["contenders"] if row["status"] == "ok"}
    best = max(job["speedups"], key=lambda speedup: rates[speedup["over"]])
    peer = next(row for row in job["contenders"] if row["name"] == best["over"])
    text = f"against {peer['label']}, the fastest peer (p20 {best['p20']:.2f}, p80 {best['p80']:.2f})"
    if subject["saved_for_backward_bytes_per_image"] and peer["saved_for_backward_bytes_per_image"]:
        part = subject["saved_for_backward_bytes_per_image"] / peer["saved_for_backward_bytes_per_image"]
        text += f"; it saves {part:.2f} times that peer's bytes for backward"
    if table.few_rounds(job):
        text += f"; {table.plural(job['rounds'], 'round')} only"
    return {"name": name, "ratio": f"{best['median']:.2f}x", "text": text, "won": best["median"] >= 1}


def job_view(job: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of one job."""
    faster = {speedup["over"]: speedup for speedup in job["speedups"]}
    return {
        "job": job,
        "caution": table.few_rounds(job),
        "header": table.HEADER,
        "rows": [(row, table.row_of(row, faster.get(row["name"]))) for row in job["contenders"]],
        "throughput": throughput_chart(job),
        "speedup": speedup_chart(job),
        "memory": memory_chart(job),
        "saved": saved_chart(job),  # empty in inference, and so is the gradients'
        "output_error": error_chart(job, "output_error", job["output_bound"]),
        "gradient_error": error_chart(job, "gradient_error", None),
    }


def render(result: dict[str, Any]) -> str:
    """The page for a result as ``resnet-fused bench`` writes it."""
    jinja2 = require("jinja2", "jinja2", "the report page")
    source = resources.files(__package__).joinpath(TEMPLATE).read_text()
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(number=table.number, error=table.error, mebibytes=table.mebibytes)
    return environment.from_string(source).render(
        result=result,
        environment=result["environment"],
        photographs=photographs.NAMES,
        subject=contenders.SUBJECT,
        verdicts=[verdict_sentence(job) for job in result["jobs"]],
        jobs=[job_view(job) for job in result["jobs"]],
    )
