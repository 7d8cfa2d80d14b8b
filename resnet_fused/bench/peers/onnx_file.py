"""The model as an ONNX file, which most engines read."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import Iterator

import torch
from torch import nn

from ..job import Job

INPUT, OUTPUT = "images", "logits"


@contextmanager
def exported(model: nn.Module, job: Job) -> Iterator[str]:
    """Path of an ONNX file of the job's one shape, in a folder of its own that is gone afterwards."""
    images = torch.zeros(job.batch, 3, job.image, job.image)
    with tempfile.TemporaryDirectory(prefix="resnet-fused-") as folder:
        path = os.path.join(folder, "model.onnx")
        torch.onnx.export(model, (images,), path, input_names=[INPUT], output_names=[OUTPUT], dynamo=True,
                          external_data=False, verbose=False)
        yield path
