"""Each layer imports only layers below it; the core imports nothing beyond torch and, if it is there, torchvision."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "resnet_fused"
# From the bottom up; a layer may import itself and what stands before it.
LAYERS = ("_ext", "backends", "dispatch", "ops", "autograd", "modules", "models", "surgery")
ABOVE = ("bench", "train", "cli", "__main__")  # these use the public interface


def layer_of(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def core_files():
    return [p for p in sorted(PACKAGE.rglob("*.py")) if layer_of(p) in LAYERS]


def test_every_file_has_a_layer():
    unknown = {layer_of(p) for p in PACKAGE.rglob("*.py")} - {*LAYERS, *ABOVE, "__init__"}
    assert not unknown and len(core_files()) > 15


@pytest.mark.parametrize("path", core_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_what_is_below(path):
    allowed = LAYERS[: LAYERS.index(layer_of(path)) + 1]
    for name in imports(path):
        root, _, rest = name.partition(".")
        if root == "resnet_fused":
            assert rest.split(".")[0] in allowed, f"{path.name} imports {name}"
        elif root == "triton":
            assert path.is_relative_to(PACKAGE / "backends" / "triton"), f"{path.name} imports {name}"
        elif root not in ("torch", "torchvision"):
            assert root in sys.stdlib_module_names, f"{path.name} imports {name}"
