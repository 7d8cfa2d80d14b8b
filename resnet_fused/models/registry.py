"""The networks by name."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Callable, NamedTuple

from torch import nn

from resnet_fused.models.cifar import cifar_preresnet, cifar_resnet
from resnet_fused.models.plain import cifar_plain, plain
from resnet_fused.models.resnet import imagenet_resnet
from resnet_fused.models.vgg import vgg


class Entry(NamedTuple):
    build: Callable[..., nn.Module]
    image: int  # height and width of the images that the paper trained on
    num_classes: int


def _imagenet() -> dict[str, Callable[..., nn.Module]]:
    shallow, deep, deepest = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
    return {
        "resnet18": partial(imagenet_resnet, "basic", (2, 2, 2, 2)),
        "resnet34": partial(imagenet_resnet, "basic", shallow),
        "resnet50": partial(imagenet_resnet, "bottleneck", shallow),
        "resnet101": partial(imagenet_resnet, "bottleneck", deep),
        "resnet152": partial(imagenet_resnet, "bottleneck", deepest),
        "resnext50_32x4d": partial(imagenet_resnet, "bottleneck", shallow, groups=32, width_per_group=4),
        "resnext101_32x8d": partial(imagenet_resnet, "bottleneck", deep, groups=32, width_per_group=8),
        "resnext101_64x4d": partial(imagenet_resnet, "bottleneck", deep, groups=64, width_per_group=4),
        "wide_resnet50_2": partial(imagenet_resnet, "bottleneck", shallow, width_per_group=128),
        "wide_resnet101_2": partial(imagenet_resnet, "bottleneck", deep, width_per_group=128),
        **{f"plain{depth}": partial(plain, depth) for depth in (18, 34)},
        **{f"vgg{depth}": partial(vgg, depth, False) for depth in (16, 19)},
        **{f"vgg{depth}_bn": partial(vgg, depth, True) for depth in (16, 19)},
    }


def _cifar() -> dict[str, Callable[..., nn.Module]]:
    depths = (8, 14, 20, 32, 44, 56, 110)  # the paper has no 8 and 14, which are for trying things out
    return {
        **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (*depths, 1202)},
        **{f"plain{depth}": partial(cifar_plain, depth) for depth in depths},
        **{f"preresnet{depth}": partial(cifar_preresnet, depth) for depth in (164, 1001)},
    }


_ENTRIES = {
    **{name: Entry(build, 224, 1000) for name, build in _imagenet().items()},
    **{name: Entry(build, 32, 10) for name, build in _cifar().items()},
}


def list_models() -> list[str]:
    """Every name that create() knows."""
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """What is known of a name; ValueError, with the names that are near, for one that is none."""
    if name not in _ENTRIES:
        near = difflib.get_close_matches(str(name), _ENTRIES, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "resnet_fused.models.list_models() lists all"
        raise ValueError(f"there is no model {name!r}; {hint}")
    return _ENTRIES[name]


def create(name: str, num_classes: int | None = None, **options) -> nn.Module:
    """A network by its name, with fused units, in float32 and training mode, its weights drawn anew.

    num_classes: 1000 for ImageNet's networks and 10 for CIFAR's unless given. options: zero_init_residual (residual
    networks but preresnets), stride_on (bottlenecks: "3x3" or "1x1"), dropout (VGG). Of residual networks also

    block: the ordering within blocks: "original", "bn_after_add", "relu_before_add", "relu_preactivation" or
        "preactivation" (He et al. 2016, Identity Mappings in Deep Residual Networks, figure 4); not of preresnets
    shortcut: "projection" (ImageNet's default), "padded" (CIFAR's) or "average_pool" (ResNet-D) where a block changes
        the shape; "convolution": a projection in every block; or one of the same paper's figure 2 in every block,
        "scaling", "exclusive_gating", "shortcut_gating", "dropout", which change the shape by the default
    norm: "batch", "frozen" (torchvision's FrozenBatchNorm2d) or "sync" (nn.SyncBatchNorm)
    se: squeeze-and-excitation in every block, reduction 16 (Hu et al. 2018)
    stochastic_depth: the last block's probability of being dropped, to which it rises linearly (Huang et al. 2016)

    With another block or shortcut than the default's, se or stochastic_depth, children and draws are not torchvision's.
    The same module runs unfused within resnet_fused.backend("eager"). Raises ValueError for an unknown name, TypeError
    for an option that the network does not have.
    """
    build, _, default = entry(name)
    return build(num_classes=default if num_classes is None else num_classes, **options)
