"""What is run, in order of value: parts, each with its own time limit. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Iterator

EAGER = ("nchw", "channels_last")
OURS = ("fused", "fused_library", "fused_auto")  # our convolutions, the library's, and what is measured to be faster
QUICK_PRECISION = "float16"  # in which the first batch's training is raced before all else
QUICK_TESTS = "stem or odd_channels or 3x5x7x9 or 2x264x5x4 or blocks or empty"
EMULATED_TESTS = "3x5x7x9 and float16 and (reduce or pool) or basic- or empty"
EMULATED_LIMIT = 900.0  # seconds: a GPU's limits say nothing of the emulator on a CPU that does other work meanwhile
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


@dataclass(frozen=True)
class Settings:
    """Sizes and the device, the same for all parts."""

    device: str = "cuda"
    backend: str = "cuda"
    image: int = 224
    batches: tuple[int, ...] = (32, 256)
    check_images: int = 32  # of a training batch, on which gradients are compared with float64
    rounds: int = 15
    turn_seconds: float = 0.1  # a turn of a race is as many steps as fill it
    operator_batch: int = 64
    layer_batch: int = 128
    operator_shrink: int = 1  # divides channels and sides of the operators' shapes
    matrix: int = 8192  # side of the matrices by which the device's rate is measured
    copy_bytes: int = 2**29
    compiles: bool = True
    extra: tuple[str, ...] = ()  # further contenders, NAME=module:function

    @property
    def emulated(self) -> bool:
        return self.device == "cpu"


EMULATED = Settings(
    device="cpu", backend="cuda_emulated", image=32, batches=(4,), check_images=4, rounds=1, turn_seconds=0.0,
    operator_batch=2, operator_shrink=14, layer_batch=1, matrix=64, copy_bytes=2**20, compiles=False,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One process: the module of its kind, and what that gets."""

    name: str
    kind: str
    limit: float  # seconds
    arguments: dict[str, Any] = field(default_factory=dict)
    quick: bool = False


def _race(settings: Settings, model: str, mode: str, precision: str, batch: int, quick: bool = False,
          autotuned: bool = False) -> Part:  # fmt: skip
    compiled = [*["compile"] * settings.compiles, *["max_autotune"] * autotuned]
    arguments = {"model": model, "mode": mode, "precision": precision, "batch": batch,
                 "contenders": [*EAGER, *OURS, *settings.extra, *compiled]}  # fmt: skip
    name = f"race {model} {mode} {precision} batch {batch}" + " max-autotune" * autotuned
    return Part(name, "race", 600 if autotuned else 120, arguments, quick)


def _races(settings: Settings, autotuned: bool = False) -> Iterator[Part]:
    """Training before inference, 16 bits before 32. max-autotune compiles for minutes: its races are the last."""
    quick = (QUICK_PRECISION, settings.batches[0])
    for mode in ("train", "infer"):
        for precision in ("float16", "tf32", "bfloat16", "float32"):
            for batch in settings.batches:
                for model in ("resnet50", "resnet18"):
                    first = mode == "train" and (precision, batch) == quick and not autotuned
                    yield _race(settings, model, mode, precision, batch, first, autotuned)


def _triton_races(settings: Settings) -> Iterator[Part]:
    """Of their own: to compile all kernels of a model takes minutes, which the others would lack."""
    for mode in ("train", "infer"):
        part = _race(settings, "resnet50", mode, QUICK_PRECISION, settings.batches[-1])
        arguments = part.arguments | {"contenders": ["channels_last", "fused", "fused_triton"]}
        yield Part(f"{part.name} triton", "race", 600, arguments)


def parts(settings: Settings) -> list[Part]:
    """All of them, the quick ones first."""
    if settings.emulated:
        return _emulated_parts(settings)
    races = list(_races(settings))
    quick = [race for race in reversed(races) if race.quick]  # ResNet-18 first: it is done sooner
    rest = [race for race in races if not race.quick]
    sanitizers, operators = _sanitizers(), _operators()
    layers = [_layers(dtype, settings.backend) for dtype in ("float16", "float32")]
    return [
        Part("facts", "facts", 60, quick=True),
        Part("build", "build", 300, quick=True),
        Part("tests quick", "suite", 90, _tests("-k", QUICK_TESTS), quick=True),
        *quick,
        Part("rates", "rates", 60),
        operators[0],
        layers[0],
        _profile(settings, "resnet50", "float16", settings.batches[-1]),
        sanitizers[0],
        *rest[:2],
        Part("tests", "suite", 240, _tests()),
        Part("tests triton quick", "suite", 120, {**_tests("-k", QUICK_TESTS), "backend": "triton"}),
        *sanitizers[1:],
        *rest[2:6],
        *operators[1:],
        _layers("float16", "triton"),
        *layers[1:],
        *rest[6:],
        *_triton_races(settings),
        *_races(settings, autotuned=True),
        Part("tests triton", "suite", 900, {**_tests(), "backend": "triton"}),
        Part("tests slow", "suite", 1500, {"arguments": ["--slow", "-m", "slow"]}),
    ]


def _emulated_parts(settings: Settings) -> list[Part]:
    """Each branch once: the emulator takes seconds for what a GPU does in a millisecond.

    Training is in float32 alone: a ReLU that 16 bits flip is a quarter of a gradient where a channel has four pixels.
    """
    batch = settings.batches[0]
    parts = [
        Part("facts", "facts", 60, quick=True),
        Part("build", "build", 60, quick=True),
        Part("tests quick", "suite", 60, _tests("-k", EMULATED_TESTS), quick=True),
        _race(settings, "resnet18", "train", "float32", batch, quick=True),
        Part("rates", "rates", 60),
        *_operators(),
        _layers("float16", settings.backend),
        _profile(settings, "resnet18", "float32", batch),
        *_sanitizers(),
        _race(settings, "resnet18", "infer", "bfloat16", batch),
        _race(settings, "resnet50", "infer", "tf32", batch),
    ]
    return [replace(part, limit=EMULATED_LIMIT) for part in parts]


def _tests(*more: str) -> dict[str, Any]:
    return {"arguments": ["-m", "not slow", *more]}


def _sanitizers() -> list[Part]:
    return [Part(f"sanitizer {tool}", "sanitizer", 90, {"tool": tool}) for tool in TOOLS]


def _operators() -> list[Part]:
    dtypes = ("float16", "float32", "bfloat16")
    return [Part(f"operators {dtype}", "operators", 60, {"dtype": dtype}) for dtype in dtypes]


def _layers(dtype: str, backend: str) -> Part:
    limit = 400 if backend == "triton" else 90  # its kernels are compiled first
    return Part(f"layers {backend} {dtype}", "layers", limit, {"dtype": dtype, "backend": backend})


def _profile(settings: Settings, model: str, precision: str, batch: int) -> Part:
    arguments = {"model": model, "mode": "train", "precision": precision, "batch": batch,
                 "contenders": ["channels_last", "fused", "fused_library"]}  # fmt: skip
    return Part(f"profile {model} train {precision} batch {batch}", "profile", 60, arguments)
