"""ncnn on the CPU. It knows no batches: a step runs one image after the other, as its users do."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy
from torch import nn

from ..job import Job
from . import ncnn_files
from .session import Session


class NcnnSession(Session):
    """``engine`` is an ``ncnn.Net``; ``names`` are those of the image and the logits in it."""

    def __init__(self, engine: Any, names: tuple[str, str], batch: int) -> None:
        super().__init__(batch)
        self.engine = engine
        self.names = names

    def infer(self, images: numpy.ndarray) -> numpy.ndarray:
        return numpy.stack([self.infer_one(image) for image in images])

    def infer_one(self, image: numpy.ndarray) -> numpy.ndarray:
        import ncnn

        extractor = self.engine.create_extractor()
        extractor.input(self.names[0], ncnn.Mat(image))  # shares the image's memory
        status, logits = extractor.extract(self.names[1])
        if status != 0:
            raise RuntimeError(f"ncnn stopped with status {status}")
        return numpy.array(logits)


def prepare(model: nn.Module, job: Job) -> Session:
    """The job's threads and float32; the way each convolution is computed is ncnn's own choice."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = job.threads
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    with tempfile.TemporaryDirectory(prefix="resnet-fused-") as folder:
        graph, weights = os.path.join(folder, "model.param"), os.path.join(folder, "model.bin")
        names = ncnn_files.write(model, graph, weights)
        if net.load_param(graph) != 0 or net.load_model(weights) != 0:
            raise RuntimeError("ncnn cannot load the model")
    return NcnnSession(net, names, job.batch)
