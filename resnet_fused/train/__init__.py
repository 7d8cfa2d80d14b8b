"""Training networks of resnet_fused.models on data that lie on this machine, in one process or in several.

    settings.py     all that decides a run's numbers, with defaults for each kind of data
    data.py         readers: scikit-learn's digits, CIFAR's archives, folders of images; demo.py cuts photographs
    batches.py      an epoch's order and augmentation, drawn from the seed and the epoch alone
    processes.py    the processes of a run: what each does of the work, and how all end where one fails
    parallel.py     a network as copies with averaged gradients (DDP), or as shards of its parameters (FSDP2)
    optimise.py     SGD, its schedule, exponential averages, loss scaling
    loop.py         one epoch of training, one evaluation
    checkpoint.py   all that is needed to go on, in one file that is whole at any time
    folder_lock.py  one writer to a folder at a time
    metrics.py      the table of epochs, as CSV and in words; plot.py draws it, board.py shows it in TensorBoard
    run.py          a run from its settings to its results
    degradation/    many runs, to compare networks of growing depth
"""

from resnet_fused.train.processes import SaidElsewhere
from resnet_fused.train.run import Outcome, Place, run
from resnet_fused.train.settings import Settings, TrainError

__all__ = ["Outcome", "Place", "SaidElsewhere", "Settings", "TrainError", "run"]
