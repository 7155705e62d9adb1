"""Code that exists for transformers' classes, each use run on theirs and on bit_ref's: both must do what it says."""

import copy
import io
import pickle
import types

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

import bit_ref
from tests.bit_ref.support import SMALL, randomize

KINDS = ("BitConfig", "BitModel", "BitForImageClassification", "BitBackbone")
OURS = types.SimpleNamespace(
    **{name: getattr(bit_ref, name) for name in KINDS}, BitImageProcessor=bit_ref.BitImageProcessor
)
THEIRS = types.SimpleNamespace(
    **{name: getattr(transformers, name) for name in KINDS}, BitImageProcessor=BitImageProcessorPil
)
LABELS = torch.tensor([0, 1])


@pytest.fixture(params=[THEIRS, OURS], ids=["transformers", "bit_ref"])
def lib(request):
    return request.param


def make(lib, kind="BitForImageClassification", **options):
    model = getattr(lib, kind)(lib.BitConfig(**{**SMALL, **options})).eval()
    randomize(model)
    return model


def pixels(seed=0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def picture() -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.fixture
def folder(lib, tmp_path):
    make(lib).save_pretrained(tmp_path / "model")
    lib.BitImageProcessor(size=32, crop_size=32).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class Pictures(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, place):
        return {"pixel_values": pixels(place)[0], "labels": place % 5}


def trainer(model, folder, **options):
    """A Trainer on the CPU without reports, its other arguments among ``options``."""
    own = {key: options.pop(key) for key in ("callbacks", "compute_metrics", "processing_class") if key in options}
    settings = {"per_device_train_batch_size": 4, "report_to": [], "use_cpu": True, "disable_tqdm": True, **options}
    arguments = TrainingArguments(output_dir=str(folder), **settings)
    return Trainer(model=model, args=arguments, train_dataset=Pictures(), eval_dataset=Pictures(), **own)


def values(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_trainer_trains_evaluates_predicts(lib, tmp_path):
    model = make(lib)
    before = values(model)
    own = trainer(
        model, tmp_path, max_steps=2, compute_metrics=lambda found: {"rows": len(found.predictions)}, save_strategy="no"
    )
    assert own.train().global_step == 2
    assert not same(before, values(model))
    assert own.evaluate()["eval_rows"] == 8
    assert own.predict(Pictures()).predictions.shape == (8, 5)
    assert own.state.total_flos > 0


def test_trainer_resumes(lib, tmp_path):
    constant = {"lr_scheduler_type": "constant", "save_steps": 1}
    trainer(make(lib), tmp_path, max_steps=1, **constant).train()
    going_on = trainer(make(lib), tmp_path, max_steps=2, **constant)
    going_on.train(resume_from_checkpoint=True)
    once = make(lib)
    trainer(once, tmp_path / "once", max_steps=2, **constant).train()
    for name, value in values(once).items():
        torch.testing.assert_close(values(going_on.model)[name], value, rtol=1e-4, atol=1e-5)


def test_trainer_loads_the_best_checkpoint(lib, tmp_path):
    own = trainer(
        make(lib),
        tmp_path,
        max_steps=2,
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        learning_rate=1.0,
    )
    own.train()
    losses = [line["eval_loss"] for line in own.state.log_history if "eval_loss" in line]
    assert own.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-3)


def test_trainer_saves_the_processor_and_writes_a_card(lib, tmp_path):
    own = trainer(make(lib), tmp_path, max_steps=1, processing_class=lib.BitImageProcessor(size=32))
    own.train()
    own.save_model(str(tmp_path / "end"))
    own.create_model_card()
    assert lib.BitImageProcessor.from_pretrained(tmp_path / "end").size["shortest_edge"] == 32
    assert (tmp_path / "README.md").is_file()


@pytest.mark.slow
def test_trainer_compiles(lib, tmp_path):
    own = trainer(make(lib), tmp_path, max_steps=1, torch_compile=True, torch_compile_backend="aot_eager")
    assert own.train().global_step == 1
    torch.compiler.reset()


@pytest.mark.parametrize("options", [{"bf16": True}, {"label_smoothing_factor": 0.1}, {"optim": "sgd"}], ids=str)
def test_trainer_takes_its_usual_options(lib, options, tmp_path):
    assert trainer(make(lib), tmp_path, max_steps=1, **options).train().training_loss > 0


def test_loop_of_accelerate(lib, tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = make(lib)
    loader = torch.utils.data.DataLoader(Pictures(), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1e-3), loader)
    for batch in loader:
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.unwrap_model(model).save_pretrained(
        tmp_path,
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
    )
    assert same(values(lib.BitForImageClassification.from_pretrained(tmp_path)), values(model))


def test_empty_model_is_dispatched_by_accelerate(lib, folder):
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch

    with init_empty_weights():
        empty = lib.BitForImageClassification(lib.BitConfig(**SMALL))
    model = load_checkpoint_and_dispatch(
        empty,
        str(folder / "model.safetensors"),
        device_map={"": "cpu"},
        no_split_module_classes=empty._no_split_modules,
    )
    whole = lib.BitForImageClassification.from_pretrained(folder)
    assert same(values(model), values(whole))


def test_low_rank_adapter_of_peft(lib, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model = make(lib)
    before, frozen = model(pixels()).logits, values(model)
    adapted = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=4, target_modules=["conv1", "conv2", "conv3"], modules_to_save=["classifier"])
    )
    torch.testing.assert_close(adapted(pixels()).logits, before, rtol=1e-4, atol=1e-4)
    own = trainer(adapted, tmp_path / "training", max_steps=2, save_steps=2)
    own.train()
    assert own.evaluate()["eval_loss"] > 0
    trained = adapted.eval()(pixels()).logits
    assert not torch.allclose(trained, before)
    weight = model.bit.encoder.stages[0].layers[0].conv2.base_layer.weight
    assert torch.equal(weight, frozen["bit.encoder.stages.0.layers.0.conv2.weight"])
    adapted.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(make(lib), tmp_path / "adapter").eval()
    torch.testing.assert_close(again(pixels()).logits, trained, rtol=1e-4, atol=1e-4)


def test_adapter_remembers_its_base(lib, folder, tmp_path):
    from peft import LoraConfig, PeftConfig, get_peft_model

    model = lib.BitForImageClassification.from_pretrained(folder)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path / "adapter")
    assert PeftConfig.from_pretrained(tmp_path / "adapter").base_model_name_or_path == str(folder)


def test_pipeline_of_image_classification(lib, tmp_path):
    model = make(lib, id2label={i: f"class {i}" for i in range(5)})
    processor = lib.BitImageProcessor(size=32, crop_size=32)
    classify = transformers.pipeline("image-classification", model=model, image_processor=processor)
    found = classify(picture(), top_k=2)
    logits = model(**processor(picture(), return_tensors="pt")).logits.softmax(-1)[0]
    assert found[0] == {"label": f"class {logits.argmax()}", "score": pytest.approx(logits.max().item(), rel=1e-4)}
    picture().save(tmp_path / "a.png")
    assert classify([str(tmp_path / "a.png")] * 2, batch_size=2, top_k=2)[1] == [
        {**row, "score": pytest.approx(row["score"], rel=1e-4)} for row in found
    ]


@pytest.mark.parametrize("pool", [False, True])
def test_pipeline_of_feature_extraction(lib, pool):
    model, processor = make(lib, "BitModel"), lib.BitImageProcessor(size=32, crop_size=32)
    extract = transformers.pipeline("image-feature-extraction", model=model, image_processor=processor, pool=pool)
    output = model(**processor(picture(), return_tensors="pt"))
    expected = output.pooler_output if pool else output.last_hidden_state
    np.testing.assert_allclose(extract(picture()), expected.detach(), rtol=1e-3, atol=1e-4)


def test_trace_of_torchscript(lib):
    model = make(lib)
    traced = torch.jit.trace(model, pixels(), strict=False)
    torch.testing.assert_close(traced(pixels(1))["logits"], model(pixels(1)).logits, rtol=1e-4, atol=1e-4)
    stream = io.BytesIO()
    torch.jit.save(torch.jit.freeze(traced), stream)
    stream.seek(0)
    torch.testing.assert_close(torch.jit.load(stream)(pixels())["logits"], model(pixels()).logits, rtol=1e-4, atol=1e-4)


def test_trace_of_tuples(lib):
    model = make(lib, return_dict=False)
    with torch.no_grad():
        model(pixels())
        traced = torch.jit.trace(model, pixels())
    torch.testing.assert_close(traced(pixels(1))[0], model(pixels(1))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_exported_program(lib, strict):
    model = make(lib)
    program = torch.export.export(model, (), {"pixel_values": pixels()}, strict=strict)
    torch.testing.assert_close(program.module()(pixel_values=pixels(1)).logits, model(pixels(1)).logits)


@pytest.mark.slow
def test_compiled_model(lib):
    model = make(lib)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(pixels()).logits, model(pixels()).logits)
    torch.compiler.reset()


def test_copies_and_pickles(lib):
    model = make(lib)
    expected = model(pixels()).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch_saved(model)):
        torch.testing.assert_close(other(pixels()).logits, expected)
        assert other.bit.norm.weight is not model.bit.norm.weight


def torch_saved(model):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


def test_wrappers_of_pytorch(lib):
    model = make(lib)
    expected = model(pixels()).logits
    torch.testing.assert_close(nn.DataParallel(model)(pixels()).logits, expected)
    torch.testing.assert_close(torch.optim.swa_utils.AveragedModel(model)(pixels()).logits, expected)
    called = torch.func.functional_call(model, dict(model.state_dict()), (pixels(),))
    torch.testing.assert_close(called.logits, expected)
    assert same(values(nn.DataParallel(model)), {f"module.{name}": value for name, value in values(model).items()})


def test_vectorised_over_images(lib):
    model = make(lib).requires_grad_(False)
    found = torch.func.vmap(lambda image: model(image[None]).logits[0])(pixels())
    torch.testing.assert_close(found, model(pixels()).logits)


def test_gradients_of_each_image(lib):
    model = make(lib)

    def loss(parameters, image, label):
        return torch.func.functional_call(model, parameters, (image[None],), {"labels": label[None]}).loss

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, pixels(), LABELS)
    model(pixels(), labels=LABELS).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name].mean(0), parameter.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("part", ["", "downsample", "classifier"])
def test_ensemble_that_differs_in_a_part(lib, part):
    models = [make(lib), make(lib)]
    randomize(models[1], 1)
    names = [name for name in values(models[0]) if part in name]
    parameters = {name: torch.stack([values(model)[name] for model in models]) for name in names}
    images = pixels()

    def logits(parameters):
        return torch.func.functional_call(models[0], parameters, (images,)).logits

    with torch.no_grad():
        found = torch.func.vmap(logits)(parameters)
        for number, each in enumerate(found):
            models[0].load_state_dict({name: parameter[number] for name, parameter in parameters.items()}, strict=False)
            torch.testing.assert_close(each, models[0](images).logits, atol=1e-4, rtol=1e-4)


def test_distributed_data_parallel(lib, tmp_path):
    import torch.distributed

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = make(lib).train()
        nn.parallel.DistributedDataParallel(model)(pixels(), labels=LABELS).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


def test_hooks_see_what_layers_give(lib):
    model, seen = make(lib), []
    stage = model.bit.encoder.stages[1]
    handles = [
        stage.register_forward_hook(lambda module, inputs, output: seen.append(output)),
        stage.layers[0].conv2.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])),
        model.bit.pooler.register_forward_hook(lambda module, inputs, output: seen.append(output)),
    ]
    output = model(pixels(), output_hidden_states=True)
    assert [tuple(value.shape) for value in seen] == [(2, 64, 8, 8), (2, 256, 4, 4), (2, 256, 1, 1)]
    assert torch.equal(seen[1], output.hidden_states[2])
    for handle in handles:
        handle.remove()
    model(pixels())
    assert len(seen) == 3


@pytest.mark.parametrize("everywhere", [False, True])
def test_what_hooks_keep_stays_as_it_was(lib, everywhere):
    model, seen = make(lib), []

    def keep(module, inputs, output):
        values = [value for value in (*inputs, output) if isinstance(value, torch.Tensor)]
        seen.extend((value, value.clone()) for value in values)

    if everywhere:
        handles = [nn.modules.module.register_module_forward_hook(keep)]
    else:
        handles = [layer.register_forward_hook(keep) for layer in model.modules()]
    try:
        with torch.no_grad():
            model(pixels())
    finally:
        for handle in handles:
            handle.remove()
    assert len(seen) > 50
    assert all(torch.equal(kept, as_it_was) for kept, as_it_was in seen)


def test_frozen_trunk_and_another_head(lib):
    model = make(lib)
    for parameter in model.bit.parameters():
        parameter.requires_grad = False
    model.classifier[-1] = nn.Linear(model.classifier[-1].in_features, 3)
    model.config.num_labels = 3
    model.train()(pixels(), labels=LABELS).loss.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {
        "classifier.1.weight",
        "classifier.1.bias",
    }
    assert model.num_parameters(only_trainable=True) == 256 * 3 + 3


def test_gradients_of_hidden_states_are_kept(lib):
    model = make(lib)
    output = model(pixels(), output_hidden_states=True)
    for state in output.hidden_states:
        state.retain_grad()
    output.logits.sum().backward()
    assert all(state.grad is not None for state in output.hidden_states)


def test_tuples_are_the_dictionary_without_names(lib):
    model = make(lib)
    as_tuple = model(pixels(), labels=LABELS, output_hidden_states=True, return_dict=False)
    as_dict = model(pixels(), labels=LABELS, output_hidden_states=True)
    assert type(as_tuple) is tuple
    assert [*as_dict] == ["loss", "logits", "hidden_states"]
    loss, logits, states = as_tuple
    assert torch.equal(loss, as_dict["loss"])
    assert torch.equal(logits, as_dict[1])
    assert all(torch.equal(*pair) for pair in zip(states, as_dict.hidden_states, strict=True))


def test_model_says_what_it_is(lib):
    model = make(lib)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert model.num_parameters() == model.num_parameters(exclude_embeddings=True) == count
    assert model.get_memory_footprint() == 4 * count
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert (model.main_input_name, model.base_model_prefix) == ("pixel_values", "bit")
    assert model.base_model is model.bit
    assert model.config_class is lib.BitConfig
    assert not model.can_generate()
    assert model.get_output_embeddings() is None
    with pytest.raises(NotImplementedError):
        model.get_input_embeddings()
    model.add_model_tags("digits")
    model.add_model_tags(["digits", "bit"])
    assert model.model_tags == ["digits", "bit"]
    model.tie_weights()


def test_model_of_a_config_and_a_state_dict(lib):
    first = make(lib)
    second = lib.BitForImageClassification.from_pretrained(None, config=first.config, state_dict=first.state_dict())
    assert same(values(first), values(second))
    with pytest.raises(ValueError, match="state_dict"):
        lib.BitForImageClassification.from_pretrained("somewhere", state_dict={})


@pytest.mark.parametrize(
    "options",
    [
        {"device_map": {"": "cpu"}},
        {"device_map": "auto", "max_memory": {"cpu": "10GB"}},
        {"device_map": torch.device("cpu")},
        {"proxies": {"https": "http://127.0.0.1:1"}},
        {"attn_implementation": "eager"},
        {"attn_implementation": None},
        {"key_mapping": {"^nothing": "something"}},
        {"quantization_config": None},
        {"low_cpu_mem_usage": True, "torch_dtype": "auto", "trust_remote_code": True, "use_safetensors": True},
        {"dtype": "auto", "local_files_only": True, "force_download": False, "cache_dir": "cache", "subfolder": ""},
        {"revision": "main", "token": None, "weights_only": True, "variant": None, "_commit_hash": None},
        {"offload_folder": "offload", "offload_state_dict": True, "_fast_init": True, "from_tf": False},
    ],
    ids=str,
)
def test_arguments_of_loading(lib, options, folder):
    plain = values(lib.BitForImageClassification.from_pretrained(folder))
    assert same(values(lib.BitForImageClassification.from_pretrained(folder, **options)), plain)


def test_renamed_tensors(lib, folder):
    from safetensors.torch import load_file, save_file

    plain = values(lib.BitForImageClassification.from_pretrained(folder))
    stored = load_file(folder / "model.safetensors")
    others = {name.replace("bit.", "backbone.").replace("classifier.1", "fc"): name for name in stored}
    tensors = {other: stored[name].clone() for other, name in others.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    mapping = {r"^backbone\.": "bit.", r"^fc\.": "classifier.1."}
    assert same(values(lib.BitForImageClassification.from_pretrained(folder, key_mapping=mapping)), plain)


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "100KB"}], ids=["whole", "shards"])
def test_variant_of_the_weights(lib, shards, tmp_path):
    first, second = make(lib), make(lib)
    randomize(second, 1)
    first.save_pretrained(tmp_path)
    second.save_pretrained(tmp_path, variant="fp16", safe_serialization=True, token=None, **shards)
    assert same(values(lib.BitForImageClassification.from_pretrained(tmp_path)), values(first))
    for other in (OURS, THEIRS):
        assert same(values(other.BitForImageClassification.from_pretrained(tmp_path, variant="fp16")), values(second))
    with pytest.raises(OSError, match="bf16"):
        lib.BitForImageClassification.from_pretrained(tmp_path, variant="bf16")


def test_config_as_json_file_and_keys(lib, tmp_path):
    config = lib.BitConfig(**SMALL, out_features=["stem", "stage2"])
    for use_diff in (True, False):
        config.to_json_file(tmp_path / "config.json", use_diff=use_diff)
        again = lib.BitConfig.from_json_file(tmp_path / "config.json")
        assert again.to_dict() == config.to_dict()
    assert '"return_dict"' in config.to_json_string(use_diff=False)
    assert '"return_dict"' not in config.to_json_string()
    content, unused = lib.BitConfig.get_config_dict(tmp_path, nothing=1)
    assert (content["depths"], unused["nothing"]) == (SMALL["depths"], 1)
    config.update({"drop_path_rate": 0.5, "note": {"new": 1}})
    config.update_from_string("num_groups=16,embedding_dynamic_padding=true")
    assert (config.drop_path_rate, config.note, config.num_groups) == (0.5, {"new": 1}, 16)
    assert config.embedding_dynamic_padding is True
    assert config.get_text_config() is config
    assert config.use_return_dict
    config.torch_dtype = "float16"
    assert config.dtype == torch.float16 or config.dtype == "float16"
    for wrong, error in (("nothing=1", ValueError), ("depths=1", TypeError), ("return_dict=maybe", ValueError)):
        with pytest.raises(error):
            config.update_from_string(wrong)


def test_backbone_says_what_it_is(lib):
    model = make(lib, "BitBackbone", out_features=["stem", "stage2"])
    assert model.channels == [32, 256]
    assert [tuple(each.shape) for each in model(pixels()).feature_maps] == [(2, 32, 8, 8), (2, 256, 4, 4)]
    kind = model.backbone_type
    assert getattr(kind, "value", kind) == "transformers"


def test_new_model_of_a_config(lib):
    config = lib.BitConfig(**SMALL)
    model = lib.BitForImageClassification._from_config(config, dtype=torch.float16)
    assert model.dtype == torch.float16
    loss = model.float().loss_function(LABELS, torch.eye(5)[:2], model.config)
    assert loss == pytest.approx(nn.functional.cross_entropy(torch.eye(5)[:2], LABELS).item())


def test_autocast_and_half_precision(lib):
    model = make(lib)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model(pixels()).logits).all()
    assert model.bfloat16()(pixels().bfloat16()).logits.dtype == torch.bfloat16


def test_quantised_head(lib):
    quantised = torch.ao.quantization.quantize_dynamic(make(lib), {nn.Linear})
    assert quantised(pixels()).logits.shape == (2, 5)


SMALLEST = {"embeddings_size": 10, "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 2, 1], "num_groups": 1}
"""The network of transformers' own tests, and a key that no BiT has."""


@pytest.mark.parametrize("kind", ["BitModel", "BitForImageClassification", "BitBackbone"])
def test_smallest_network_gives_each_image_its_own_output(lib, kind):
    model = make(lib, kind, **SMALLEST, embedding_size=64)
    assert model.config.embeddings_size == 10
    together, alone = model(pixels()), model(pixels()[:1])
    for batch, single in zip(flat(together.to_tuple()), flat(alone.to_tuple()), strict=True):
        torch.testing.assert_close(batch[:1], single, rtol=1e-4, atol=1e-5)
    states = model(pixels(), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [8, 8, 4, 2, 1]


def flat(values) -> list[torch.Tensor]:
    return [each for value in values for each in (value if isinstance(value, tuple) else (value,))]


def test_stages_of_a_copied_config_start_over(lib):
    config = lib.BitConfig(**{**SMALL, **SMALLEST}, out_features=["stage2", "stage4"], out_indices=[2, 4])
    assert lib.BitBackbone(config).channels == [16, 64]
    for name in ("out_features", "out_indices"):
        copied = copy.deepcopy(config)
        setattr(copied, name, None)
        assert lib.BitBackbone(copied).channels == [64]
    with pytest.raises(ValueError, match="should correspond to the same stages"):
        lib.BitConfig(out_features=["stage1", "stage2"], out_indices=[0, 2])
