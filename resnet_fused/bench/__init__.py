"""The race behind ``resnet-fused bench``: same weights, same photographs, one process per contender.

``job`` says what is run, ``contenders`` who runs it (engines other than torch are in ``peers``), ``worker`` is the
process each contender lives in and ``race`` the round robin over those processes. ``oracle`` computes the float64
answer, ``verdict`` decides who is right, ``statistics`` sums up paired rounds, ``result`` writes JSON, ``table`` and
``report`` show it. ``termination`` lets SIGTERM end a command as Ctrl-C does.
"""
