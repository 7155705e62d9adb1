"""Read Google's BiT checkpoints, remap them, write and verify Hub repositories, publish them.

The way of the data: ``sources`` reads named tensors lazily, ``names`` maps them to canonical parameters,
``layouts`` gives each parameter its stored form, ``stream`` writes it, ``repository`` makes the folder whole,
``convert`` has ``verify`` judge it and ``publish`` takes it to a hub. ``cli`` wires these and holds no logic.
"""
