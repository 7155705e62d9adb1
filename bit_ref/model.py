"""BiT, the whole network, in the order of the paper (Kolesnikov et al., Big Transfer, ECCV 2020) and of Google's code.

ResNet-v2 of bottleneck units, in which BatchNorm gives way to GroupNorm, and every kernel is standardised:

    image → root: 7×7 convolution / 2, 3×3 max-pool / 2
          → stages: units of norm1 conv1 norm2 conv2 norm3 conv3, added to their input
          → norm → mean over the pixels → head

The arithmetic is that of google-research/big_transfer@140de6e, ``bit_pytorch/models.py``; names of modules, and so of
stored tensors, are those of transformers. Images and feature maps are (N, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as hooks

from bit_ref.config import BitConfig
from bit_ref.fused_norm import group_norm_relu
from bit_ref.kernel_cache import CachedKernel, is_tracing, is_transforming
from bit_ref.loss import classification_loss
from bit_ref.outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from bit_ref.pretrained import BitPreTrainedModel
from bit_ref.recomputation import Units

GROUP_NORM_EPSILON = 1e-5
"""PyTorch's default, which Google's code keeps."""
BOTTLENECK = 4
"""A unit's inner width is a fourth of its output's."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": partial(functional.relu, inplace=True),
    **{
        name: getattr(functional, name)
        for name in ("gelu", "silu", "tanh", "sigmoid", "leaky_relu", "relu6", "mish", "hardswish")
    },
}
"""BiT's is ReLU; ``config.hidden_act`` may name any of these. Only what is GroupNorm's own output goes in."""


class StandardizedConv2d(CachedKernel, nn.Conv2d):
    """A convolution without bias whose kernel has mean 0 and variance 1 for each output channel (``StdConv2d``)."""

    pads_like_tensorflow = False
    epsilon: float | None = None

    @classmethod
    def of(
        cls, config: BitConfig, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> StandardizedConv2d:
        """The layer of a network; made by the constructor, with the arguments of ``nn.Conv2d``, it has no ``epsilon``.

        That is how peft makes the two layers of a low-rank adapter. Their kernels are used as they are: the adapter
        starts at zero and grows with its training, while any standardised kernel, however small, has variance 1.
        """
        fixed = kernel_size // 2 if config.global_padding is None else 0
        layer = cls(in_channels, out_channels, kernel_size, stride, padding=fixed, bias=False)
        layer.pads_like_tensorflow = config.global_padding == "SAME"
        layer.epsilon = config.weight_standardization_eps
        return layer

    def reset_parameters(self) -> None:
        if self.weight.is_meta:  # there is nothing to fill, and asking for it imports a compiler, for a second
            return
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def standardized_weight(self) -> Tensor:
        """(w - mean) / sqrt(var + ε) over H, W and I, with the biased variance; (O, I, H, W).

        In float32 at least: half precision can hold neither ε nor the variance of a small kernel. PyTorch has this
        arithmetic as a batch norm, of one sample whose channels are O; its sums are in double precision on the CPU.
        """
        assert self.epsilon is not None
        weight = self.weight.flatten(1).to(torch.promote_types(self.weight.dtype, torch.float32))
        standardized = functional.batch_norm(weight.unsqueeze(0), None, None, training=True, eps=self.epsilon)
        return standardized.view_as(self.weight).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.epsilon is None:
            return super().forward(x)
        if self.pads_like_tensorflow:
            x = pad_like_tensorflow(x, self.kernel_size[0], self.stride[0])
        return functional.conv2d(x, self.kernel(x), None, self.stride, self.padding)


class GroupNormActivation(nn.GroupNorm):
    """GroupNorm with scale and offset, then the activation."""

    def __init__(self, config: BitConfig, channels: int) -> None:
        super().__init__(config.num_groups, channels, eps=GROUP_NORM_EPSILON)
        if config.hidden_act not in ACTIVATIONS:
            raise KeyError(f"hidden_act={config.hidden_act} is not one of {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[config.hidden_act]
        self.is_relu = config.hidden_act == "relu"

    def forward(self, x: Tensor) -> Tensor:
        fused = group_norm_relu(self, x) if self.is_relu else None
        # PyTorch's GroupNorm for channels_last loses digits on the CPU where the mean is large
        return self.activation(super().forward(_contiguous(x))) if fused is None else fused


class BitEmbeddings(nn.Module):
    """The root: convolution, padding by one pixel, max-pool. (N, channels, H, W) → (N, C, ~H/4, ~W/4)."""

    def __init__(self, config: BitConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.convolution = StandardizedConv2d.of(config, config.num_channels, config.embedding_size, 7, stride=2)
        self.pad = nn.ConstantPad2d(0 if config.global_padding == "SAME" else 1, float(_pool_padding(config)))
        self.pooler = MaxPool(_pool_padding(config) if config.embedding_dynamic_padding else None)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.ndim < 2 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values of shape {tuple(pixel_values.shape)} do not have the {self.num_channels} channels of "
                "the config in their channel dimension, the second one"
            )
        # The same values; with three channels, and for the maxima, PyTorch is twice as fast in channels_last.
        x = self.convolution(_channels_last(pixel_values))
        x = self.pad(x)
        pooled: Tensor = self.pooler(x)
        return pooled


class BitUnit(nn.Module):
    """A pre-activation bottleneck unit: 1×1, 3×3 (with the stride), 1×1, added to the shortcut (``PreActBottleneck``).

    The first unit of a stage projects its shortcut, from the activation, not from the input.
    """

    def __init__(
        self, config: BitConfig, in_channels: int, out_channels: int, stride: int, projects: bool, drop_path: float
    ) -> None:
        super().__init__()
        inner = round_channels(out_channels / BOTTLENECK)
        self.downsample = Downsample(config, in_channels, out_channels, stride) if projects else None
        self.norm1 = GroupNormActivation(config, in_channels)
        self.conv1 = StandardizedConv2d.of(config, in_channels, inner, 1)
        self.norm2 = GroupNormActivation(config, inner)
        self.conv2 = StandardizedConv2d.of(config, inner, inner, 3, stride)
        self.norm3 = GroupNormActivation(config, inner)
        self.conv3 = StandardizedConv2d.of(config, inner, out_channels, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(residual)
        residual = self.conv1(residual)
        residual = self.conv2(self.norm2(residual))
        residual = self.drop_path(self.conv3(self.norm3(residual)))
        out: Tensor = residual.add_(shortcut) if self._owns_residual() else residual + shortcut
        return out

    def _owns_residual(self) -> bool:
        """Whether nothing else may hold the residual: no graph, no transform, and no hook that was given it."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_tracing() or is_transforming():
            return False
        watched = any(layer._forward_hooks or layer._forward_pre_hooks for layer in (self.conv3, self.drop_path))
        return not (watched or hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


class Downsample(nn.Module):
    """The shortcut's 1×1 projection (``proj``)."""

    def __init__(self, config: BitConfig, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = StandardizedConv2d.of(config, in_channels, out_channels, 1, stride)

    def forward(self, activated: Tensor) -> Tensor:
        projected: Tensor = self.conv(activated)
        return projected


class BitStage(nn.Module):
    """A block of units, of which only the first has a stride."""

    def __init__(
        self, config: BitConfig, in_channels: int, out_channels: int, stride: int, drop_paths: list[float]
    ) -> None:
        super().__init__()
        self.layers = Units(
            BitUnit(config, in_channels, out_channels, stride, projects=True, drop_path=drop_paths[0]),
            *(BitUnit(config, out_channels, out_channels, 1, projects=False, drop_path=p) for p in drop_paths[1:]),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class BitEncoder(nn.Module):
    """The stages: each but the first halves the resolution, until ``config.output_stride`` is reached."""

    def __init__(self, config: BitConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.channels = [config.embedding_size]
        units, reduction = 0, 4
        for depth, hidden_size in zip(config.depths, config.hidden_sizes, strict=True):
            stride = 1 if not self.stages or reduction >= config.output_stride else 2
            drop_paths = [
                config.drop_path_rate * unit / max(sum(config.depths) - 1, 1) for unit in range(units, units + depth)
            ]
            out_channels = round_channels(hidden_size * config.width_factor)
            self.stages.append(BitStage(config, self.channels[-1], out_channels, stride, drop_paths))
            self.channels.append(out_channels)
            units, reduction = units + depth, reduction * stride

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the input and the output of each stage."""
        hidden_states = [x]
        for stage in self.stages:
            hidden_states.append(stage(hidden_states[-1]))
        return tuple(hidden_states)


class BitModel(BitPreTrainedModel):
    """BiT without its head."""

    def __init__(self, config: BitConfig) -> None:
        super().__init__(config)
        if config.layer_type != "preactivation":
            raise ValueError(
                f"layer_type={config.layer_type}: BiT's units are preactivation, and bit_ref has no others; "
                "load this model with transformers"
            )
        self.embedder = BitEmbeddings(config)
        self.encoder = BitEncoder(config)
        self.norm = GroupNormActivation(config, self.encoder.channels[-1])
        self.pooler = nn.AdaptiveAvgPool2d((1, 1))

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPoolingAndNoAttention | tuple[Any, ...]:
        """(N, channels, H, W), normalised as the model was trained → features of the last stage.

        ``output_hidden_states`` and ``return_dict`` default to the config's; with ``return_dict=False`` the output is
        a plain tuple. Other keyword arguments are ignored, as transformers does. Raises ValueError for images with
        other channels than the config's.
        """
        hidden_states = self.encoder(self.embedder(pixel_values))
        last_hidden_state = self.norm(hidden_states[-1])
        output = BaseModelOutputWithPoolingAndNoAttention.of(
            last_hidden_state=last_hidden_state,
            pooler_output=self.pooler(last_hidden_state),
            hidden_states=hidden_states if self._wants_hidden_states(output_hidden_states) else None,
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()


class BitForImageClassification(BitPreTrainedModel):
    """BiT with its head, a linear layer on the pooled features."""

    accepts_loss_kwargs = False
    """The loss is a mean over the batch: transformers' Trainer divides it by the batches that it accumulates."""
    loss_function = staticmethod(classification_loss)

    def __init__(self, config: BitConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bit = BitModel(config)
        features = self.bit.encoder.channels[-1]
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(features, config.num_labels) if config.num_labels > 0 else nn.Identity()
        )

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutputWithNoAttention | tuple[Any, ...]:
        """(N, channels, H, W) → logits (N, classes), and with ``labels`` the loss: see ``classification_loss``."""
        if pixel_values is None:
            raise ValueError("pixel_values are missing")
        outputs = self.bit(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.classifier(outputs.pooler_output)
        output = ImageClassifierOutputWithNoAttention.of(
            loss=None if labels is None else self.loss_function(labels, logits, self.config),
            logits=logits,
            hidden_states=outputs.hidden_states,
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()


class BitBackbone(BitPreTrainedModel):
    """BiT as the backbone of another network: feature maps of the stages that ``config.out_features`` names."""

    backbone_type = "transformers"
    has_attentions = False

    def __init__(self, config: BitConfig) -> None:
        super().__init__(config)
        self.bit = BitModel(config)
        self.stage_names = config.stage_names
        self.num_features = self.bit.encoder.channels

    @property
    def out_features(self) -> list[str]:
        return self.config.out_features

    @out_features.setter
    def out_features(self, out_features: list[str]) -> None:
        self.config.out_features = out_features

    @property
    def out_indices(self) -> list[int]:
        return self.config.out_indices

    @out_indices.setter
    def out_indices(self, out_indices: list[int] | tuple[int, ...]) -> None:
        self.config.out_indices = list(out_indices)

    @property
    def out_feature_channels(self) -> dict[str, int]:
        """The channels of every stage, chosen or not."""
        return dict(zip(self.stage_names, self.num_features, strict=True))

    @property
    def channels(self) -> list[int]:
        """The channels of each feature map."""
        return [self.out_feature_channels[name] for name in self.out_features]

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput | tuple[Any, ...]:
        """(N, channels, H, W) → the feature maps, in the order of the stages."""
        hidden_states = self.bit(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        output = BackboneOutput.of(
            feature_maps=tuple(
                state for state, name in zip(hidden_states, self.stage_names, strict=True) if name in self.out_features
            ),
            hidden_states=hidden_states if self._wants_hidden_states(output_hidden_states) else None,
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def forward_with_filtered_kwargs(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("output_attentions", None)
        return self(*args, **kwargs)


class MaxPool(nn.Module):
    """3×3, stride 2; ``padding`` is the value to pad with as TensorFlow does, None for no padding."""

    def __init__(self, padding: float | None) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        if self.padding is not None:
            x = pad_like_tensorflow(x, 3, 2, self.padding)
        # the same maxima; for channels_last PyTorch computes many at once
        return _contiguous(functional.max_pool2d(_channels_last(x), 3, 2))


class DropPath(nn.Module):
    """Stochastic depth: in training, a sample loses its residual with this probability (Huang et al., 2016).

    BiT was trained without; ``config.drop_path_rate`` grows linearly from 0 to itself over the units.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        lots = torch.rand((len(x), *[1] * (x.ndim - 1)), dtype=x.dtype, device=x.device)
        return x / kept * torch.floor(lots + kept)


def pad_like_tensorflow(x: Tensor, kernel_size: int, stride: int, value: float = 0.0) -> Tensor:
    """TensorFlow's SAME for any input size: ⌈size / stride⌉ windows fit; the odd pixel goes after (tf.nn, "Notes on
    padding")."""

    def around(size: int) -> tuple[int, int]:
        missing = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
        return missing // 2, missing - missing // 2

    height, width = x.shape[-2:]
    return functional.pad(x, (*around(width), *around(height)), value=value)


def round_channels(channels: float, divisor: int = 8) -> int:
    """Rounds a width as stock libraries do: to a multiple of ``divisor``, and to nine tenths or more. BiT's stay."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _channels_last(x: Tensor) -> Tensor:
    """x in channels_last, where that format is known. What is no tensor is a TypeError, as in transformers."""
    return x if is_transforming() else Tensor.contiguous(x, memory_format=torch.channels_last)


def _contiguous(x: Tensor) -> Tensor:
    """x in contiguous NCHW, but on NVIDIA's GPUs as it is: they have their own GroupNorm."""
    return x if x.is_cuda else x.contiguous()


def _pool_padding(config: BitConfig) -> float:
    return -math.inf if config.pool_padding == "-inf" else 0.0
