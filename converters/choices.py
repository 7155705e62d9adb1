"""The values that options can have: ``--help`` shows them, and ``options`` refuses others. Nothing is imported."""

LAYOUTS = ("transformers", "timm", "original", "npz")
DTYPES = ("float32", "float16", "bfloat16")
EXACT = ("bits", "logits")
POOL_PADDINGS = ("zeros", "-inf")
ORACLES = ("graph", "keras", "tensorflow")
INPUTS = ("default", "thorough")
RUNNERS = ("bit_ref", "stock-arithmetic", "transformers", "timm")
COMPUTE = ("float32", "tf32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")
PATIENCE = 3600.0
"""Seconds, by default."""
JSON_SCHEMA = 1
"""Version of the document that ``bit-convert --json`` prints."""
