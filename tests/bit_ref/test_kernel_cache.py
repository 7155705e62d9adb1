"""Kernels are standardised once in evaluation mode, and nothing but the time shows it."""

import copy
import pickle

import pytest
import torch
from torch import nn

from bit_ref import BitConfig, BitForImageClassification
from bit_ref.model import StandardizedConv2d
from tests.bit_ref.support import SMALL, images, randomize


@pytest.fixture
def model() -> BitForImageClassification:
    model = BitForImageClassification(BitConfig(**SMALL)).eval()
    randomize(model)
    return model


@pytest.fixture
def standardized(monkeypatch) -> list[StandardizedConv2d]:
    """The layers that standardise, one entry each time."""
    calls = []
    original = StandardizedConv2d.standardized_weight

    def counted(layer: StandardizedConv2d) -> torch.Tensor:
        calls.append(layer)
        return original(layer)

    monkeypatch.setattr(StandardizedConv2d, "standardized_weight", counted)
    return calls


def logits(model: BitForImageClassification) -> torch.Tensor:
    with torch.no_grad():
        return model(images().to(model.dtype)).logits


def recomputed(model: BitForImageClassification) -> torch.Tensor:
    """What a new model with the same tensors gives, differentiated, so that nothing can be kept."""
    new = BitForImageClassification(model.config)
    new.load_state_dict(model.state_dict())
    return new.to(model.dtype).eval()(images().to(model.dtype)).logits.detach()


def layers(model: nn.Module) -> list[StandardizedConv2d]:
    return [module for module in model.modules() if isinstance(module, StandardizedConv2d)]


def test_once_for_each_kernel_and_to_the_same_bits(model, standardized):
    expected = model(images().float()).logits.detach()
    assert len(standardized) == len(layers(model)) == 12
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(model(images().float()).logits, expected)
    assert len(standardized) == 2 * 12
    model.requires_grad_(False)
    assert torch.equal(model(images().float()).logits, expected)
    assert len(standardized) == 2 * 12


def test_where_models_are_compiled_a_kernel_is_kept_in_the_format_that_it_is_used_in(model, standardized, monkeypatch):
    """As on a GPU: what is given to a compiled model must not drive out what the model itself uses."""
    import torch._dynamo  # as whoever compiles has it

    monkeypatch.setattr("bit_ref.kernel_cache._memory_format", lambda x: torch.channels_last)
    monkeypatch.setattr("bit_ref.kernel_cache._usual_format", lambda weight: torch.channels_last, raising=False)
    expected = logits(model)
    assert len(standardized) == 12  # what a compiled model is given is in the format of a GPU's maps from the start
    torch.testing.assert_close(logits(model), expected)
    assert len(standardized) == 12


class Stream:
    """Stands in for a GPU's stream of work."""

    waits = 0
    is_recorded = False

    def synchronize(self):
        assert not self.is_recorded, "while a graph is recorded, nothing may be waited for"
        self.waits += 1


@pytest.fixture
def stream(monkeypatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: stream.is_recorded)
    return stream


def test_on_a_gpu_a_kernel_is_kept_when_any_other_stream_may_take_it(model, standardized, stream):
    (layer, *_) = layers(model)
    kernels = [layer._from_cache() for _ in range(3)]
    assert kernels[0] is kernels[1] is kernels[2]
    assert (len(standardized), stream.waits) == (1, 1)


def test_a_kernel_that_is_computed_only_when_a_graph_is_replayed_is_not_kept(model, standardized, stream):
    (layer, *_) = layers(model)
    stream.is_recorded = True
    assert layer._from_cache() is not layer._from_cache()
    stream.is_recorded = False
    kept = layer._from_cache()
    stream.is_recorded = True
    assert layer._from_cache() is kept
    assert len(standardized) == 3


def scale_through_data(model):
    for layer in layers(model):
        layer.weight.data.add_(layer.weight.data**2)
    model.eval()


def step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images().float(), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()


def train_on(model):
    model.train()
    step(model)
    model.eval()


def other_weights(model):
    return {name: value * value for name, value in model.state_dict().items()}


def replace_parameters(model):
    for layer in layers(model):
        layer.weight = nn.Parameter(layer.weight.detach() ** 2)


def replace_data(model):
    for layer in layers(model):
        layer.weight.data = layer.weight.detach() ** 2


def change_in_inference_mode(model):
    with torch.inference_mode():
        for layer in layers(model):
            layer.weight.copy_(layer.weight**2)


def other_epsilon(model):
    model.config.weight_standardization_eps = 1e-2
    for layer in layers(model):
        layer.epsilon = 1e-2


CHANGES = [
    step,
    train_on,
    scale_through_data,
    replace_parameters,
    replace_data,
    change_in_inference_mode,
    other_epsilon,
    lambda model: model.load_state_dict(other_weights(model)),
    lambda model: model.load_state_dict(other_weights(model), assign=True),
    lambda model: nn.init.normal_(layers(model)[3].weight),
    lambda model: model.double(),
    lambda model: model.to(torch.bfloat16).float(),
    lambda model: model.to_empty(device="cpu").load_state_dict(other_weights(BitForImageClassification(model.config))),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_weight_counts(model, change):
    before = logits(model)
    change(model)
    after = logits(model)
    assert not torch.equal(after.float(), before)
    assert torch.equal(after, recomputed(model))


def test_gradients_are_wanted_in_evaluation_mode(model):
    """After a forward pass that kept the kernels: of the parameters, or with frozen ones of the image."""
    kept = logits(model)
    output = model(images().float(), labels=torch.tensor([0, 1]))
    output.loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    new = copy.deepcopy(model).train()
    new.zero_grad()
    new(images().float(), labels=torch.tensor([0, 1])).loss.backward()
    assert torch.equal(output.logits, kept)
    for name, parameter in new.named_parameters():
        assert torch.equal(parameter.grad, found[name]), name

    gradients = []
    for frozen in (model, new.eval()):
        pixels = images().float().requires_grad_()
        if frozen is model:
            with torch.inference_mode():
                frozen(pixels)
            frozen.requires_grad_(False)
        frozen(pixels).logits.sum().backward()
        gradients.append(pixels.grad)
    assert torch.equal(*gradients)


def test_no_copy_and_no_file_has_what_is_kept(model):
    names, size = list(model.state_dict()), len(pickle.dumps(model))
    before = logits(model)
    assert list(model.state_dict()) == names
    assert not list(model.buffers())
    assert len(pickle.dumps(model)) == size
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin), before)
        nn.init.normal_(layers(twin)[0].weight)
        assert torch.equal(logits(twin), recomputed(twin))
        assert not torch.equal(logits(twin), before)
    assert torch.equal(logits(model), before)


def test_other_weights_for_one_call(model):
    before = logits(model)
    with torch.no_grad():
        called = torch.func.functional_call(model, other_weights(model), images().float()).logits
    assert torch.equal(logits(model), before)
    model.load_state_dict(other_weights(model))
    assert torch.equal(called, recomputed(model))


def test_model_made_in_inference_mode():
    """Its in-place changes are not counted."""
    with torch.inference_mode():
        model = BitForImageClassification(BitConfig(**SMALL)).eval()
        model(images().float())
        for layer in layers(model):
            layer.weight.square_()
        found = model(images().float()).logits
    assert torch.equal(found, recomputed(model))


def test_autocast_computes_the_same_from_kept_kernels(model):
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(images().float()).logits.detach()
        with torch.no_grad():
            found = [model(images().float()).logits for _ in range(2)]
    assert expected.dtype == torch.bfloat16
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected)
    assert torch.equal(logits(model), recomputed(model))


def test_units_leave_their_input_and_the_activation_of_others_alone(model):
    """ReLU and the sum of a unit work in place: on nothing that anyone else holds."""
    with torch.no_grad():
        output = model(images().float(), output_hidden_states=True)
        states = [state.clone() for state in output.hidden_states]
        again = model(images().float(), output_hidden_states=True)
        for state, kept, new in zip(output.hidden_states, states, again.hidden_states, strict=True):
            assert torch.equal(state, kept)
            assert torch.equal(state, new)
        unit = model.bit.encoder.stages[1].layers[1]
        held = states[2].clone()
        unit(held)
        assert torch.equal(held, states[2])
