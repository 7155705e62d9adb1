"""Oracles: what the network of a checkpoint computes, straight from its raw tensors and from nothing else.

No oracle imports the code that converts, the model under test, or another oracle.
"""
