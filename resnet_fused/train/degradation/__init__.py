"""The degradation experiment: deeper plain networks train worse, deeper residual ones do not, or so it is said.

Plain and residual networks of some depths are trained from the same seeds on the same images, and their errors are
compared. He et al. 2016, sections 1 and 4.2, figures 1 and 6.

    experiment.py   which networks and seeds, with which settings; what is already done
    processes.py    a process of one thread for each network and seed, some at a time
    findings.py     errors by network with their spread, and what they say, in words
    chart.py        the figure: errors against iterations, and against depth
"""

from resnet_fused.train.degradation.experiment import DEPTHS, Experiment, Trained, opened, public_settings, train
from resnet_fused.train.degradation.findings import (
    compare,
    csv_of,
    environments,
    finals,
    machines,
    sentences,
    table,
)

__all__ = [
    "DEPTHS", "Experiment", "Trained", "compare", "csv_of", "environments", "finals", "machines", "opened",
    "public_settings", "sentences", "table", "train",
]  # fmt: skip
