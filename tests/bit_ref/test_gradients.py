"""Training: gradients through the standardisation against TensorFlow's, and what training must not touch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bit_ref import BitForImageClassification
from tests.bit_ref.support import model_of
from tests.checkpoints import make_checkpoint, make_input
from tests.verify.folders import transformers_name, transformers_value, write_folder

ROOT = Path(__file__).parents[2]


DEVIATIONS = [1e-2, 1e-5]
"""Of the kernels. At 1e-5 the variance is Google's epsilon, whose part in the gradient then shows."""
IMAGES, LABELS = make_input(2, 40, 33), np.array([3, 1])


def network(deviation):
    return make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=deviation, mids=(64, 32))


@pytest.fixture(scope="module")
def gradients_of_tensorflow(tmp_path_factory):
    """Deviation of the kernels → file of loss, logits and gradients."""
    folder = tmp_path_factory.mktemp("tensorflow")
    files = []
    for deviation in DEVIATIONS:
        files += [folder / f"in {deviation}.npz", folder / f"out {deviation}.npz"]
        np.savez(files[-2], images=IMAGES, labels=LABELS, **network(deviation))
    program = [sys.executable, "-m", "tests.bit_ref.tensorflow_bit", *files]
    subprocess.run(program, cwd=ROOT, check=True, capture_output=True)
    return dict(zip(DEVIATIONS, files[1::2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_gradients_are_tensorflows(deviation, gradients_of_tensorflow):
    with np.load(gradients_of_tensorflow[deviation]) as file:
        expected = dict(file)

    tensors, images, labels = network(deviation), IMAGES, LABELS
    model = model_of(tensors, weight_standardization_eps=1e-10).double().train()
    output = model(torch.from_numpy(images).double(), labels=torch.from_numpy(labels))
    output.loss.backward()

    np.testing.assert_allclose(output.logits.detach().numpy(), expected.pop("logits"), rtol=1e-9, atol=1e-9)
    assert output.loss.item() == pytest.approx(float(expected.pop("loss")), rel=1e-9)
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert gradients.keys() == {transformers_name(name, headless=False) for name in expected}
    for name, gradient in expected.items():
        wanted = transformers_value(name, gradient, 1)
        largest = np.abs(wanted).max()
        assert largest > 0, name
        got = gradients[transformers_name(name, headless=False)]
        np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-9 * largest, err_msg=name)


def test_training_a_loaded_model_changes_every_parameter_and_not_its_file(tmp_path):
    """Values are mapped from the file: a step must work on copies of its pages."""
    folder = write_folder(tmp_path, make_checkpoint((1, 1), 32, 5))
    before = (folder / "model.safetensors").read_bytes()
    model = BitForImageClassification.from_pretrained(folder).train()
    old = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.from_numpy(make_input(4, 32, 32)), labels=torch.tensor([0, 1, 2, 3])).loss.backward()
        optimizer.step()
    unmoved = [name for name, value in model.state_dict().items() if torch.equal(value, old[name])]
    assert unmoved == []
    assert (folder / "model.safetensors").read_bytes() == before
