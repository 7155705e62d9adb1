"""docs/upstream.md: what the smallest change of transformers does to the verdict on a port that declares no epsilon."""

import json
from pathlib import Path

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
    import timm
    import transformers

    of_timm, of_transformers = (Path(library.__file__).parent for library in (timm, transformers))
    assert "conv_layer=partial(StdConv2d, eps=1e-8)" in (of_timm / "models/resnetv2.py").read_text()
    assert "eps=1e-8" in (of_transformers / "models/bit/modeling_bit.py").read_text()
