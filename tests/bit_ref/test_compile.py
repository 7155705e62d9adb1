"""torch.compile and torch.export take the whole model as one graph, whose inputs are the weights, or cached kernels."""

import pytest
import torch

import bit_ref
from tests.bit_ref.support import SMALL, assert_same, images, randomize
from tests.bit_ref.test_kernel_cache import CHANGES, logits, recomputed

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


class Graphs(list):
    """A backend that takes down which functions each graph calls, and compiles nothing."""

    def __call__(self, graph, example):
        self.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    def standardised(self) -> int:
        """Kernels that the last graph standardises."""
        return sum("batch_norm" in target for target in self[-1])


@pytest.fixture
def graphs():
    torch.compiler.reset()
    yield Graphs()
    torch.compiler.reset()


def test_an_evaluation_standardises_no_kernel_in_its_graph_and_follows_every_change(graphs):
    model = small("BitForImageClassification").float()
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    pixels = images()
    for change in CHANGES:
        change(model)
        expected = recomputed(model)
        with torch.inference_mode() if change is CHANGES[0] else torch.no_grad():
            found = compiled(pixels.to(model.dtype)).logits
        assert torch.equal(found, expected), change
        assert torch.equal(logits(model), expected)
        assert graphs.standardised() == 0
    assert len(graphs) <= 5  # one for each kind of input, and none for a change of values


@pytest.mark.parametrize("is_forward", [False, True])
def test_nothing_is_kept_of_a_transform_that_a_graph_could_not_take(graphs, is_forward):
    model = small("BitForImageClassification").requires_grad_(False)
    if is_forward:
        torch.func.jvp(lambda pixels: model(pixels).logits, (images(),), (images(),))
    else:
        torch.func.grad(lambda pixels: model(pixels).logits.sum())(images())
    expected = model(images()).logits
    assert torch.equal(torch.compile(model, fullgraph=True, backend=graphs)(images()).logits, expected)
    assert graphs.standardised() == 0


def test_what_wants_gradients_or_is_no_call_of_the_model_standardises_in_its_graph(graphs):
    model = small("BitForImageClassification").float()
    pixels = images().float()
    with torch.no_grad():
        logits(model)
        outer = torch.compile(torch.nn.Sequential(model, torch.nn.Identity()), fullgraph=True, backend=graphs)
        part = torch.compile(model.bit.embedder, fullgraph=True, backend=graphs)
        outer(pixels)
        assert graphs.standardised() == 12
        part(pixels)
        assert graphs.standardised() == 1
        for seed in (1, 2):
            randomize(model, seed)
            with pytest.raises(ValueError, match="channels"):
                model(pixels[:, :2])  # which leaves nothing that the next call could take for its own
            assert torch.equal(part(pixels), model.bit.embedder(pixels))
            assert torch.equal(outer(pixels).logits, recomputed(model))
    assert len(graphs) == 2
    torch.compile(model, fullgraph=True, backend=graphs)(pixels).logits.sum().backward()
    assert graphs.standardised() == 12


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
