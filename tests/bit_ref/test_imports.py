"""What is imported, and when; each in a fresh process."""

import subprocess
import sys
from pathlib import Path

import pytest

import bit_ref

ROOT = Path(__file__).parents[2]
WATCHED = ("PIL", "huggingface_hub", "numpy", "tensorflow", "torch", "torchvision", "transformers", "triton")


def imported_by(program: str) -> set[str]:
    program += f"\nimport sys; print(*[name for name in {WATCHED} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import bit_ref", set()),
        ("from bit_ref import BitConfig; BitConfig(dtype='float32', num_labels=3).to_json_string()", set()),
        ("from bit_ref import BitImageProcessor; BitImageProcessor()", {"numpy", "PIL"}),
        (
            "from bit_ref import BitModel, BitConfig; import torch\nwith torch.device('meta'): BitModel(BitConfig())",
            {"numpy", "torch"},
        ),
    ],
)
def test_nothing_is_imported_before_it_is_needed(program, expected):
    assert imported_by(program) == expected


def test_every_name_is_there():
    assert set(bit_ref.__all__) <= set(dir(bit_ref))
    classes = [name for name in bit_ref.__all__ if name != "__version__"]
    assert all(getattr(bit_ref, name).__name__ == name for name in classes)
    with pytest.raises(AttributeError, match="BitNothing"):
        bit_ref.BitNothing  # noqa: B018
