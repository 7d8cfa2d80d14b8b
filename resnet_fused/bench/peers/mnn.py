"""MNN on its CPU backend."""

from __future__ import annotations

import os
from typing import Any

import numpy
from torch import nn

from ..job import Job
from . import onnx_file
from .session import Session

WINOGRAD_MEMORY_LEVEL = 3  # MNN's number for this hint, which its Python package does not name
# MNN's own choice, 3, also takes tiles so large that ResNet-50's outputs are off by a hundred times eager's error.
RIGHT_WINOGRAD = 2


class MnnSession(Session):
    """``engine`` is an MNN module; MNN copies the images into a variable of its own."""

    def __init__(self, engine: Any, batch: int) -> None:
        super().__init__(batch)
        self.engine = engine

    def infer(self, images: numpy.ndarray) -> numpy.ndarray:
        from MNN import expr

        return self.engine.forward([expr.const(images, images.shape, expr.NCHW)])[0].read()


def convert(onnx_path: str, mnn_path: str) -> None:
    """Write MNN's file; the package's own ``MNN.tools`` would install a logger and report the conversion."""
    import MNN  # noqa: F401  (loads the libraries that the converter needs)
    import _tools

    arguments = ["-f", "ONNX", "--modelFile", onnx_path, "--MNNModel", mnn_path, "--bizCode", "resnet_fused"]
    before = os.getcwd()
    os.chdir(os.path.dirname(mnn_path))  # the converter leaves a file where it runs
    try:
        if not _tools.mnnconvert(["MNNConvert", *arguments]):
            raise RuntimeError("MNN's converter refuses the ONNX file")
    finally:
        os.chdir(before)


def prepare(model: nn.Module, job: Job) -> Session:
    """The converter's optimisations, the job's threads, float32."""
    from MNN import nn as mnn

    with onnx_file.exported(model, job) as path:
        converted = os.path.join(os.path.dirname(path), "model.mnn")
        convert(path, converted)
        manager = mnn.create_runtime_manager(({"backend": "CPU", "numThread": job.threads, "precision": "high"},))
        manager.set_hint(WINOGRAD_MEMORY_LEVEL, RIGHT_WINOGRAD)
        engine = mnn.load_module_from_file(
            converted, [onnx_file.INPUT], [onnx_file.OUTPUT], runtime_manager=manager, shape_mutable=False
        )
    return MnnSession(engine, job.batch)
