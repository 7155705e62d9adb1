"""The NumPy oracle: BiT's forward pass on the raw tensors of a checkpoint, in float64 and in float32.

``oracle`` walks the network; ``convolution`` standardises each kernel and multiplies with it; ``arrays`` has the few
operations in which NumPy and PyTorch differ, since on a GPU the same code computes with PyTorch's tensors; ``ahead``
reads the next tensor meanwhile.

    source tensors, images → ``NumpyOracle.walk()`` → Layer …, → ``head_blocks()`` → HeadBlock …
"""

from verify.oracles.numpy.arrays import NAMES, oracle_name
from verify.oracles.numpy.oracle import STANDARDIZATION_EPSILON, Arithmetic, NumpyOracle

__all__ = ["NAMES", "STANDARDIZATION_EPSILON", "Arithmetic", "NumpyOracle", "oracle_name"]
