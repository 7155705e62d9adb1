"""Training as users do it: every checkpoint loads, gradients are those of a plain step, units may be computed again."""

import copy

import pytest
import torch

from bit_ref import BitConfig, BitForImageClassification, BitModel, SaveConfigCallback
from bit_ref.model import BitUnit
from tests.bit_ref.support import SMALL, images, randomize

LABELS = torch.tensor([0, 1])


def small(**options) -> BitForImageClassification:
    model = BitForImageClassification(BitConfig(**{**SMALL, "depths": [2, 2], **options})).double()
    randomize(model)
    return model.train()


def gradients(model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)
    model(images(), labels=LABELS).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}, "every_n_layers": 2},
        {"offload": True},
    ],
    ids=str,
)
def test_gradients_are_the_same_when_units_are_computed_again(options, monkeypatch):
    model = small(drop_path_rate=0.5)
    expected = gradients(model)
    ran = count_units(monkeypatch)
    model.gradient_checkpointing_enable(**options)
    model.enable_input_require_grads()
    assert model.is_gradient_checkpointing
    assert_same_gradients(gradients(model), expected)
    assert len(ran) == 4 + (2 if "every_n_layers" in options else 4)

    model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
    del ran[:]
    assert_same_gradients(gradients(model), expected)
    assert len(ran) == 4
    assert not model.is_activation_checkpointing


def count_units(monkeypatch) -> list[BitUnit]:
    """The units that have run, in order."""
    ran, forward = [], BitUnit.forward
    monkeypatch.setattr(BitUnit, "forward", lambda unit, x: ran.append(unit) or forward(unit, x))
    return ran


def test_nothing_is_computed_again_without_a_gradient(monkeypatch):
    model = small()
    model.gradient_checkpointing_enable()
    ran = count_units(monkeypatch)
    model.eval()(images()).logits.sum().backward()
    with torch.no_grad():
        model.train()(images())
    assert len(ran) == 8


@pytest.mark.parametrize("every", [0, -1])
def test_no_unit_at_all_is_refused(every):
    model = BitModel(BitConfig(**SMALL))
    with pytest.raises(ValueError, match=f"every_n_layers={every} is less than 1"):
        model.activation_checkpointing_enable(every_n_layers=every)
    assert not model.is_activation_checkpointing


def test_frozen_root_under_reentrant_checkpoints():
    model = small()
    model.bit.embedder.requires_grad_(False)
    expected = gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    assert_same_gradients(gradients(copy.deepcopy(model)), expected)


def trainer(model, folder, rows, **options):
    from transformers import Trainer, TrainingArguments

    callbacks = options.pop("callbacks", [])
    arguments = TrainingArguments(
        str(folder), report_to=[], use_cpu=True, disable_tqdm=True, optim="sgd", lr_scheduler_type="constant", **options
    )
    return Trainer(model, arguments, train_dataset=rows, callbacks=callbacks)


def rows(count=4) -> list[dict]:
    return [{"pixel_values": image, "labels": place % 5} for place, image in enumerate(images(count).float())]


def test_accumulated_batches_are_one_large_batch(tmp_path):
    """The losses of two halves, each a mean, add up to the mean of the whole: which stock transformers gets wrong."""
    whole, halves = small().float(), small().float()
    once = {"max_steps": 1, "max_grad_norm": 0.0, "learning_rate": 0.1, "save_strategy": "no"}
    trainer(whole, tmp_path, rows(), per_device_train_batch_size=4, **once).train()
    accumulating = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer(halves, tmp_path, rows(), **accumulating, **once).train()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(halves.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_checkpoints_of_the_trainer_are_whole_folders(compiled, tmp_path):
    options = {"torch_compile": True, "torch_compile_backend": "aot_eager"} if compiled else {}
    callback = SaveConfigCallback()
    own = trainer(
        small(weight_standardization_eps=1e-10).float(),
        tmp_path,
        rows(),
        max_steps=2,
        save_steps=1,
        callbacks=[callback],
        gradient_checkpointing=not compiled,
        **options,
    )
    own.train()
    own.save_model()
    for folder in (tmp_path / "checkpoint-1", tmp_path / "checkpoint-2", tmp_path):
        model = BitForImageClassification.from_pretrained(folder)
        assert model.config.weight_standardization_eps == 1e-10
        assert model.config.architectures == ["BitForImageClassification"]
    for name, value in own.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    with pytest.raises(AttributeError):
        callback.nothing  # noqa: B018
    torch.compiler.reset()


def test_checkpoints_of_an_adapter_stay_the_adapter(tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(small().float(), LoraConfig(r=2, target_modules=["conv2"]))
    trainer(adapted, tmp_path, rows(), max_steps=1, save_steps=1, callbacks=[SaveConfigCallback()]).train()
    assert (tmp_path / "checkpoint-1/adapter_config.json").is_file()
    assert not (tmp_path / "checkpoint-1/config.json").exists()
