"""make cubins"""

import sys

from resnet_fused.bench.table import plural

from . import compilation, rules, table


def _list(title: str, lines: list[str], most=40) -> None:
    if lines:
        more = [f"and {len(lines) - most} more"] if len(lines) > most else []
        print("", f"{title}:", *[f"  {line}" for line in [*lines[:most], *more]], sep="\n")


def main() -> int:
    if reason := compilation.why_not():
        print(f"the kernels cannot be compiled here: {reason}", file=sys.stderr)
        return 1
    before = table.read().rows if table.PATH.exists() else []
    rows = compilation.all_rows()
    table.write(table.Table(compilation.nvcc_version(), compilation.setup_list("NVCC_FLAGS"), rows))
    print(table.summary(rows))
    _list("changed", table.differences(before, rows))
    failures = rules.broken(rows)
    _list("against the rules (tests/resources/rules.py)", failures)
    kernels, architectures = ({row[column] for row in rows} for column in ("kernel", "arch"))
    print(f"\n{table.PATH.name}: {plural(len(kernels), 'kernel')} for {plural(len(architectures), 'architecture')}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
