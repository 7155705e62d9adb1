"""Folders to inspect, as data: what is wrong with each, and what is honest though it looks unusual.

Each case is a change of an honest folder. The transformers folders hold a tiny network of one unit and 1,000 classes;
those of timm are described alone, since timm has no tiny network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.auditing.inspection.fates import Notes
from converters.catalogue.labels import labels

Change = Callable[[Path], None]
DELETED = object()


@dataclass(frozen=True)
class Case:
    """``config`` and ``recipe`` are fields that are set in config.json and preprocessor_config.json, by dotted path."""

    name: str
    place: str = ""
    """What a fault is found at: the start of an expectation's place. Empty of an honest folder."""
    found: str = ""
    """Words of what is said of a fault."""
    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    misleads: bool = False
    """Whether no library may be given the folder."""

    def __str__(self) -> str:
        return self.name


def unknown(notes: Notes) -> list[str]:
    """The files and fields of which nobody knows what they change."""
    return [each.place for each in notes.inspected if each.fate == "unknown"]


def set_fields(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *outer, last = path.split("/")
        place = content
        for key in outer:
            place = place.setdefault(key, {})
        if value is DELETED:
            place.pop(last, None)
        else:
            place[last] = value
    return content


def write(name: str, content: bytes | str | dict) -> Change:
    def change(folder: Path) -> None:
        data = json.dumps(content) if isinstance(content, dict) else content
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def together(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def stored(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def save_torch(path: Path, tensors: dict[str, np.ndarray]) -> None:
    import torch

    torch.save({name: torch.from_numpy(values.copy()) for name, values in tensors.items()}, path)


def bin_beside(name: str = "pytorch_model.bin", scale: float = 1.0) -> Change:
    return lambda folder: save_torch(folder / name, {n: v * np.float32(scale) for n, v in stored(folder).items()})


def bin_alone(folder: Path) -> None:
    bin_beside()(folder)
    (folder / "model.safetensors").unlink()


def bin_shards(folder: Path) -> None:
    tensors = stored(folder)
    names = sorted(tensors)
    homes = {name: f"pytorch_model-0000{1 + (i % 2)}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(homes.values()):
        save_torch(folder / file, {name: tensors[name] for name in names if homes[name] == file})
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def safe_shards(folder: Path, metadata: Any = None, alone: bool = True, scale: float = 1.0) -> None:
    from safetensors.numpy import save_file

    tensors = stored(folder)
    names = sorted(tensors)
    homes = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(homes.values()):
        held = {name: tensors[name] * np.float32(scale) for name in names if homes[name] == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1} if metadata is None else metadata, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if alone:
        (folder / "model.safetensors").unlink()


def safe_beside(name: str, scale: float = 1.0, dtype: type = np.float32) -> Change:
    from safetensors.numpy import save_file

    return lambda folder: save_file(
        {n: (v * np.float32(scale)).astype(dtype) for n, v in stored(folder).items()}, folder / name
    )


def saved_with(metadata: dict[str, str] | None) -> Change:
    from safetensors.numpy import save_file

    return lambda folder: save_file(stored(folder), folder / "model.safetensors", metadata=metadata)


def in_dtype(dtype: type, declared: str | None) -> Change:
    from safetensors.numpy import save_file

    def change(folder: Path) -> None:
        save_file({n: v.astype(dtype) for n, v in stored(folder).items()}, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        config.pop("torch_dtype", None)
        if declared is not None:
            config["dtype"] = declared
        (folder / "config.json").write_text(json.dumps(config))

    return change


def nested_processor(**recipe: Any) -> Change:
    def change(folder: Path) -> None:
        own = json.loads((folder / "preprocessor_config.json").read_text())
        write("processor_config.json", {"image_processor": {**own, **recipe}})(folder)

    return change


def edit_labels(edit: Callable[[dict[str, str]], dict[str, str]], inverse: bool = True) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = edit(config["id2label"])
        if inverse:
            config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}
        (folder / "config.json").write_text(json.dumps(config))

    return change


def edit_inverse(edit: Callable[[dict[str, int]], dict]) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["label2id"] = edit(config["label2id"])
        (folder / "config.json").write_text(json.dumps(config))

    return change


def encoded(name: str, encoding: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_text().encode(encoding)) and None


def ending(name: str, more: bytes) -> Change:
    """More in the last object of a JSON file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().rstrip()[:-1] + more + b"}") and None


def header(edit: Callable[[bytes], bytes]) -> Change:
    """Another header of model.safetensors."""

    def change(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        new = edit(data[8:start])
        (folder / "model.safetensors").write_bytes(len(new).to_bytes(8, "little") + new + data[start:])

    return change


def metadata(value: Any) -> Change:
    return header(lambda old: json.dumps({**json.loads(old), "__metadata__": value}).encode())


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    """Something else than a file under the name of one."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def exchanged(labels: dict[str, str], a: str, b: str) -> dict[str, str]:
    return {**labels, a: labels[b], b: labels[a]}


def without_id(label: str) -> str:
    return label.partition(" (n")[0]


def spelt(write_it: Callable[[str, str, list[str]], str]) -> Callable[[dict[str, str]], dict[str, str]]:
    """Labels, of the class's number, its WordNet id and its lemmas."""
    ids = [label.id for label in labels("ilsvrc2012")]

    return lambda names: {k: write_it(k, str(ids[int(k)]), without_id(name).split(", ")) for k, name in names.items()}


SPELLINGS = {
    "an id before": spelt(lambda n, wordnet, lemmas: f"{wordnet} {', '.join(lemmas)}"),
    "an id and an underscore before": spelt(lambda n, wordnet, lemmas: f"{wordnet}_{lemmas[0].replace(' ', '_')}"),
    "an id and a slash before": spelt(lambda n, wordnet, lemmas: f"{wordnet}/{lemmas[0]}"),
    "an id behind": spelt(lambda n, wordnet, lemmas: f"{', '.join(lemmas)}, {wordnet}"),
    "an id in square brackets": spelt(lambda n, wordnet, lemmas: f"{lemmas[0]} [{wordnet}]"),
    "ids alone": spelt(lambda n, wordnet, lemmas: wordnet),
    "a number before": spelt(lambda n, wordnet, lemmas: f"{n}: {', '.join(lemmas)}"),
    "semicolons": spelt(lambda n, wordnet, lemmas: "; ".join(lemmas)),
    "slashes": spelt(lambda n, wordnet, lemmas: " / ".join(lemmas)),
    "or": spelt(lambda n, wordnet, lemmas: " or ".join(lemmas)),
    "lemmas in brackets": spelt(lambda n, wordnet, lemmas: f"{lemmas[0]} ({', '.join(lemmas[1:])})"),
    "lemmas without commas": spelt(lambda n, wordnet, lemmas: " ".join(lemmas)),
    "hyphens": spelt(lambda n, wordnet, lemmas: lemmas[0].replace(" ", "-")),
    "no spaces": spelt(lambda n, wordnet, lemmas: "".join(word.capitalize() for word in lemmas[0].split())),
    "curly apostrophes": spelt(lambda n, wordnet, lemmas: ", ".join(lemmas).replace("'", "\u2019")),
    "a comma at the end": spelt(lambda n, wordnet, lemmas: ", ".join(lemmas) + ", "),
    "synsets of NLTK": spelt(lambda n, wordnet, lemmas: lemmas[0].replace(" ", "_") + ".n.01"),
    "torchvision's": spelt(
        lambda n, wordnet, lemmas: {"134": "crane bird", "639": "maillot tank suit"}.get(n, lemmas[0])
    ),
}
"""Ways of writing ImageNet's labels."""


CODE = "def anything():\n    raise SystemExit('ran')\n"

FAULTS = [
    # the loader is sent elsewhere
    Case("other weights", "config.json transformers_weights", "other.safetensors", misleads=True,
         config={"transformers_weights": "other.safetensors"}, change=safe_beside("other.safetensors", 1.01)),
    Case("an index elsewhere", "config.json transformers_weights", "index", misleads=True,
         config={"transformers_weights": "x.safetensors.index.json"}),
    Case("another config", "config.json configuration_files", "config.4.0.0.json", misleads=True,
         config={"configuration_files": ["config.4.0.0.json"]}, change=write("config.4.0.0.json", {})),
    Case("attributes renamed", "config.json attribute_map", "depths", misleads=True,
         config={"attribute_map": {"num_groups": "depths"}}),
    Case("other values for layers", "config.json per_layer_config", misleads=True,
         config={"per_layer_config": {"0": {"num_groups": 16}}}),
    Case("a text config", "config.json text_config", misleads=True, config={"text_config": {"model_type": "bert"}}),
    Case("fused modules", "config.json fusion_config", misleads=True, config={"fusion_config": {"x": True}}),
    Case("image processor in config.json", "config.json pretrained_cfg", misleads=True,
         config={"pretrained_cfg": {"input_size": [3, 9, 9]}}),
    Case("labels for a pipeline alone", "config.json task_specific_params", "image-classification", misleads=True,
         config={"task_specific_params": {"image-classification": {"id2label": {"0": "goldfish"}}}}),
    Case("no logits for a Trainer", "config.json keys_to_ignore_at_inference", "logits", misleads=True,
         config={"keys_to_ignore_at_inference": ["logits"]}),
    Case("spread over devices", "config.json distributed_config", misleads=True,
         config={"distributed_config": {"tp_size": 2}}),
    Case("weights of TensorFlow by their metadata", "model.safetensors metadata.format", "tf",
         change=saved_with({"format": "tf"})),
    Case("weights of Flax by their metadata", "model.safetensors metadata.format", "flax",
         change=saved_with({"format": "flax"})),
    # another precision
    Case("dtype float16", "config.json dtype", "float16", config={"dtype": "float16"}),
    Case("dtype bfloat16", "config.json dtype", "bfloat16", config={"dtype": "bfloat16"}),
    Case("dtype half", "config.json dtype", "half", config={"dtype": "half"}),
    Case("dtype float64", "config.json dtype", "float64", config={"dtype": "float64"}),
    Case("torch_dtype float16", "config.json torch_dtype", "float16", config={"torch_dtype": "float16"}),
    Case("torch_dtype bfloat16", "config.json torch_dtype", "bfloat16", config={"torch_dtype": "bfloat16"}),
    Case("torch_dtype beside a right dtype", "config.json torch_dtype",
         config={"dtype": "float32", "torch_dtype": "float16"}),
    Case("dtype with a prefix", "config.json dtype", config={"dtype": "torch.float32"}),
    Case("dtype auto", "config.json dtype", config={"dtype": "auto"}),
    Case("dtype by layer", "config.json dtype", config={"dtype": {"": "float16"}}),
    Case("float16 declared bfloat16", "config.json dtype", "bfloat16", change=in_dtype(np.float16, "bfloat16")),
    Case("half in the index", "model.safetensors.index.json metadata.dtype", "float16",
         config={"dtype": DELETED, "torch_dtype": DELETED},
         change=lambda folder: safe_shards(folder, {"total_size": 1, "dtype": "float16"})),
    Case("index without metadata", "model.safetensors.index.json metadata",
         change=lambda folder: safe_shards(folder, [])),
    # cannot be loaded
    Case("no model_type", "config.json model_type", "absent", config={"model_type": DELETED}),
    Case("another model_type", "config.json model_type", "resnet", config={"model_type": "resnet"}),
    Case("model_type in capitals", "config.json model_type", "BiT", config={"model_type": "BiT"}),
    Case("quantised", "config.json quantization_config", "bitsandbytes", misleads=True,
         config={"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}),
    Case("quantised by nothing", "config.json quantization_config", misleads=True, config={"quantization_config": {}}),
    Case("compressed", "config.json compression_config", misleads=True,
         config={"compression_config": {"quant_method": "compressed-tensors"}}),
    Case("divided widths", "config.json width_factor", "4", misleads=True,
         config={"width_factor": 4, "hidden_sizes": [32]}),
    Case("width factor alone", "config.json hidden_sizes", misleads=True, config={"width_factor": 2}),
    Case("other depths", "config.json depths", misleads=True, config={"depths": [2]}),
    Case("other widths", "config.json hidden_sizes", misleads=True, config={"hidden_sizes": [256]}),
    Case("other root", "config.json embedding_size", misleads=True, config={"embedding_size": 64}),
    Case("four channels", "config.json num_channels", misleads=True, config={"num_channels": 4}),
    Case("ten labels", "config.json number of labels", "1000", misleads=True,
         config={"id2label": {str(i): f"{i}" for i in range(10)}, "label2id": DELETED}),
    Case("no labels", "config.json number of labels", misleads=True,
         config={"id2label": DELETED, "label2id": DELETED}),
    Case("num_labels beside the labels", "config.json number of labels", misleads=True, config={"num_labels": 10}),
    Case("num_labels null", "config.json number of labels", misleads=True, config={"num_labels": None}),
    Case("a tuple of logits", "config.json return_dict", "false", config={"return_dict": False}),
    Case("attention of no kind", "config.json attn_implementation", misleads=True,
         config={"attn_implementation": "flash_attention_2"}),
    Case("layer types", "config.json layer_types", misleads=True, config={"layer_types": 7}),
    Case("a method replaced", "config.json to_dict", "replaces", config={"to_dict": "x"}),
    Case("a property set", "config.json use_return_dict", "replaces", config={"use_return_dict": True}),
    Case("stages that are none", "config.json out_features", config={"out_features": ["stage9"]}),
    Case("stage numbers that are none", "config.json out_indices", config={"out_indices": [7]}),
    Case("stages that disagree", "config.json out_indices", config={"out_features": ["stem"], "out_indices": [1]}),
    Case("problem of no kind", "config.json problem_type", config={"problem_type": "detection"}),
    # another network
    Case("leaky", "config.json hidden_act", config={"hidden_act": "leaky_relu"}),
    Case("16 groups", "config.json num_groups", config={"num_groups": 16}),
    Case("post-activation", "config.json layer_type", config={"layer_type": "bottleneck"}),
    Case("SAME padding", "config.json global_padding", config={"global_padding": "SAME"}),
    Case("dynamic padding", "config.json embedding_dynamic_padding", config={"embedding_dynamic_padding": True}),
    Case("output stride 8", "config.json output_stride", config={"output_stride": 8}),
    Case("another architecture", "config.json architectures", config={"architectures": ["BitBackbone"]}),
    # code
    Case("code for the model", "config.json auto_map", misleads=True,
         config={"auto_map": {"AutoModelForImageClassification": "modeling.Net"}}, change=write("modeling.py", CODE)),
    Case("code for the config", "config.json auto_map", misleads=True,
         config={"auto_map": {"AutoConfig": "someone/else--configuration.Config"}}),
    Case("code for the processor", "preprocessor_config.json auto_map", misleads=True,
         recipe={"auto_map": {"AutoImageProcessor": "processing.P"}}, change=write("processing.py", CODE)),
    Case("code for a pipeline", "config.json custom_pipelines", misleads=True,
         config={"custom_pipelines": {"image-classification": {"impl": "pipe.Pipe"}}}),
    Case("code that nobody names", "handler.py", "code", misleads=True, change=write("handler.py", CODE)),
    Case("code in a folder", "src/modeling.py", "code", misleads=True, change=write("src/modeling.py", CODE)),
    Case("compiled code", "fast.so", "code", misleads=True, change=write("fast.so", b"\x7fELF")),
    # other weights beside
    Case("an adapter", "adapter_config.json", "adapter", misleads=True,
         change=write("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "x/y"})),
    Case("an adapter's weights", "adapter_model.safetensors", "adapter", misleads=True,
         change=safe_beside("adapter_model.safetensors")),
    Case("a distributed checkpoint", "shard-00001-model-00001-of-00001.safetensors", "instead", misleads=True,
         change=safe_beside("shard-00001-model-00001-of-00001.safetensors")),
    Case("other values in pytorch_model.bin", "pytorch_model.bin", "other values", change=bin_beside(scale=1.01)),
    Case("pytorch_model.bin that is none", "pytorch_model.bin", change=write("pytorch_model.bin", b"nothing")),
    Case("other values in shards", "model.safetensors.index.json", "other values",
         change=lambda folder: safe_shards(folder, alone=False, scale=1.01)),
    Case("other safetensors", "other.safetensors", "other values", change=safe_beside("other.safetensors", 0.5)),
    Case("a half variant of other values", "model.fp16.safetensors", "other values",
         change=safe_beside("model.fp16.safetensors", 0.5, np.float16)),
    Case("a shard without an index", "model-00001-of-00002.safetensors", "other values",
         change=safe_beside("model-00001-of-00002.safetensors", 2.0)),
    Case("a checkpoint of unknown kind", "best.ckpt", "not compared", change=write("best.ckpt", b"?")),
    Case("weights in GGUF", "model.gguf", "not compared", change=write("model.gguf", b"GGUF")),
    Case("weights in a pickle", "weights/model.pkl", "not compared", change=write("weights/model.pkl", b"?")),
    Case("a copy under another ending", "model.safetensors.bak", "weights",
         change=safe_beside("model.safetensors.bak", 2)),
    Case("a Cyrillic letter", "model.", "weights", change=safe_beside("model.\u0455afetensors", 2)),
    Case("TensorFlow's checkpoint", "model.ckpt.index", "not compared", change=together(
        write("model.ckpt.index", b"x"), write("model.ckpt.data-00000-of-00001", b"x"))),
    Case("a pickle without an ending", "weights", "weights", change=write("weights", b"\x80\x04}.")),
    Case("an archive", "model.zip", "archive", change=write("model.zip", b"PK\x03\x04")),
    Case("a compressed archive", "model.tgz", "archive", change=write("model.tgz", b"\x1f\x8b\x08")),
    Case("an archive of tar", "model.nemo", "archive", change=write("model.nemo", bytes(257) + b"ustar\x0000")),
    Case("Paddle's parameters", "model.pdparams", "weights", change=write("model.pdparams", b"\x80\x02}q")),
    Case("a script without an ending", "serve", "code", misleads=True, change=write("serve", b"#!/bin/sh\n")),
    Case("a library of a version", "libfast.so.1", "code", misleads=True, change=write("libfast.so.1", b"x")),
    Case("a wheel", "net-1-py3-none-any.whl", "code", misleads=True, change=write("net-1-py3-none-any.whl", b"PK")),
    Case("a program without an ending", "tool", "code", misleads=True, change=write("tool", b"\x7fELF\x02")),
    Case("a pipe as weights", "other.safetensors", "pipe", change=replaced("other.safetensors", os.mkfifo)),
    Case("a pipe as a second index", "model.safetensors.index.json", "pipe",
         change=replaced("model.safetensors.index.json", os.mkfifo)),
    Case("a device as a pickle", "pytorch_model.bin", "device",
         change=replaced("pytorch_model.bin", lambda path: path.symlink_to("/dev/zero"))),
    # another image processor
    Case("a folder as preprocessor", "preprocessor_config.json", "a folder",
         change=replaced("preprocessor_config.json", Path.mkdir)),
    Case("a broken link as preprocessor", "preprocessor_config.json", "broken link",
         change=replaced("preprocessor_config.json", lambda path: path.symlink_to("nowhere"))),
    Case("a pipe as processor", "processor_config.json", "pipe", change=replaced("processor_config.json", os.mkfifo)),
    Case("a size with an edge of null", "preprocessor_config.json size", "null",
         recipe={"size": {"height": 480, "width": 480, "shortest_edge": None}}),
    Case("ViT's processor", "preprocessor_config.json image_processor_type", "ViT",
         recipe={"image_processor_type": "ViTImageProcessor"}),
    Case("CLIP's extractor", "preprocessor_config.json feature_extractor_type", "CLIP",
         recipe={"image_processor_type": DELETED, "feature_extractor_type": "CLIPFeatureExtractor"}),
    Case("CLIP's processor", "preprocessor_config.json processor_class", "CLIP",
         recipe={"processor_class": "CLIPProcessor"}),
    Case("processor named in config.json", "config.json image_processor_type", "ViT", misleads=True,
         config={"image_processor_type": "ViTImageProcessor"}, recipe={"image_processor_type": DELETED}),
    Case("a shadow of another mean", "processor_config.json image_processor.image_mean", "0.1",
         change=nested_processor(image_mean=[0.1, 0.1, 0.1])),
    Case("a shadow of another class", "processor_config.json image_processor.image_processor_type", "ViT",
         change=nested_processor(image_processor_type="ViTImageProcessor")),
    Case("a shadow that is empty", "processor_config.json image_processor",
         change=write("processor_config.json", {"image_processor": None})),
    Case("a processor of text and images", "processor_config.json processor_class", "CLIP",
         change=write("processor_config.json", {"processor_class": "CLIPProcessor"})),
    Case("channels last", "preprocessor_config.json input_data_format", recipe={"input_data_format": "channels_last"}),
    Case("padded", "preprocessor_config.json do_pad", recipe={"do_pad": True, "pad_size": {"height": 9, "width": 9}}),
    Case("BGR", "preprocessor_config.json do_convert_rgb", recipe={"do_convert_rgb": False}),
    Case("another factor", "preprocessor_config.json rescale_factor", recipe={"rescale_factor": 1 / 127.5}),
    Case("ImageNet's mean by default", "preprocessor_config.json image_mean", recipe={"image_mean": DELETED}),
    Case("a step replaced", "preprocessor_config.json normalize", "replaces", recipe={"normalize": 1}),
    Case("too small", "preprocessor_config.json size", recipe={"size": {"height": 8, "width": 8}}),
    Case("too large", "preprocessor_config.json size", recipe={"size": {"height": 10**13, "width": 10**13}}),
    # labels
    Case("goose and crane", "config.json id2label 134", "'goose', not 'crane'",
         change=edit_labels(lambda labels: {**labels, "134": "goose"}, inverse=False)),
    Case("two exchanged", "config.json id2label 3",
         change=edit_labels(lambda labels: exchanged(labels, "3", "5"))),
    Case("maillots exchanged", "config.json id2label 638",
         change=edit_labels(lambda labels: exchanged(labels, "638", "639"))),
    Case("another WordNet id", "config.json id2label 134", "n03126707",
         change=edit_labels(lambda labels: {**labels, "134": "crane (n03126707)"}, inverse=False)),
    Case("all shifted", "config.json id2label 0",
         change=edit_labels(lambda labels: {k: labels[str((int(k) + 1) % 1000)] for k in labels})),
    Case("an empty label", "config.json id2label 7", change=edit_labels(lambda labels: {**labels, "7": ""})),
    Case("a label that is a number", "config.json id2label's classes", misleads=False,
         change=edit_labels(lambda labels: {**labels, "7": 7})),
    Case("numbers from one", "config.json id2label's classes",
         change=edit_labels(lambda labels: {str(int(k) + 1): v for k, v in labels.items()})),
    Case("a wrong number before", "config.json id2label 3",
         change=edit_labels(lambda names: {**names, "3": f"4: {names['3']}"})),
    Case("a lemma of another class beside", "config.json id2label 3",
         change=edit_labels(lambda names: {**names, "3": f"{names['3']}, goldfish"})),
    Case("a size with nulls", "preprocessor_config.json size",
         recipe={"size": {"height": 480, "width": 480, "shortest_edge": None}}),
    Case("a crop of another size than the image", "preprocessor_config.json do_center_crop",
         recipe={"do_center_crop": True, "crop_size": {"height": 448, "width": 448}}),
    Case("a mean of another range", "preprocessor_config.json image_mean",
         recipe={"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 0.9], "image_std": [1, 1, 1]}),
    Case("label2id of another class", "config.json label2id", "goldfish",
         change=edit_inverse(lambda back: {**back, "tench, Tinca tinca": 1})),
    Case("label2id lacks a class", "config.json label2id", "without",
         change=edit_inverse(lambda back: {k: v for k, v in back.items() if v != 3})),
    Case("label2id beyond the classes", "config.json label2id", change=edit_inverse(lambda back: {**back, "x": 1000})),
    Case("label2id of what begins as a number", "config.json label2id", "0000000001x",
         change=edit_inverse(lambda back: {**back, "tench, Tinca tinca": "0000000001x"})),
]  # fmt: skip

HONEST = [
    Case("as it is written"),
    # what transformers 4 leaves
    Case("transformers 4's fields", config={
        "torch_dtype": "float32", "transformers_version": "4.26.0", "_name_or_path": "google/bit-50",
        "conv_layer": "std_conv", "finetuning_task": None, "use_bfloat16": False, "pruned_heads": {},
        "torchscript": False, "return_dict": True, "output_hidden_states": False, "output_attentions": False,
        "is_encoder_decoder": False, "is_decoder": False, "add_cross_attention": False, "problem_type": None,
        "chunk_size_feed_forward": 0, "tie_word_embeddings": True, "tie_encoder_decoder": False,
        "tf_legacy_loss": False,
        "out_features": ["stage1"], "out_indices": [1], "stage_names": ["stem", "stage1"], "_commit_hash": None,
        "cross_attention_hidden_size": None, "tokenizer_class": None, "prefix": None, "bos_token_id": None,
        "pad_token_id": None, "eos_token_id": None, "sep_token_id": None, "decoder_start_token_id": None,
        "task_specific_params": None, "max_length": 20, "min_length": 0, "do_sample": False, "num_beams": 1,
        "_attn_implementation_autoset": False}),
    Case("parameters of text generation", config={"temperature": 0.7, "top_k": 3, "use_cache": False, "max_length": 9}),
    Case("output_hidden_states", config={"output_hidden_states": True}),
    Case("dropped paths in training", config={"drop_path_rate": 0.3}),
    Case("no dtype", config={"dtype": DELETED, "torch_dtype": DELETED}),
    Case("both dtypes", config={"dtype": "float32", "torch_dtype": "float32"}),
    Case("dtype float", config={"dtype": "float"}),
    Case("dtype null", config={"dtype": None, "torch_dtype": None}),
    Case("defaults left out", config=dict.fromkeys(
        ["num_channels", "hidden_act", "num_groups", "global_padding", "embedding_dynamic_padding", "output_stride",
         "width_factor", "pool_padding", "drop_path_rate"], DELETED)),
    Case("no architectures", config={"architectures": DELETED}),
    Case("architectures empty", config={"architectures": []}),
    Case("architectures null", config={"architectures": None}),
    Case("num_labels that agrees", config={"num_labels": 1000}),
    Case("stages of a backbone", config={"out_features": ["stem", "stage1"], "out_indices": [0, 1]}),
    Case("the last stage", config={"out_features": None, "out_indices": [-1]}),
    Case("nothing quantised", config={"quantization_config": None, "transformers_weights": None}),
    Case("single label", config={"problem_type": "single_label_classification"}),
    Case("junk that nobody reads", config={key: [10**13, None, [[[["x"]]]]] for key in (
        "transformers_version", "finetuning_task", "_name_or_path", "output_hidden_states", "torchscript",
        "pruned_heads", "use_cache", "max_length", "bos_token_id", "conv_layer")}),
    Case("an unknown field", config={"my_own_note": "hello"}),
    # weights
    Case("pytorch_model.bin alone", change=bin_alone),
    Case("pytorch_model.bin in shards", change=bin_shards),
    Case("both, of equal values", change=bin_beside()),
    Case("safetensors in shards", change=safe_shards),
    Case("shards with float32 in the index", change=lambda folder: safe_shards(
        folder, {"total_size": 1, "total_parameters": 1, "dtype": "float32"})),
    Case("shards beside, of equal values", change=lambda folder: safe_shards(folder, alone=False)),
    Case("shards beside a .bin, of equal values", change=together(bin_beside(), bin_shards)),
    Case("a copy of the weights", change=safe_beside("copy.safetensors")),
    Case("a half variant of the same values", change=safe_beside("model.fp16.safetensors", dtype=np.float16)),
    Case("a half variant of the .bin", change=lambda folder: save_torch(
        folder / "pytorch_model.fp16.bin", {n: v.astype(np.float16) for n, v in stored(folder).items()})),
    Case("safetensors without metadata", change=saved_with(None)),
    Case("metadata of NumPy", change=saved_with({"format": "np"})),
    Case("metadata of its own", change=saved_with({"format": "pt", "author": "me"})),
    Case("float16 that says so", change=in_dtype(np.float16, "float16")),
    Case("float16 read as float32", change=in_dtype(np.float16, "float32")),
    Case("float16 without a word", change=in_dtype(np.float16, None)),
    # files beside
    Case("documents", change=together(*(write(name, b"x") for name in (
        "README.md", "LICENSE", "NOTICE.txt", "figure.png", "paper.pdf", ".gitattributes", ".gitignore", "usage.ipynb",
        "requirements.txt", "scores.csv", "assets/logo.svg", "CITATION.cff")))),
    Case("what macOS leaves", change=together(*(write(name, b"\x00\x05\x16\x07") for name in (
        "._model.safetensors", "._config.json", "._convert.py", "sub/._x.bin", ".DS_Store")))),
    Case("git and the Hub's cache", change=together(
        write(".git/config", b"x"), write(".git/hooks/pre-commit.sh", b"x"), write(".cache/huggingface/x.lock", b""))),
    Case("what a Trainer leaves", change=together(*(write(name, b"\x80\x04}.") for name in (
        "training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth",
        "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json",
        "runs/Nov26/events.out.tfevents.1.host", "checkpoint-500/model.safetensors", "checkpoint-500/optimizer.pt",
        "random_states_0.pkl")))),
    Case("TensorFlow's and Flax's weights", change=together(
        write("tf_model.h5", b"x"), write("flax_model.msgpack", b"x"), write("rust_model.ot", b"x"))),
    Case("ONNX and TFLite", change=together(
        write("model.onnx", b"x"), write("onnx/model_quantized.onnx", b"x"), write("model.tflite", b"x"))),
    Case("a tokenizer", change=together(*(write(name, b"{}") for name in (
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt",
        "special_tokens_map.json", "spiece.model")))),
    Case("our own records", change=write("parity.html", b"x")),
    Case("a file of nobody", change=write("model.params", b"x")),
    Case("macOS's copies", change=together(*(write(name, b"\0\5\x16\7") for name in (
        "._model.safetensors", "._config.json", "._pytorch_model.bin", "._.DS_Store", ".DS_Store",
        "__MACOSX/._model.safetensors", "__MACOSX/folder/._config.json")))),
    Case("Windows' files", change=together(*(write(name, b"x") for name in (
        "Thumbs.db", "desktop.ini", "ehthumbs.db")))),
    Case("a submodule of git", change=together(
        write(".git", "gitdir: ../.git/modules/x"), write(".gitmodules", b""), write(".gitkeep", b""))),
    Case("Core ML", change=together(
        write("model.mlpackage/Manifest.json", b"{}"), write("coreml/model.mlpackage/Manifest.json", b"{}"),
        write("model.mlpackage/Data/com.apple.CoreML/weights/weight.bin", b"x"))),
    Case("OpenVINO", change=together(*(write(name, b"x") for name in (
        "openvino_model.xml", "openvino_model.bin", "openvino_config.json")))),
    Case("ONNX in pieces", change=together(*(write(name, b"x") for name in (
        "model.onnx", "model.onnx.data", "ort_config.json", "model.pte")))),
    Case("a SavedModel", change=together(*(write(name, b"x") for name in (
        "saved_model/1/saved_model.pb", "saved_model/1/variables/variables.index", "saved_model.pb", "fingerprint.pb",
        "keras_metadata.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")))),
    Case("what DeepSpeed leaves", change=together(
        write("zero_to_fp32.py", CODE), write("latest", b"global_step5"), write("global_step5/x_states.pt", b"x"))),
    Case("what other trainers leave", change=together(*(write(name, b"{}") for name in (
        "training_params.json", "lightning_logs/version_0/hparams.yaml", "mlruns/0/meta.yaml", "wandb/run-1/model.h5",
        ".eval_results/imagenet.yaml")))),
    Case("documents in capitals", change=together(*(write(name, b"x") for name in (
        "IMG_1.JPG", "Figure.PDF", "readme.MD", "License.txt", "COPYING", "VERSION", "MODEL_CARD", "demo.webm",
        "table.xlsx", "MD5SUMS", "model.safetensors.asc", ".editorconfig",
        ".idea/workspace.xml", ".ipynb_checkpoints/a-checkpoint.ipynb", ".dvc/config", "model.safetensors.dvc")))),
    Case("a report in its folder", change=together(
        write("parity/parity.json", b"{}"), write("parity/parity.html", b"x"))),
    # image processor
    Case("no preprocessor", change=lambda folder: (folder / "preprocessor_config.json").unlink()),
    Case("transformers 4's fast processor", recipe={
        "image_processor_type": "BitImageProcessorFast", "data_format": "channels_first", "input_data_format": None,
        "device": None, "return_tensors": None, "default_to_square": False, "disable_grouping": None, "do_pad": None,
        "pad_size": None}),
    Case("an older extractor", recipe={"feature_extractor_type": "BitFeatureExtractor"}),
    Case("an older extractor alone", recipe={
        "feature_extractor_type": "BitFeatureExtractor", "image_processor_type": DELETED}),
    Case("no class", recipe={"image_processor_type": DELETED}),
    Case("class in config.json", config={"image_processor_type": "BitImageProcessor"}),
    Case("keys that transformers 4 listed", recipe={"_valid_processor_keys": ["images", "do_resize"]}),
    Case("no processor class", recipe={"processor_class": None}),
    Case("a factor of fewer digits", recipe={"rescale_factor": 0.00392156862745098}),
    Case("size as a pair", recipe={"size": [480, 480]}),
    Case("a shadow of the same", change=nested_processor()),
    Case("a shadow of nothing", change=write("processor_config.json", {})),
    Case("a crop that is the whole image", recipe={"do_center_crop": True}),
    Case("a crop that is the whole image, as a number", recipe={"do_center_crop": True, "crop_size": 480}),
    Case("no crop, and no size for it", recipe={"crop_size": None}),
    Case("a crop by a list", recipe={"crop_size": [480, 480]}),
    Case("one mean for all channels", recipe={"image_mean": 0.5, "image_std": 0.5}),
    Case("to 0 … 2, less 1", recipe={
        "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1.0, 1.0, 1.0]}),
    Case("not rescaled, of 0 … 255", recipe={
        "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}),
    Case("the filter by its name", recipe={"resample": "bilinear"}),
    Case("steps by default", recipe=dict.fromkeys(
        ("do_convert_rgb", "do_resize", "do_rescale", "rescale_factor", "do_normalize"), DELETED)),
    Case("a size that no step uses", recipe={"crop_size": {"height": 7, "width": 7}}),
    # labels
    Case("labels without WordNet ids", change=edit_labels(
        lambda labels: {k: without_id(v) for k, v in labels.items()})),
    Case("labels without ids, and every id of a repeated one", change=together(
        edit_labels(lambda labels: {k: without_id(v) for k, v in labels.items()}),
        edit_inverse(lambda back: {**back, "crane": 134}))),
    Case("first lemmas", change=edit_labels(
        lambda labels: {k: without_id(v).partition(",")[0] for k, v in labels.items()})),
    Case("last lemmas", change=edit_labels(
        lambda labels: {k: without_id(v).rpartition(",")[2].strip() for k, v in labels.items()})),
    Case("underscores", change=edit_labels(
        lambda labels: {k: without_id(v).partition(",")[0].replace(" ", "_") for k, v in labels.items()})),
    Case("capitals", change=edit_labels(lambda labels: {k: without_id(v).upper() for k, v in labels.items()})),
    Case("lemmas the other way round", change=edit_labels(
        lambda labels: {k: ", ".join(reversed(without_id(v).split(", "))) for k, v in labels.items()})),
    *(Case(f"ImageNet's labels: {name}", change=edit_labels(edit)) for name, edit in SPELLINGS.items()),
    Case("no names for the classes", change=edit_labels(
        lambda labels: {k: f"LABEL_{k}" for k in labels})),
    Case("label2id in the order of its texts", change=edit_inverse(lambda back: dict(sorted(back.items())))),
    Case("label2id of texts", change=edit_inverse(lambda back: {k: str(v) for k, v in back.items()})),
    Case("id2label in another order", change=edit_labels(lambda labels: dict(sorted(labels.items())))),
    Case("no label2id", config={"label2id": DELETED}),
]  # fmt: skip

LABELS = {"label_names": ["a", "b", "c"]}
NUMBERED = {"0": "a", "1": "b", "2": "c"}

TIMM_FAULTS = [
    # another network
    Case("another architecture", "config.json architecture", "152x4", misleads=True,
         config={"architecture": "resnetv2_152x4_bit"}),
    Case("not of BiT", "config.json architecture", misleads=True, config={"architecture": "resnetv2_50"}),
    Case("no architecture", "config.json architecture", "absent", misleads=True, config={"architecture": DELETED}),
    Case("architecture a number", "config.json architecture", misleads=True, config={"architecture": 50}),
    *(Case(f"model_args {name}", f"config.json model_args.{name}", misleads=True, config={"model_args": {name: value}})
      for name, value in (
          ("global_pool", "max"), ("output_stride", 8), ("avg_down", True), ("act_layer", "gelu"), ("stem_chs", 32),
          ("preact", False), ("in_chans", 1), ("num_classes", 10), ("channels", [64, 128]), ("basic", True),
          ("bottle_ratio", 0.5), ("features_only", True), ("pruned", True), ("stem_type", "same"), ("layers", [1]),
          ("width_factor", 2), ("conv_layer", "x"), ("pretrained", False), ("block_size", 3), ("drop_rate", "much"))),
    Case("model_args null", "config.json model_args", misleads=True, config={"model_args": None}),
    Case("ten classes", "config.json num_classes", misleads=True, config={"num_classes": 10}),
    Case("classes by default", "config.json pretrained_cfg.num_classes", "1000", misleads=True,
         config={"num_classes": DELETED, "pretrained_cfg/num_classes": DELETED}),
    Case("classes null", "config.json num_classes", misleads=True, config={"num_classes": None}),
    # cannot be loaded
    Case("one channel", "config.json pretrained_cfg.input_size", "[1",
         config={"pretrained_cfg/input_size": [1, 224, 224]}),
    Case("a label offset", "config.json pretrained_cfg.label_offset", "1", config={"pretrained_cfg/label_offset": 1}),
    Case("of one size", "config.json pretrained_cfg.fixed_input_size",
         config={"pretrained_cfg/fixed_input_size": True}),
    Case("a field that timm has not", "config.json pretrained_cfg.mine", config={"pretrained_cfg/mine": 1}),
    Case("no pretrained_cfg but our fields", "config.json exact", config={"pretrained_cfg": DELETED}),
    Case("pretrained_cfg a list", "config.json pretrained_cfg", misleads=True, config={"pretrained_cfg": []}),
    Case("pretrained_cfg null", "config.json pretrained_cfg", misleads=True, config={"pretrained_cfg": None}),
    Case("shards", "the file that timm reads", "2 shards", change=safe_shards),
    # elsewhere
    Case("another file on the Hub", "config.json pretrained_cfg.hf_hub_filename", misleads=True,
         config={"pretrained_cfg/hf_hub_filename": "other.bin"}),
    Case("of transformers", "config.json model_type", config={"model_type": "bit"}),
    Case("quantised", "config.json quantization_config", misleads=True,
         config={"quantization_config": {"quant_method": "gptq"}}),
    Case("code", "config.json auto_map", misleads=True, config={"auto_map": {"AutoConfig": "c.C"}}),
    Case("half", "config.json torch_dtype", "float16", config={"torch_dtype": "float16"}),
    Case("other values in pytorch_model.bin", "pytorch_model.bin", "other values", change=bin_beside(scale=2.0)),
    Case("other weights of open_clip", "open_clip_model.safetensors", "other values",
         change=safe_beside("open_clip_model.safetensors", 2.0)),
    Case("weights in .pth", "model.pth", "not compared", change=write("model.pth", b"?")),
    # another use than classification
    *(Case(f"{part} {value}", f"config.json pretrained_cfg.{part}", config={f"pretrained_cfg/{part}": value})
      for part, value in (
          ("classifier", "stem.conv"), ("classifier", ""), ("classifier", 5), ("classifier", {"head.fc": 1}),
          ("classifier", ["head.fc", "norm"]), ("first_conv", "head.fc"), ("first_conv", ["stem.conv", "head.fc"]),
          ("first_conv", "stages.0.blocks.0.conv1"))),
    Case("dropped more than all", "config.json model_args.drop_rate", "2", misleads=True,
         config={"model_args": {"drop_rate": 2}}),
    Case("pooling null", "config.json do_pooling", "null", config={"do_pooling": None}),
    Case("a range in words", "config.json initializer_range", config={"initializer_range": "x"}),
    Case("another processor", "config.json image_processor_type", "ViT",
         config={"image_processor_type": "ViTImageProcessor"}),
    Case("too few labels for transformers", "config.json id2label", config={"id2label": {"0": "a", "1": "b"}}),
    # images and labels
    Case("no size", "config.json pretrained_cfg.input_size", config={"pretrained_cfg/input_size": []}),
    Case("ImageNet's mean by default", "config.json pretrained_cfg.mean", "0.485",
         config={"pretrained_cfg/mean": DELETED}),
    Case("another std", "config.json pretrained_cfg.std", config={"pretrained_cfg/std": [0.2, 0.2, 0.2]}),
    Case("images too small", "config.json pretrained_cfg.input_size", config={"pretrained_cfg/input_size": [3, 8, 8]}),
    Case("images too large", "config.json pretrained_cfg.input_size",
         config={"pretrained_cfg/input_size": [3, 10**13, 10**13]}),
    Case("a crop of no kind", "config.json pretrained_cfg.crop_mode", config={"pretrained_cfg/crop_mode": "random"}),
    Case("a tested size of one channel", "config.json pretrained_cfg.test_input_size",
         config={"pretrained_cfg/test_input_size": [1, 9, 9]}),
    Case("too few labels", "config.json label_names", config={"label_names": ["a", "b"]}),
    Case("too few labels in pretrained_cfg", "config.json pretrained_cfg.label_names",
         config={"pretrained_cfg/label_names": ["a"]}),
    Case("labels that are numbers", "config.json label_names", config={"label_names": [1, 2, 3]}),
]  # fmt: skip

TIMM_HONEST = [
    Case("as it is written"),
    *(Case(f"architecture {name}", config={"architecture": name}) for name in (
        "resnetv2_50x1_bit.goog_in21k_ft_in1k", "resnetv2_50x1_bit.goog_in21k", "resnetv2_50x1_bitm",
        "resnetv2_50x1_bitm_in21k", "resnetv2_50x1_bit_distilled", "resnetv2_50x1_bit.mine")),
    Case("num_classes in pretrained_cfg alone", config={"num_classes": DELETED}),
    Case("another num_classes in pretrained_cfg", config={"pretrained_cfg/num_classes": 1000}),
    Case("what timm repeats of the network", config={"model_args": {
        "in_chans": 3, "num_classes": 3, "global_pool": "avg"}}),
    Case("defaults as arguments", config={"model_args": {
        "output_stride": 32, "avg_down": False, "act_layer": "relu", "drop_rate": 0.1, "zero_init_last": True}}),
    Case("no arguments", config={"model_args": {}}),
    Case("labels", config=LABELS),
    Case("labels by number", config={"label_names": NUMBERED}),
    Case("labels in pretrained_cfg", config={"pretrained_cfg/label_names": ["a", "b", "c"]}),
    Case("layers in lists", config={
        "pretrained_cfg/classifier": ["head.fc"], "pretrained_cfg/first_conv": ["stem.conv"]}),
    Case("no layers named", config={"pretrained_cfg/classifier": None, "pretrained_cfg/first_conv": DELETED}),
    Case("labels for transformers", config={"id2label": NUMBERED}),
    Case("descriptions", config={**LABELS, "label_descriptions": {"a": "A", "b": "B", "c": "C"}}),
    Case("flat", config=dict.fromkeys(
        ("pretrained_cfg", "exact", "pool_padding", "weight_standardization_eps", "global_pool"), DELETED) | {
        "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 224, 224], "crop_pct": 1.0, "labels": ["a", "b", "c"],
        "custom_load": False, "classifier": "head.fc", "first_conv": "stem.conv", "pool_size": [7, 7]}),
    Case("where the weights were", config={
        "pretrained_cfg/url": "https://x/y.npz", "pretrained_cfg/hf_hub_id": "timm/x", "pretrained_cfg/source": "url",
        "pretrained_cfg/custom_load": True, "pretrained_cfg/label_offset": 0, "pretrained_cfg/file": None}),
    Case("words", config={f"pretrained_cfg/{key}": "x" for key in (
        "description", "origin_url", "paper_name", "paper_ids", "license", "tag")}),
    Case("a tested size", config={
        "pretrained_cfg/test_input_size": [3, 448, 448], "pretrained_cfg/test_crop_pct": 1.0}),
    Case("through transformers", config={
        "model_type": "timm_wrapper", "architectures": ["TimmWrapperForImageClassification"], "do_pooling": True,
        "initializer_range": 0.02, "transformers_version": "5.0.0", "dtype": "float32", "problem_type": None}),
    Case("what save_for_hf writes", change=bin_beside()),
    Case("pytorch_model.bin alone", change=bin_alone),
    Case("without our fields", config={
        "exact": DELETED, "pool_padding": DELETED, "weight_standardization_eps": DELETED}),
    Case("no names for the classes", config={"label_names": ["LABEL_0", "LABEL_1", "LABEL_2"]}),
    Case("another number of features", config={"num_features": 7, "global_pool": 7}),
]  # fmt: skip

UNREADABLE = [
    *(Case(f"{name} in {encoding}", name, change=encoded(name, encoding))
      for name in ("config.json", "preprocessor_config.json")
      for encoding in ("utf-8-sig", "utf-16", "utf-32", "utf-16-le")),
    *(Case(f"bytes of half a character in {name}", name, change=ending(name, b',"mine":"\xed\xa0\x80"'))
      for name in ("config.json", "preprocessor_config.json")),
    Case("processor_config.json in utf-8-sig", "processor_config.json",
         change=write("processor_config.json", b"\xef\xbb\xbf{}")),
    Case("index in utf-8-sig", "model.safetensors.index.json", change=together(
        safe_shards, encoded("model.safetensors.index.json", "utf-8-sig"))),
    *(Case(f"header in {encoding}", "model.safetensors", change=header(lambda old, e=encoding: old.decode().encode(e)))
      for encoding in ("utf-8-sig", "utf-16")),
    *(Case(f"metadata {name}", "model.safetensors", "texts", change=metadata(value)) for name, value in (
        ("a number", {"format": 1}), ("a list", []), ("nested", {"format": "pt", "a": {"b": "c"}}), ("a text", "pt"),
        ("null within", {"format": None}), ("of half a character", {"format": "pt", "a": "\ud800"}),
        ("not a number", {"a": float("nan")}))),
    Case("a pipe", "model.safetensors", "pipe", change=replaced("model.safetensors", os.mkfifo)),
    Case("a device", "config.json", "device",
         change=replaced("config.json", lambda path: path.symlink_to("/dev/zero"))),
]  # fmt: skip
"""What no library can read: the audit ends with the file's name."""
