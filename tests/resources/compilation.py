"""From setup.py's sources and flags to what is known of each kernel. What has not changed is not compiled again."""

import functools
import importlib.util
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build_cache import COMPILERS_AT_A_TIME, ROOT, digest, made, run
from package_build import setup_list

from . import sass
from .occupancy import LIMITS, WARP, blocks_per_sm

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "cubins"
ARCHITECTURES = list(LIMITS)

_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\([^)]*\)([^{]*)\{")
_KERNEL = re.compile(r"Compiling entry function '(\w+)'")
_FUNCTION = re.compile(r"Function properties for (\w+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def sources() -> list[Path]:
    return [ROOT / source for source in setup_list("CUDA_SOURCES") if source.endswith(".cu")]


@functools.cache
def nvdisasm() -> str | None:
    """The toolkit's, or that of the triton that torch brings."""
    triton = importlib.util.find_spec("triton")
    folder = Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton else None
    return shutil.which("nvdisasm") or (folder and shutil.which("nvdisasm", path=folder))


def why_not() -> str | None:
    """Why nothing can be compiled here, or None."""
    found = {"nvcc": shutil.which("nvcc"), "nvdisasm": nvdisasm(), "c++filt": shutil.which("c++filt")}
    missing = [name for name, path in found.items() if not path]
    return f"{' and '.join(missing)} not found on PATH" if missing else None


@functools.cache
def nvcc_version() -> str:
    return re.search(r"V(\d+\.\d+\.\d+)", run(["nvcc", "--version"]))[1]


def architectures_of(source: Path) -> list[str]:
    """Kernels for warpgroups are of Hopper alone."""
    return ["sm_90"] if source.stem.endswith("_sm90") else ARCHITECTURES


def _compiled(source: Path, arch: str) -> Path:
    """A folder with the cubin, its PTX and what ptxas said. -lineinfo adds line numbers and changes no instruction."""
    target = "sm_90a" if arch == "sm_90" else arch  # as setup.py builds it
    code = f"arch={target.replace('sm', 'compute')},code={target}"
    command = ["nvcc", *setup_list("NVCC_FLAGS"), "-lineinfo", "-gencode", code, "-Xptxas", "-v", "-cubin", source]
    key = digest(nvcc_version(), command)

    def make(folder):
        outputs = ["-MD", "-MF", folder / "depfile", "--keep", "--keep-dir", folder, "-o", folder / "kernels.cubin"]
        (folder / "ptxas.txt").write_text(run([*command, *outputs]))
        (folder / f"{source.stem}.ptx").rename(folder / "kernels.ptx")
        for path in folder.iterdir():
            if path.name not in ("depfile", "kernels.cubin", "kernels.ptx", "ptxas.txt"):
                path.unlink()

    return made(BUILD / f"{source.stem}-{arch}", key, make)


def _short_names(mangled) -> list[str]:
    """`scale_kernel<float, 4>`, without namespaces and parameters."""
    names = run(["c++filt", "--no-params", *mangled]).splitlines()
    return [re.sub(r"resnet_fused::(cuda::)?|\(anonymous namespace\)::", "", name) for name in names]


def _usage(log: str) -> dict[str, dict[str, int]]:
    """By mangled name, what ptxas -v says."""
    usage: dict[str, dict[str, int]] = {}
    for line in log.splitlines():
        if match := _KERNEL.search(line):
            kernel = usage.setdefault(match[1], {})
        elif match := _FUNCTION.search(line):
            if match[1] not in usage:
                raise ValueError(f"{match[1]} is not inlined: its registers and instructions would not be counted")
        elif match := _STACK.search(line):
            kernel |= zip(("stack", "spill_stores", "spill_loads"), map(int, match.groups()))
        elif match := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            kernel |= {"registers": int(match[1]), "shared": int(shared[1]) if shared else 0}
    return usage


def _rows_of(compiled: Path, arch: str) -> list[dict]:
    usage = _usage((compiled / "ptxas.txt").read_text())
    counts = sass.count(run([nvdisasm(), "-c", "-gi", compiled / "kernels.cubin"]))
    threads = {name: re.search(r"\.(?:maxntid|reqntid) (\d+)(?:, (\d+), (\d+))?", directives)
               for name, directives in _ENTRY.findall((compiled / "kernels.ptx").read_text())}  # fmt: skip
    rows = []
    for mangled, name in zip(usage, _short_names(usage) if usage else []):
        used = usage[mangled]
        if not threads[mangled]:
            raise ValueError(f"{name} has no __launch_bounds__, without which its registers are anyone's guess")
        x, y, z = (int(extent or 1) for extent in threads[mangled].groups())
        blocks = blocks_per_sm(arch, used["registers"], x * y * z, used["shared"])
        occupancy = {"threads": x * y * z, "blocks": blocks, "warps": blocks * -(-x * y * z // WARP)}
        rows.append({"kernel": name, "arch": arch, **used, **occupancy, **counts[mangled]})
    return rows


def rows(source: Path, arch: str) -> list[dict]:
    """What is known of each kernel of a source, compiled for one architecture."""
    compiled = _compiled(source, arch)
    key = digest((compiled / "kernels.cubin").read_bytes(), *[path.read_bytes() for path in sorted(HERE.glob("*.py"))])

    def make(folder):
        (folder / "rows.json").write_text(json.dumps(_rows_of(compiled, arch)))

    return json.loads((made(BUILD / f"{compiled.name}-rows", key, make) / "rows.json").read_text())


def all_rows(architectures=ARCHITECTURES) -> list[dict]:
    """Of every kernel that setup.py builds."""
    jobs = [(source, arch) for source in sources() for arch in architectures_of(source) if arch in architectures]
    with ThreadPoolExecutor(COMPILERS_AT_A_TIME) as pool:
        found = [row for rows_of_job in pool.map(lambda job: rows(*job), jobs) for row in rows_of_job]
    if len({(row["kernel"], row["arch"]) for row in found}) < len(found):
        raise ValueError("two kernels have the same name, which the table could not tell apart")
    return found
