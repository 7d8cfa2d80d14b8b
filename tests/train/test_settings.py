"""Settings: the defaults of each kind of data."""

import pytest

from resnet_fused.train import TrainError
from resnet_fused.train.settings import complete


@pytest.mark.parametrize("data, usual", (
    ("digits", 1), ("images:demo", 1), ("cifar10:/x", 5), ("cifar100:/x", 5), ("folder:/x", 5),
))  # fmt: skip
def test_the_usual_warm_up_leaves_an_epoch(data, usual):
    """So that any number of epochs is one; one that was given is taken as it is, or refused."""
    warmups = [complete({"data": data, "epochs": epochs}).warmup for epochs in range(1, 9)]
    assert warmups == [min(epochs - 1, usual) for epochs in range(1, 9)] and complete({"data": data}).warmup == usual
    assert complete({"data": data, "epochs": 1, "warmup": 0.9}).warmup == 0.9
    with pytest.raises(TrainError, match="^--warmup must be at least 0 and less than --epochs 3, but is 3$"):
        complete({"data": data, "epochs": 3, "warmup": 3})
