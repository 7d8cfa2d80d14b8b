"""Inference engines that race against us on a CPU, one module each; none is imported before its turn.

Each ``prepare(model, job)`` converts the model offline into the engine's own form and returns a ``Session``. Whatever
an engine would report home or install by itself is switched off before it is imported.
"""
