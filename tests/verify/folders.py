"""Folders in the transformers layout, written without the code under test: names and axes are spelt here by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.verify.support import MemorySource
from verify import Correspondence

CONVOLUTIONS = {"a/": "conv1", "a/proj/": "downsample.conv", "b/": "conv2", "c/": "conv3"}
NORMS = {"a/": "norm1", "b/": "norm2", "c/": "norm3"}


def transformers_name(name: str, headless: bool) -> str:
    """resnet/block1/unit01/a/group_norm/gamma → bit.encoder.stages.0.layers.0.norm1.weight."""
    if name.startswith("resnet/head/"):
        return "classifier.1.weight" if name.endswith("kernel") else "classifier.1.bias"
    kind = "bias" if name.endswith("beta") else "weight"
    prefix = "" if headless else "bit."
    if "root_block" in name:
        return prefix + "embedder.convolution.weight"
    if name.startswith("resnet/group_norm"):
        return f"{prefix}norm.{kind}"
    _, block, unit, part = name.split("/", 3)
    part = part[: part.rindex("/")]  # a/group_norm, a/proj/standardized_conv2d
    owner, _, what = part.rpartition("/")
    module = (NORMS if what == "group_norm" else CONVOLUTIONS)[owner + "/"]
    return f"{prefix}encoder.stages.{int(block[5:]) - 1}.layers.{int(unit[4:]) - 1}.{module}.{kind}"


def transformers_value(name: str, tensor: np.ndarray, factor: int) -> np.ndarray:
    if name == "resnet/head/conv2d/kernel":
        return np.ascontiguousarray(tensor[0, 0].T)
    if tensor.ndim == 4:
        return np.ascontiguousarray(tensor.transpose(3, 2, 0, 1)) * np.float32(factor)
    return tensor


def write_folder(folder: Path, tensors: dict[str, np.ndarray], factor: int = 1, **config) -> Path:
    """A folder as ``save_pretrained`` of transformers leaves it; kernels are stored ``factor`` times as large."""
    headless = "resnet/head/conv2d/kernel" not in tensors
    blocks = sorted({name.split("/")[1] for name in tensors if "/unit" in name})
    units = [len([n for n in tensors if f"/{block}/" in n and "/b/standard" in n]) for block in blocks]
    widths = [tensors[f"resnet/{block}/unit01/c/standardized_conv2d/kernel"].shape[-1] for block in blocks]
    content = {
        "model_type": "bit",
        "architectures": ["BitModel" if headless else "BitForImageClassification"],
        "embedding_size": tensors["resnet/root_block/standardized_conv2d/kernel"].shape[-1],
        "hidden_sizes": widths,
        "depths": units,
        "layer_type": "preactivation",
        "weight_standardization_eps": 1e-10 if factor == 1 else 1e-8,
        **config,
    }
    if not headless:
        classes = tensors["resnet/head/conv2d/kernel"].shape[-1]
        content["id2label"] = {str(i): f"LABEL_{i}" for i in range(classes)}
        content["label2id"] = {f"LABEL_{i}": i for i in range(classes)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    stored = {transformers_name(n, headless): transformers_value(n, t, factor) for n, t in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class FolderTarget:
    """A folder of ``write_folder`` as the target of an audit."""

    def __init__(self, folder: Path, source: MemorySource, readers, factor: int = 1) -> None:
        self.path = str(folder)
        self.exact = "bits" if factor == 1 else "logits"
        self.layout, self.dtype = "transformers", "float32"
        self.stored = load_file(folder / "model.safetensors")
        self.parameters = {name: tensor.shape for name, tensor in self.stored.items()}
        self.files = {"model.safetensors": "cd" * 32}
        self.readers = readers
        self.expectations = ()
        self.inspected = ()
        self.misleading = ""
        headless = "resnet/head/conv2d/kernel" not in source.tensors
        self.correspondences = [
            Correspondence(
                name,
                transformers_name(name, headless),
                lambda n=name, t=tensor: transformers_value(n, t, factor),
                lambda n=name: self.stored[transformers_name(n, headless)],
            )
            for name, tensor in source.tensors.items()
        ]
