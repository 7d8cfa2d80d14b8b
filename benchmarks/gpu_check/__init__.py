"""What a machine with an NVIDIA GPU has to say of the CUDA kernels: ``make gpu-check``.

``plan`` says which parts there are, in order of value, ``runner`` runs each in a process of its own (``process``; its
other end is ``part``), and ``record`` writes down what they say after every message. The parts: ``facts``, ``build``,
``suite`` (tests/gpu), ``rates`` (the device's limits), ``operators`` (bytes per second), ``sanitizer`` and ``race``.
"""
