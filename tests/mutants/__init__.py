"""The tests of the CUDA kernels, tested: seeded bugs, each of which the checks must find.

    mutant.py     what a seeded bug is: a file's text and its replacement, or an edit of a kernel's PTX
    target.py     what is compiled with it and checked: the operators of one dtype, or one variant of the convolutions
    table.py      all bugs, from shared.py, batch_norm.py, stem.py, convolution*.py and ptx.py
    battery.py    runs the checks of battery_operators.py or battery_conv.py, cases that take seconds altogether
    runner.py     applies a mutant to a copy of csrc/cuda, builds it and runs the battery in a process of its own
    score.json    by which case each was caught when `make mutants` last ran
"""
