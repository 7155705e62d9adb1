"""The three models against stock transformers: same weights, same input, in float64."""

import contextlib
import copy
import pickle

import numpy as np
import pytest
import torch
import transformers

import bit_ref
from bit_ref import BitBackbone, BitConfig, BitForImageClassification, BitModel
from tests.bit_ref.support import SMALL, assert_same, images, twins

CONFIGS = [
    {},
    {"depths": [2, 1, 1], "hidden_sizes": [128, 128, 384], "embedding_size": 96},
    {"global_padding": "same"},
    {"global_padding": "same", "embedding_dynamic_padding": True},
    {"embedding_dynamic_padding": True},
    {"output_stride": 4},
    {"output_stride": 8, "depths": [1, 1, 1], "hidden_sizes": [128, 128, 128]},
    {"drop_path_rate": 0.3},
    {"num_channels": 1},
    {"num_groups": 8, "hidden_sizes": [72, 136]},
    {"hidden_act": "gelu"},
    {"hidden_act": "silu"},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_every_output_and_hidden_state_is_transformers(options):
    ours, theirs = twins(**options)
    pixels = images(channels=ours.config.num_channels)
    for model in (ours, ours.bit), (theirs, theirs.bit):
        assert not any(module.training for module in model)
    for our, their in (ours, theirs), (ours.bit, theirs.bit):
        for arguments in ({}, {"output_hidden_states": True}, {"return_dict": False}):
            assert_same(our(pixels, **arguments), their(pixels, **arguments))
    assert_same(
        ours(pixels, output_hidden_states=True, return_dict=False),
        theirs(pixels, output_hidden_states=True, return_dict=False),
    )


@pytest.mark.parametrize("options", [{}, {"global_padding": "same", "embedding_dynamic_padding": True}], ids=str)
@pytest.mark.parametrize("size", [(1, 9), (7, 7), (17, 32), (33, 50), (64, 31)])
def test_any_input_size(size, options):
    ours, theirs = twins(**options)
    pixels = images(2, 3, *size)
    assert_same(ours(pixels, output_hidden_states=True), theirs(pixels, output_hidden_states=True))


def test_hidden_states_and_dictionary_default_to_the_config():
    for options in ({"output_hidden_states": True}, {"return_dict": False}):
        ours, theirs = twins(**options)
        assert_same(ours(images()), theirs(images()))
        assert_same(ours.bit(images()), theirs.bit(images()))


@pytest.mark.parametrize(
    ("classes", "problem", "labels"),
    [
        (1, None, torch.tensor([0.5, -1.0], dtype=torch.float64)),
        (1, None, torch.tensor([[0.5], [-1.0]], dtype=torch.float64)),
        (3, "regression", torch.rand(2, 3, dtype=torch.float64)),
        (5, None, torch.tensor([4, 1])),
        (5, "single_label_classification", torch.tensor([-100, 1])),
        (5, None, torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 1]], dtype=torch.float64)),
        (5, "multi_label_classification", torch.rand(2, 5, dtype=torch.float64)),
    ],
)
@pytest.mark.parametrize("return_dict", [True, False])
def test_losses_are_transformers(classes, problem, labels, return_dict):
    ours, theirs = twins(num_labels=classes, problem_type=problem)
    arguments = {"labels": labels, "return_dict": return_dict}
    assert_same(ours(images(), **arguments), theirs(images(), **arguments))
    assert ours.config.problem_type == theirs.config.problem_type is not None


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.bool, torch.float32])
def test_problem_type_is_taken_from_the_labels_as_by_transformers(dtype):
    """Whether or not PyTorch has a loss for labels of that type."""
    problems = []
    for model in twins():
        with contextlib.suppress(RuntimeError, ValueError):
            model(images(), labels=torch.tensor([1, 0]).to(dtype))
        problems.append(model.config.problem_type)
    assert problems[0] == problems[1] is not None


def test_stochastic_depth_draws_the_same_lots():
    ours, theirs = twins(drop_path_rate=0.5)
    torch.manual_seed(0)
    our = ours.train()(images(8))
    torch.manual_seed(0)
    assert_same(our, theirs.train()(images(8)))
    torch.manual_seed(1)
    assert not torch.equal(ours(images(8)).logits, our.logits)


def test_width_factor_widens_the_trunk():
    """Stock transformers builds this trunk, but gives it a norm that does not fit."""
    config = {**SMALL, "width_factor": 2}
    ours, theirs = BitModel(BitConfig(**config)).eval(), transformers.BitModel(transformers.BitConfig(**config)).eval()
    trunk = {name: value for name, value in ours.state_dict().items() if not name.startswith("norm.")}
    assert theirs.load_state_dict(trunk, strict=False).missing_keys == ["norm.weight", "norm.bias"]
    pixels = images().float()
    expected = theirs.encoder(theirs.embedder(pixels)).last_hidden_state
    output = ours(pixels, output_hidden_states=True)
    torch.testing.assert_close(output.hidden_states[-1], expected, rtol=1e-4, atol=1e-4)
    assert output.pooler_output.shape == (2, 512, 1, 1)


@pytest.mark.parametrize(
    "chosen",
    [{}, {"out_features": ["stem", "stage2"]}, {"out_indices": [1, -1]}, {"out_indices": (0, 1, 2)}],
    ids=str,
)
def test_backbone_gives_the_chosen_stages(chosen):
    ours, theirs = twins("BitBackbone", **chosen)
    for name in ("out_features", "out_indices", "channels", "num_features", "stage_names", "out_feature_channels"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for arguments in ({}, {"output_hidden_states": True}, {"return_dict": False}):
        assert_same(ours(images(), **arguments), theirs(images(), **arguments))
    assert_same(
        ours.forward_with_filtered_kwargs(images(), output_attentions=True),
        theirs.forward_with_filtered_kwargs(images(), output_attentions=True),
    )
    for model in (ours, theirs):
        model.out_features = ["stage1"]
    assert ours.out_indices == theirs.out_indices == [1]
    assert_same(ours(images()), theirs(images()))


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("BitModel", lambda model: model(images(channels=1))),
        ("BitModel", lambda model: model(images()[0])),
        ("BitModel", lambda model: model(images().float())),
        ("BitModel", lambda model: model(images().numpy())),
        ("BitModel", lambda model: model(images(1, 3, 1, 1))),
        ("BitForImageClassification", lambda model: model(images(), labels=torch.tensor([1]))),
        ("BitForImageClassification", lambda model: model(images(), labels=torch.tensor([1, 9]))),
        ("BitForImageClassification", lambda model: model(images(), labels=torch.rand(2, 3))),
    ],
)
def test_errors_are_transformers(kind, call):
    ours, theirs = twins(kind)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        call(theirs)
    with pytest.raises(type(expected.value)):
        call(ours)


def test_fresh_weights_are_distributed_as_transformers():
    torch.manual_seed(0)
    options = {**SMALL, "hidden_sizes": [256, 512], "num_labels": 100}
    ours = BitForImageClassification(BitConfig(**options)).state_dict()
    theirs = transformers.BitForImageClassification(transformers.BitConfig(**options)).state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        mean, std = value.mean().item(), value.std().item()
        assert ours[name].mean().item() == pytest.approx(mean, abs=0.2 * std), name
        assert ours[name].std().item() == pytest.approx(std, rel=0.25), name


def test_output_is_read_as_transformers_is():
    ours, theirs = (model(images(), output_hidden_states=True) for model in twins())
    for output in (ours, theirs):
        assert output.loss is None
        assert output["logits"] is output[0] is output.logits
        assert output[:1] == (output.logits,)
        assert output.to_tuple() == (output.logits, output.hidden_states)
        assert "loss" not in output
        assert list(output) == ["logits", "hidden_states"]
        for wrong, key in ((KeyError, "loss"), (IndexError, 2)):
            with pytest.raises(wrong):
                output[key]
        with pytest.raises(AttributeError):
            output.nothing  # noqa: B018
        output.loss = torch.tensor(1.0)
        assert output["loss"] is output.loss
    for same in (copy.copy(ours), pickle.loads(pickle.dumps(ours)), type(ours)(ours.items())):
        assert type(same) is type(ours)
        assert torch.equal(same.logits, ours.logits)


def test_bottleneck_units_are_refused():
    with pytest.raises(ValueError, match=r"layer_type=bottleneck.*load this model with transformers"):
        BitModel(BitConfig(layer_type="bottleneck"))


def test_unknown_activation_is_refused_as_by_transformers():
    for library in (bit_ref, transformers):
        with pytest.raises(KeyError, match="zzz"):
            library.BitModel(library.BitConfig(hidden_act="zzz"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "stride": 2},
        {"padding": 2, "dilation": 2},
        {"groups": 2, "padding": "same"},
        {"padding": 1, "padding_mode": "reflect", "dtype": torch.float64},
    ],
    ids=str,
)
def test_layer_made_as_a_convolution_is_one(options):
    """As peft makes those of an adapter, by the layer's class: what is zero stays so, what is small stays small."""
    kind = type(BitModel(BitConfig(**SMALL)).embedder.convolution)
    layer, plain = kind(4, 6, 3, **options), torch.nn.Conv2d(4, 6, 3, **options)
    assert layer.weight.std() > 0
    assert layer.bias is None or not layer.bias.any()
    plain.load_state_dict(layer.state_dict())
    pixels = images(channels=4).to(layer.weight.dtype)
    for weight in (layer.weight.detach().clone(), torch.zeros_like(layer.weight), torch.full_like(layer.weight, 1e-6)):
        for convolution in (layer, plain):
            convolution.weight.data = weight
        torch.testing.assert_close(layer(pixels), plain(pixels), rtol=0, atol=0)


def test_loss_may_be_replaced():
    model = BitForImageClassification(BitConfig(**SMALL))
    model.loss_function = lambda labels, logits, config: logits.sum() * len(labels)
    output = model(images().float(), labels=torch.tensor([0, 1]))
    assert output.loss == output.logits.sum() * 2


def test_valid_padding_fails_as_in_transformers():
    """Without padding, a unit's output is smaller than its shortcut."""
    for model in twins(global_padding="valid"):
        with pytest.raises(RuntimeError, match="must match the size"):
            model(images())


def test_pool_padding_is_what_surrounds_the_root():
    zeros, infinite = (BitModel(BitConfig(**SMALL, pool_padding=padding)).eval() for padding in ("zeros", "-inf"))
    infinite.load_state_dict(zeros.state_dict())
    pixels = images().float()
    convolved = zeros.embedder.convolution(pixels)
    for model, value in ((zeros, 0), (infinite, -np.inf)):
        padded = np.pad(convolved.detach().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=value)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
        np.testing.assert_array_equal(model.embedder(pixels).detach().numpy(), windows.max(axis=(4, 5)))
    assert not torch.equal(zeros(pixels)[0], infinite(pixels)[0])


def test_no_labels_is_no_head():
    ours, theirs = twins(num_labels=0)
    assert_same(ours(images()), theirs(images()))


def test_model_says_what_it_is():
    model = BitForImageClassification(BitConfig(**SMALL))
    assert model.base_model is model.bit
    assert model.bit.base_model is model.bit
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model.num_parameters() == sum(value.numel() for value in model.state_dict().values())
    model.bit.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == 256 * 5 + 5
    assert isinstance(BitBackbone(BitConfig(**SMALL)), bit_ref.BitPreTrainedModel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dummy_inputs_are_what_the_model_takes(dtype):
    model = bit_ref.BitModel(bit_ref.BitConfig(**SMALL, num_channels=4)).to(dtype)
    assert model(**model.dummy_inputs).last_hidden_state.shape == (3, 256, 8, 8)
