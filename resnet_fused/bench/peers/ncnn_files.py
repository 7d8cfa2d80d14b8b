"""The model in ncnn's two files, a graph in text and weights in binary.

ncnn's converters are programs of their own; the few layers of a ResNet are quickly written without them.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

MAGIC = "7767517"
FLOAT32 = b"\0\0\0\0"  # the tag before weights stored as they are; biases have none


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().float().contiguous().numpy().tobytes()


class _Translation:
    """Walks the traced graph and collects lines and weights."""

    def __init__(self, model: nn.Module) -> None:
        self.lines: list[str] = []
        self.weights: list[bytes] = []
        self.blobs = 0
        self.waiting: dict[fx.Node, list[str]] = {}  # per node, the names its users have not taken yet
        self.traced = fx.symbolic_trace(model)
        self.convolutions: dict[fx.Node, nn.Conv2d] = {}
        self.activated: set[fx.Node] = set()  # convolutions that end in a ReLU
        self.output = ""
        self.fold()
        for node in self.traced.graph.nodes:
            self.translate(node)

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.traced.get_submodule(str(node.target)) if node.op == "call_module" else None

    def fold(self) -> None:
        """Take batch norms and ReLUs into the convolutions before them, as ncnn's own optimiser does."""
        for node in list(self.traced.graph.nodes):
            module = self.module(node)
            if isinstance(module, nn.Conv2d):
                self.convolutions[node] = module
                continue
            before = node.args[0] if node.args else None
            if before not in self.convolutions or len(before.users) > 1:
                continue
            if isinstance(module, nn.BatchNorm2d):
                self.convolutions[before] = fuse_conv_bn_eval(self.convolutions[before], module)
            elif isinstance(module, nn.ReLU):
                self.activated.add(before)
            else:
                continue
            node.replace_all_uses_with(before)
            self.traced.graph.erase_node(node)

    def add(self, kind: str, node: fx.Node, *parameters: str) -> None:
        """One layer with one result; a result with several users goes through a Split, which ncnn demands."""
        inputs = [self.waiting[source].pop() for source in node.all_input_nodes]
        self.lines.append(" ".join([kind, node.name, str(len(inputs)), "1", *inputs, node.name, *parameters]))
        self.blobs += 1
        names = [node.name]
        if len(node.users) > 1:
            names = [f"{node.name}_{i}" for i in range(len(node.users))]
            self.lines.append(" ".join(["Split", f"{node.name}_split", "1", str(len(names)), node.name, *names]))
            self.blobs += len(names)
        self.waiting[node] = names

    def translate(self, node: fx.Node) -> None:
        module = self.module(node)
        if node.op == "placeholder":
            self.add("Input", node)
        elif node.op == "output":
            self.output = self.waiting[node.args[0]].pop()  # type: ignore[index]
        elif node in self.convolutions:
            self.convolution(node, self.convolutions[node])
        elif isinstance(module, nn.ReLU):
            self.add("ReLU", node)
        elif isinstance(module, nn.MaxPool2d):
            kernel, stride, padding = (int(x) for x in (module.kernel_size, module.stride, module.padding))
            self.add("Pooling", node, "0=0", f"1={kernel}", f"2={stride}", f"3={padding}", "5=1")
        elif isinstance(module, nn.AdaptiveAvgPool2d) and _pair(module.output_size) == (1, 1):
            self.add("Pooling", node, "0=1", "4=1")
        elif node.target in (operator.add, operator.iadd, torch.add):
            self.add("BinaryOp", node, "0=0")
        elif node.target is torch.flatten:
            self.add("Flatten", node)
        elif isinstance(module, nn.Linear):
            weight = module.weight
            self.add("InnerProduct", node, f"0={len(weight)}", "1=1", f"2={weight.numel()}")
            self.weights += [FLOAT32, _bytes(weight), _bytes(module.bias)]
        else:
            raise ValueError(f"no ncnn layer is known for {node.name} ({node.target})")

    def convolution(self, node: fx.Node, module: nn.Conv2d) -> None:
        if module.groups != 1 or isinstance(module.padding, str) or module.bias is None:
            raise ValueError(f"{node.name} is not a convolution of a ResNet")
        parameters = [f"0={module.out_channels}"]
        for key, value in ((1, module.kernel_size), (2, module.dilation), (3, module.stride), (4, module.padding)):
            height, width = _pair(value)
            parameters += [f"{key}={width}", f"{key + 10}={height}"]
        parameters += ["5=1", f"6={module.weight.numel()}", f"9={int(node in self.activated)}"]
        self.add("Convolution", node, *parameters)
        self.weights += [FLOAT32, _bytes(module.weight), _bytes(module.bias)]

    def graph(self) -> str:
        return "\n".join([MAGIC, f"{len(self.lines)} {self.blobs}", *self.lines, ""])


def write(model: nn.Module, param_path: str, bin_path: str) -> tuple[str, str]:
    """Write both files; return the names of the blobs that hold the image and the logits."""
    translation = _Translation(model)
    with open(param_path, "w") as file:
        file.write(translation.graph())
    with open(bin_path, "wb") as file:
        file.writelines(translation.weights)
    image = next(node.name for node in translation.traced.graph.nodes if node.op == "placeholder")
    return image, translation.output
