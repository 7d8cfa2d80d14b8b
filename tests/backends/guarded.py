"""The emulated CUDA operators with redzones around all tensors of a process: for a process of its own."""

import itertools

import torch
from emulator.library import Emulated
from operator_cases import FORMATS, MODES, make_case


def first_damage(path, problems) -> str | None:
    """Of every mode in both formats: what is done beside a tensor. `path`: a library with redzones around them."""
    torch.set_num_threads(1)
    emulated = Emulated(path)
    kernels = torch.ops.resnet_fused_emulated
    for problem, mode, layout in itertools.product(problems, MODES, FORMATS):
        case = make_case(mode, problem, torch.float32, FORMATS[layout])
        try:
            case.run(kernels)
        except RuntimeError as error:
            return f"{problem.id} {mode} {layout}: {error}: {emulated.last_error()}"
        damage = emulated.check_canaries()
        if damage:
            return f"{problem.id} {mode} {layout}: {damage}"
    return None
