"""The tests of the CUDA kernels, tested: seeded bugs, each of which the checks must find.

    mutant.py     what a seeded bug is: a file's text and its replacement, or an edit of a kernel's PTX
    table.py      all of them, from shared.py, batch_norm.py, stem.py and ptx.py; other kernels' are more files
    battery.py    the checks, as cases that take some seconds altogether; other kernels' are more cases
    runner.py     applies a mutant to a copy of csrc/cuda, builds it and runs the battery in a process of its own
    score.json    by which case each was caught when `make mutants` last ran
"""
