"""Builds a library of .cu files that runs on the CPU. What has not changed is not built again."""

import functools
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build_cache import COMPILERS_AT_A_TIME, ROOT, alone, digest, made, run

from .translate import translate

HERE = Path(__file__).resolve().parent
RUNTIME = HERE / "runtime"
TORCH_ALLOCATOR = RUNTIME / "torch_allocator.cpp"  # for cxx_sources: redzones around torch's tensors
BUILD = ROOT / "build" / "emulator"

CXX = (os.environ.get("CXX") or shutil.which("g++") or "").split()
# -ffp-contract=off: the kernels' multiplications and additions are rounded each, unless the PTX says fma.
CXX_FLAGS = ["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-g1"]
# -Og: kernels run as fast as with -O1, and compile in half the time.
TRANSLATED_FLAGS = ["-Og", "-w", "-fvisibility=hidden", "-fno-exceptions"]
RUNTIME_FLAGS = ["-O2", "-Wall", "-Wextra", "-fno-semantic-interposition"]
RUNTIME_FILES = ["api", "arithmetic", "async_copy", "async_proxy", "barrier", "counters", "fault", "fiber",
                 "kernel_access", "launch", "matrix_descriptor", "memory", "scheduler", "tensor_core", "warp",
                 "warpgroup"]  # fmt: skip
CUDART_FILES = ["cudart", "cudart_device"]  # for launchers that nvcc compiled
NVCC_FLAGS = ["-std=c++17", "-Xcompiler", "-fPIC"]
SANITIZERS = {
    None: [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}


def why_not(nvcc=True) -> str | None:
    """Why nothing can be built here, or None. `nvcc`: of .cu files."""
    if os.uname().machine != "x86_64":
        return "the emulator switches stacks on x86-64 only"
    if not CXX:
        return "no C++ compiler was found (set CXX)"
    if nvcc and not shutil.which("nvcc"):
        return "nvcc is not on PATH"
    return None


def sanitizer_runtime(sanitize: str) -> str | None:
    """For LD_PRELOAD, or None if the compiler has it not."""
    name = {"address": "libasan.so", "thread": "libtsan.so"}[sanitize]
    path = subprocess.run([*CXX, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return path if os.path.isabs(path) else None


def torch_flags() -> tuple[list[str], list[str]]:
    """For the C++ compiler and the linker, where a source includes torch's headers."""
    from torch.utils import cpp_extension

    folders = cpp_extension.library_paths()
    where = [flag for folder in folders for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    includes = [flag for path in cpp_extension.include_paths() for flag in ("-isystem", path)]
    return includes, [*where, "-lc10", "-ltorch_cpu"]


def architecture_of(source) -> str:
    """sm_90a's instructions are for files that say so by their name."""
    return "compute_90a" if Path(source).name.endswith("_sm90.cu") else "compute_80"


def nvcc(source) -> list[str]:
    """The compiler's command for a .cu file: PTX of its architecture and no machine code."""
    architecture = architecture_of(source)
    return ["nvcc", *NVCC_FLAGS, "-gencode", f"arch={architecture},code={architecture}"]


@functools.cache
def cuda_include() -> Path:
    answer = subprocess.run(["nvcc", "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True)
    top = re.search(r"TOP=(.*)", answer.stderr)[1].strip()
    return Path(top).resolve() / "include"


def library(name, cuda_sources, cxx_sources=(), sanitize=None, nvcc_flags=(), cxx_flags=(), link_flags=(),
            edit_ptx=None) -> Path:  # fmt: skip
    """A shared library of the sources, the translated kernels and the emulator's runtime.

    `sanitize` is None, "address" or "thread": the kernels (not the host's code) are compiled with it, and the process
    must have loaded the sanitizer's own library first (LD_PRELOAD=sanitizer_runtime(sanitize)).
    `edit_ptx(name of a .cu file, its PTX)` returns what is translated in its place. Two edits of the same sources need
    two names: another process may be compiling the one when this one writes the other.
    """
    sanitizer = SANITIZERS[sanitize]
    macros = [f"-DEMULATOR_{sanitize.upper()}", "-DEMULATOR_SANITIZE"] if sanitize else []
    runtime_flags = [*CXX_FLAGS, *RUNTIME_FLAGS, *macros]
    cudart_flags = [*runtime_flags, "-isystem", str(cuda_include())]
    with ThreadPoolExecutor(COMPILERS_AT_A_TIME) as pool:
        flags = [*_fast_fma(), *sanitizer, *macros]
        edit = (name, edit_ptx) if edit_ptx else None
        kernels = [pool.submit(_cuda_objects, Path(source), nvcc_flags, flags, edit) for source in cuda_sources]
        host = [pool.submit(_object, Path(source), [*CXX_FLAGS, *cxx_flags]) for source in cxx_sources]
        runtime = [pool.submit(_runtime_object, file, runtime_flags, sanitizer) for file in RUNTIME_FILES]
        runtime += [pool.submit(_runtime_object, file, cudart_flags, sanitizer) for file in CUDART_FILES]
        objects = [path for future in kernels for path in future.result()]
        objects += [future.result() for future in [*host, *runtime]]
    exports = RUNTIME / "exports.map"
    return _linked(name, objects, [f"-Wl,--version-script={exports}", *sanitizer, *link_flags], exports.read_text())


def runtime_library() -> Path:
    """The emulator's runtime alone, for kernels of ptx_library: one for all of them, with the stacks of its fibers."""
    with ThreadPoolExecutor(COMPILERS_AT_A_TIME) as pool:
        objects = list(pool.map(lambda file: _runtime_object(file, [*CXX_FLAGS, *RUNTIME_FLAGS], []), RUNTIME_FILES))
    return _linked("runtime", objects, [])


def ptx_library(name: str, ptx: str) -> Path:
    """The kernels of a PTX module, which are there for Emulated(runtime_library()).launch once this library is loaded.

    No two kernels of a process may have the same name.
    """
    objects = _translated_objects(name, f"{name}.ptx", ptx, _fast_fma())
    return _linked(name, objects, [str(runtime_library())])


def _linked(name: str, objects: list[Path], flags, *parts) -> Path:
    """`parts`: what else the library depends on."""
    link = ["-shared", "-Wl,-Bsymbolic,-z,noexecstack", *flags]
    key = digest(CXX, link, *parts, *[digest(path.read_bytes()) for path in objects])
    target = BUILD / f"{name}-{key}.so"
    with alone(target):
        if not target.exists():
            partial = target.with_suffix(".partial")
            run([*CXX, *objects, *link, "-o", partial])
            _check_runtime(partial)
            os.replace(partial, target)
    return target


def _check_runtime(library: Path) -> None:
    """What our CUDA runtime lacks would be taken from a real one, if the process has one."""
    command = ["nm", "-D", "--undefined-only", library]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    missing = re.findall(r"\bU ((?:__)?cuda\w+)", symbols)
    if missing:
        raise RuntimeError(f"the emulator's CUDA runtime has no {', '.join(missing)}")


def _fast_fma() -> list[str]:
    """Instructions without which fma and fp16's conversions are calls. The results are the same."""
    cpu = Path("/proc/cpuinfo")
    have = set(re.search(r"^flags\s*:(.*)$", cpu.read_text(), re.M)[1].split()) if cpu.exists() else set()
    return [f"-m{flag}" for flag in ("fma", "f16c") if flag in have]


def _runtime_object(name: str, flags, sanitizer) -> Path:
    fma = _fast_fma()
    special = {"kernel_access": sanitizer, "arithmetic": ["-frounding-math", *fma], "tensor_core": ["-O3", *fma]}
    return _object(RUNTIME / f"{name}.cpp", [*flags, *special.get(name, [])])


def _object(source: Path, flags) -> Path:
    key = digest(CXX, flags, source)

    def make(folder):
        dependencies = ["-MD", "-MF", folder / "depfile"]
        run([*CXX, *flags, "-c", source, *dependencies, "-o", folder / "object.o"])

    return made(BUILD / "objects" / f"{source.stem}-{key}", key, make) / "object.o"


def _cuda_objects(source: Path, nvcc_flags, flags, edit) -> list[Path]:
    """The host's object file and those of the translated kernels, both from one run of nvcc; edit: name, edit_ptx."""
    command = [*nvcc(source), *nvcc_flags]
    key = digest(command, source)

    def compile_cuda(folder):
        outputs = ["-MD", "-MF", folder / "depfile", "--keep", "--keep-dir", folder, "-o", folder / "object.o"]
        run([*command, "-c", source, *outputs])
        for path in folder.iterdir():
            if path.name not in ("depfile", "object.o", f"{source.stem}.ptx"):
                path.unlink()

    compiled = made(BUILD / "cuda" / f"{source.stem}-{key}", key, compile_cuda)
    ptx, name = (compiled / f"{source.stem}.ptx").read_text(), compiled.name
    if edit:
        ptx, name = edit[1](source.name, ptx), f"{name}-{edit[0]}"
    return [compiled / "object.o", *_translated_objects(name, source.name, ptx, flags)]


def _translated_objects(name: str, source: str, ptx: str, flags) -> list[Path]:
    key = digest(ptx, *[path.read_bytes() for path in sorted(HERE.rglob("*.py"))])

    def write_translation(folder):
        for number, text in enumerate(translate(ptx, source)):
            (folder / f"{Path(source).stem}_{number}.cpp").write_text(text)

    translated = made(BUILD / "translated" / name, key, write_translation)
    flags = [*CXX_FLAGS, *TRANSLATED_FLAGS, *flags, "-I", str(RUNTIME)]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: _object(path, flags), sorted(translated.glob("*.cpp"))))
