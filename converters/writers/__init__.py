"""From stored tensors to the files of a model.

In: a source and a plan. Out: safetensors files, shards with an index, or an npz, and the JSON files beside them.
``model.py`` decides which tensor goes into which file; ``safetensors.py`` is the format; ``disk.py`` writes as fast as
the disk takes it.
"""
