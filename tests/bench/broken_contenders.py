"""Contenders that fail in the ways the benchmark must notice; raced as ``NAME=broken_contenders:function``."""

import os

import torch

from resnet_fused.bench.peers.session import Session


def right(model, job):
    """Nothing is changed."""
    return model


def wrong(model, job):
    """One weight is off by a percent; a convolution's would not do, the batch norm behind it takes that out again."""
    with torch.no_grad():
        model.layer1[0].bn1.weight[0] *= 1.01
    return model


def wrong_engine(model, job):
    """An engine whose logits are off by a tenth of a percent."""

    class WrongSession(Session):
        def infer(self, images):
            return model(torch.from_numpy(images)).numpy() * 1.001

    return WrongSession(job.batch)


def raises(model, job):
    """An exception whose message quotes a path."""
    raise RuntimeError("cannot open /secret/place/kernel.so")


def dies(model, job):
    """The process ends while a step runs."""
    model.register_forward_pre_hook(lambda module, inputs: os._exit(7))
    return model
