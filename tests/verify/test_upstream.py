"""docs/upstream.md: what the smallest change of transformers does to the verdict on a port that declares no epsilon."""

import json

import numpy as np
import pytest

from converters import audit
from tests.checkpoints import make_checkpoint
from tests.verify.folders import write_folder


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "verdict"), [(None, "failed"), (1e-10, "passed"), (1e-9, "failed")])
def test_with_googles_epsilon_stock_transformers_passes_as_it_is(tmp_path, monkeypatch, epsilon, verdict):
    from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

    tensors = make_checkpoint((1, 1), 32, 4, mids=(32, 64), kernel_std=1e-3)
    np.savez(tmp_path / "tiny.npz", **tensors)
    port = write_folder(tmp_path / "port", tensors)
    config = json.loads((port / "config.json").read_text())
    del config["weight_standardization_eps"]
    (port / "config.json").write_text(json.dumps(config))
    if epsilon is not None:
        made = WeightStandardizedConv2d.__init__

        def changed(self, *words, **options):
            made(self, *words, **(options | {"eps": epsilon}))

        monkeypatch.setattr(WeightStandardizedConv2d, "__init__", changed)
    report = audit(port, against=tmp_path / "tiny.npz", runners="transformers")
    assert (report.readers[0].name, report.verdict) == ("transformers", verdict)
    assert [fault.kind for fault in report.faults] == ([] if verdict == "passed" else ["standardisation epsilon"])


def test_the_number_is_where_the_page_says():
    from importlib.util import find_spec
    from pathlib import Path

    if find_spec("timm") is None or find_spec("transformers") is None:
        pytest.skip("timm and transformers are not installed")
    timm, transformers = (Path(find_spec(name).origin).parent for name in ("timm", "transformers"))
    assert (timm / "models/resnetv2.py").read_text().count("conv_layer=partial(StdConv2d, eps=1e-8)") == 1
    assert (transformers / "models/bit/modeling_bit.py").read_text().count("eps=1e-8") == 8
