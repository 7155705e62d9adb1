"""The Keras oracle: BiT in Keras's own layers, with weights in the order in which Keras keeps them.

``oracle`` builds one layer after the other and runs it; ``file`` has h5py read the weights of an ``.h5`` file, in a
process of its own.

    .h5 file or source tensors, images → ``KerasOracle.layers()`` → Layer …
"""

from verify.oracles.keras.oracle import KerasOracle

__all__ = ["KerasOracle"]
