"""The lines of Python that load a converted folder: the summary and the model card show them."""

from __future__ import annotations

from converters.folder.plan import Plan


def loading(plan: Plan, folder: str) -> list[str]:
    """Three lines for the layout's own library; ``folder`` is a path or a repository."""
    head = plan.architecture.classes is not None
    if plan.layout == "transformers":
        kind = "AutoModelForImageClassification" if head else "AutoModel"
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
