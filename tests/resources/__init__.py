"""What ptxas made of every kernel, for every architecture: registers, spills, occupancy, instructions.

`make cubins` (python -m resources) compiles the .cu files of setup.py, and writes and prints kernels.json, which
tests/csrc/test_resources.py holds to its rules. No GPU is needed; nvcc and nvdisasm are. Shared memory is what a kernel
declares: of one that is launched with more, fewer blocks fit than the table says.

    compilation.py  setup.py's sources and flags -> cubins, kept under build/
    sass.py         nvdisasm's text -> instructions counted by kind and width
    occupancy.py    registers, threads and shared memory -> blocks of an SM, a pure function
    rules.py        what every row must be like
    table.py        the rows of kernels.json: reading, writing, comparing, printing
"""
