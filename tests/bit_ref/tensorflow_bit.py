"""The network once more, in TensorFlow's operations on Google's tensors, float64; run as a program.

    python -m tests.bit_ref.tensorflow_bit IN.npz OUT.npz [IN.npz OUT.npz …]

IN holds the tensors, ``images`` (N, 3, H, W) and ``labels`` (N,); OUT gets ``loss``, ``logits`` and each tensor's
gradient under its name. A process of its own, since the compiler inside PyTorch and TensorFlow's crash each other.
"""

import sys

import numpy as np
import tensorflow as tf


def bit(weights, images, units):
    """Logits; images are NHWC."""

    def convolve(x, name, stride=1):
        kernel = weights[f"{name}/standardized_conv2d/kernel"]
        mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
        around = kernel.shape[0] // 2
        x = tf.pad(x, [[0, 0], [around, around], [around, around], [0, 0]])
        return tf.nn.conv2d(x, (kernel - mean) / tf.sqrt(variance + 1e-10), stride, "VALID")

    def normalize(x, name):
        groups = tf.reshape(x, [*x.shape[:3], 32, x.shape[3] // 32])
        mean, variance = tf.nn.moments(groups, [1, 2, 4], keepdims=True)
        x = tf.reshape((groups - mean) / tf.sqrt(variance + 1e-5), x.shape)
        return tf.nn.relu(x * weights[f"{name}/group_norm/gamma"] + weights[f"{name}/group_norm/beta"])

    x = convolve(images, "resnet/root_block", 2)
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    for block, count in enumerate(units, start=1):
        for unit in range(1, count + 1):
            at = f"resnet/block{block}/unit{unit:02d}"
            stride = 2 if block > 1 and unit == 1 else 1
            a = normalize(x, f"{at}/a")
            shortcut = convolve(a, f"{at}/a/proj", stride) if unit == 1 else x
            b = normalize(convolve(a, f"{at}/a"), f"{at}/b")
            c = normalize(convolve(b, f"{at}/b", stride), f"{at}/c")
            x = shortcut + convolve(c, f"{at}/c")
    x = tf.reduce_mean(normalize(x, "resnet"), [1, 2])
    return x @ weights["resnet/head/conv2d/kernel"][0, 0] + weights["resnet/head/conv2d/bias"]


def main(source, target):
    with np.load(source) as file:
        given = dict(file)
    images = tf.constant(given.pop("images").astype(np.float64).transpose(0, 2, 3, 1))
    labels = given.pop("labels")
    weights = {name: tf.Variable(value.astype(np.float64)) for name, value in given.items()}
    blocks = sorted({name.split("/")[1] for name in weights if "/unit" in name})
    units = [sum(f"/{b}/" in name and "/b/standardized" in name for name in weights) for b in blocks]
    with tf.GradientTape() as tape:
        logits = bit(weights, images, units)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = {name: gradient.numpy() for name, gradient in tape.gradient(loss, weights).items()}
    np.savez(target, loss=loss.numpy(), logits=logits.numpy(), **gradients)


if __name__ == "__main__":
    for source, target in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        main(source, target)
