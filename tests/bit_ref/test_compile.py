"""torch.compile and torch.export take the whole model as one graph, whose inputs the weights are."""

import pytest
import torch

import bit_ref
from tests.bit_ref.support import SMALL, assert_same, images, randomize

pytestmark = pytest.mark.slow

KINDS = ["BitModel", "BitForImageClassification", "BitBackbone"]


def small(kind: str) -> torch.nn.Module:
    model = getattr(bit_ref, kind)(bit_ref.BitConfig(**SMALL)).double().eval()
    randomize(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_that_follows_the_weights(kind):
    model = small(kind)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for seed in (1, 2):
            randomize(model, seed)
            assert_same(compiled(images()), model(images()))
    torch.compiler.reset()


def test_one_graph_to_train():
    model = small("BitForImageClassification").train()
    labels = torch.tensor([0, 1])
    torch.compile(model, fullgraph=True, backend="aot_eager")(images(), labels=labels).loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(images(), labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-9, msg=name)
    torch.compiler.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_exported_program_takes_any_batch_and_size(kind):
    model = small(kind)
    with torch.no_grad():
        model(images())  # so that kernels are kept, which the program must not hold
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=33), 3: torch.export.Dim("width", min=33)}
    program = torch.export.export(model, (images(),), dynamic_shapes={"pixel_values": free})
    assert set(program.state_dict) == set(model.state_dict())
    assert not program.constants
    other = images(3, height=80, width=70)
    assert_same(program.module()(other), model(other))
