"""The NumPy oracle's float64 forward pass, beside bit_ref in float64 on the same tensors: R50x1 at 224, in turn.

.venv-peers/bin/python benchmarks/oracle.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from common import Goals, in_turn, machine, median, network, print_table, ratio

from converters.mapping.architecture import Architecture
from converters.mapping.layouts import TRANSFORMERS
from converters.mapping.names import GOOGLE, parameters
from verify.oracles.numpy import STANDARDIZATION_EPSILON, NumpyOracle

GOAL = 3.0
"""Times PyTorch's time."""


class Source:
    """A model's tensors under Google's names, in Google's layout."""

    def __init__(self, model: torch.nn.Module) -> None:
        stored = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        self.tensors = {
            parameter.names[GOOGLE]: np.ascontiguousarray(
                TRANSFORMERS.forms[parameter.kind].restore(stored[TRANSFORMERS.parameter_name(parameter)])
            )
            for parameter in parameters(Architecture.released("R50x1", 1000))
        }
        self.shapes = {name: tensor.shape for name, tensor in self.tensors.items()}

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(machine())
    model = network("R50x1", epsilon=STANDARDIZATION_EPSILON)
    source = Source(model)
    model.double()
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224))
    with torch.inference_mode():
        works = {
            "PyTorch, kept kernels": lambda: model(torch.from_numpy(images)).logits.numpy(),
            "PyTorch": lambda: model.eval()(torch.from_numpy(images)).logits.numpy(),
            "NumPy oracle": lambda: NumpyOracle(source, float32_runs=0).forward(images)["logits"],
        }
        np.testing.assert_allclose(works["NumPy oracle"](), works["PyTorch"](), rtol=1e-9, atol=1e-9)
        found = in_turn(works, rounds)
    print(f"\nR50x1 at 224 in float64, {rounds} rounds\n")
    print_table(("run", "ms", "x PyTorch"), ((n, 1000 * median(found, n), ratio(found, n, "PyTorch")) for n in works))
    goals = Goals()
    goals.at_most("NumPy oracle / PyTorch", ratio(found, "NumPy oracle", "PyTorch"), GOAL)
    return goals.status


if __name__ == "__main__":
    sys.exit(main())
