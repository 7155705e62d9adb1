"""The lines of Python that load a converted folder: the summary and the model card show them."""

from __future__ import annotations

from importlib.util import find_spec

from converters.folder.config import model_config
from converters.folder.plan import Plan


def loading(plan: Plan, folder: str) -> list[str]:
    """Returns the lines for the layout's own library; ``folder`` is a path or a repository."""
    if plan.layout == "transformers":
        kind = "AutoModel" if plan.architecture.classes is None else "AutoModelForImageClassification"
        return [
            f"from transformers import AutoImageProcessor, {kind}",
            f'processor = AutoImageProcessor.from_pretrained("{folder}")',
            f'model = {kind}.from_pretrained("{folder}")',
        ]
    if plan.layout == "timm":
        return [
            "import timm",
            f'model = timm.create_model("local-dir:{folder}", pretrained=True).eval()',
            "transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))",
        ]
    if plan.layout == "original":
        units, factor = list(plan.architecture.units), plan.architecture.root_width / 64
        network = f"ResNetV2({units}, {factor:g}, head_size={plan.architecture.classes})"
        return [
            "from safetensors.torch import load_file",
            "from bit_pytorch.models import ResNetV2  # github.com/google-research/big_transfer",
            f'model = {network}; model.load_state_dict(load_file("{folder}/model.safetensors"))',
        ]
    return ["import numpy", f'tensors = numpy.load("{folder}/{plan.name}.npz")']


def loading_here(plan: Plan, folder: str) -> list[str]:
    """Returns lines that run where bit-convert runs: with bit_ref for the layout of transformers, which it loads.

    The layout of timm needs timm; where that is not installed, the first line says how to get it.
    """
    if plan.layout == "transformers":
        model = model_config(plan)["architectures"][0]
        return [
            f"from bit_ref import {model}, BitImageProcessor",
            f'processor = BitImageProcessor.from_pretrained("{folder}")',
            f'model = {model}.from_pretrained("{folder}")',
        ]
    missing = plan.layout == "timm" and find_spec("timm") is None
    return [*(["# pip install 'bit-convert[timm]'"] if missing else []), *loading(plan, folder)]


def stock_remedy(plan: Plan, folder: str) -> str:
    """Returns the call that makes a loaded model of the layout's stock library exact; empty where there is none."""
    if plan.storage.exact != "bits" or plan.pool_padding != "zeros" or plan.layout not in ("transformers", "timm"):
        return ""
    given = f', "{folder}"' if plan.layout == "timm" else ""
    return f"bit_ref.use_config_epsilon(model{given})"
