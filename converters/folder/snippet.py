"""The lines of Python that load and use a converted folder: the summary and the model card show them.

Plan → ``usage()`` → the card's lines, of the folder that they lie in → ``published()`` → those of a repository
"""

from __future__ import annotations

import json
from importlib.util import find_spec

from converters.folder.config import network_config
from converters.folder.plan import Plan

FOLDER = "FOLDER"
"""Stands in a card for the folder that it lies in."""
HERE = f"where `{FOLDER}` is the folder that this card lies in"
_OPEN = {
    "transformers": 'inputs = processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")',
    "timm": 'image = transform(Image.open("image.jpg").convert("RGB")).unsqueeze(0)',
}
_CLASSIFY = {
    "transformers": """\
with torch.inference_mode():
    logits = model(**inputs).logits
print(model.config.id2label[logits.argmax(-1).item()])
""",
    "timm": """\
with torch.inference_mode():
    index = model(image).argmax(-1).item()
print(model.pretrained_cfg.get("label_names", range(model.num_classes))[index])
""",
}
_EMBED = {
    "transformers": """\
with torch.inference_mode():
    found = {network}(inputs["pixel_values"])
print(found.last_hidden_state.shape)  # the feature map: (1, {features}, height / {stride}, width / {stride})
print(found.pooler_output.flatten(1).shape)  # the embedding: (1, {features})
""",
    "timm": """\
with torch.inference_mode():
    found = model.forward_features(image)
    embedding = model.forward_head(found, pre_logits=True)
print(found.shape)  # the feature map: (1, {features}, height / {stride}, width / {stride})
print(embedding.shape)  # the embedding: (1, {features})
""",
}


def usage(plan: Plan) -> str:
    """Returns the lines of a card: they load the folder, classify an image, and give its feature map and embedding.

    Of a layout that no library loads by itself, they read it.
    """
    load = loading(plan, FOLDER)
    if plan.layout not in _OPEN:
        return "\n".join(load)
    has_head = plan.architecture.classes is not None
    shape = {"features": plan.architecture.features, "stride": 2 ** (len(plan.architecture.units) + 1)}
    embed = _EMBED[plan.layout].format(network="model.bit" if has_head else "model", **shape)
    first = "\n".join(["import torch", "from PIL import Image", load[0], "", *load[1:], _OPEN[plan.layout]])
    return "\n\n".join(filter(None, (first, _CLASSIFY[plan.layout].rstrip() if has_head else "", embed.rstrip())))


def published(card: str, repo_id: str) -> str:
    """Returns a card whose lines load the repository that it lies in."""
    for local, hub in (
        (HERE, f"where `{repo_id}` is this repository"),
        (f'"local-dir:{FOLDER}"', f'"hf-hub:{repo_id}"'),
        (
            f'folder = "{FOLDER}"',
            f'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{repo_id}")',
        ),
        (f'"{FOLDER}"', f'"{repo_id}"'),
    ):
        card = card.replace(local, hub)
    return card


def loading(plan: Plan, folder: str) -> list[str]:
    """Returns the lines for the layout's own library; ``folder`` is a path or a repository."""
    quoted = _quoted(folder)
    if plan.layout == "transformers":
        kind = "AutoModel" if plan.architecture.classes is None else "AutoModelForImageClassification"
        return [
            f"from transformers import AutoImageProcessor, {kind}",
            f"processor = AutoImageProcessor.from_pretrained({quoted})",
            f"model = {kind}.from_pretrained({quoted})",
        ]
    if plan.layout == "timm":
        return [
            "import timm",
            f"model = timm.create_model({_quoted(f'local-dir:{folder}')}, pretrained=True).eval()",
            "transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))",
        ]
    if plan.layout == "original":
        units, factor = list(plan.architecture.units), plan.architecture.root_width / 64
        network = f"ResNetV2({units}, {factor:g}, head_size={plan.architecture.classes})"
        return [
            "from safetensors.torch import load_file",
            "from bit_pytorch.models import ResNetV2  # github.com/google-research/big_transfer",
            f"folder = {quoted}",
            f'model = {network}; model.load_state_dict(load_file(f"{{folder}}/model.safetensors"))',
        ]
    return ["import numpy", f"folder = {quoted}", f'tensors = numpy.load(f"{{folder}}/{plan.name}.npz")']


def loading_here(plan: Plan, folder: str) -> list[str]:
    """Returns lines that run where bit-convert runs: with bit_ref for the layout of transformers, which it loads.

    The layout of timm needs timm; where that is not installed, the first line says how to get it.
    """
    if plan.layout == "transformers":
        model = network_config(plan)["architectures"][0]
        return [
            f"from bit_ref import {model}, BitImageProcessor",
            f"processor = BitImageProcessor.from_pretrained({_quoted(folder)})",
            f"model = {model}.from_pretrained({_quoted(folder)})",
        ]
    missing = plan.layout == "timm" and find_spec("timm") is None
    return [*(["# pip install 'bit-convert[timm]'"] if missing else []), *loading(plan, folder)]


def stock_remedy(plan: Plan, folder: str) -> str:
    """Returns the call that makes a loaded model of the layout's stock library exact; empty where there is none."""
    if plan.storage.exact != "bits" or plan.pool_padding != "zeros" or plan.layout not in ("transformers", "timm"):
        return ""
    given = f", {_quoted(folder)}" if plan.layout == "timm" else ""
    return f"bit_ref.use_config_epsilon(model{given})"


def _quoted(text: str) -> str:
    """A text as Python spells it in double quotes."""
    return json.dumps(text, ensure_ascii=False)
