"""GroupNorm and ReLU in Triton, for maps in channels_last: (N, pixels, channels) in memory.

A small group is read once, by a program of its own. A map of larger groups is read twice: its pixels are split among
programs, each of which leaves means and squared deviations of its channels; these are combined for each group; then
the map is normalised. All of it is in float32, and nothing is the difference of two large sums: deviations are from a
running mean (Welford, 1962), and parts are combined by their means (Chan, Golub and LeVeque, 1983).

    x → ``group_norm_relu()`` → ``_whole`` or ``_part``, ``_combined``, ``_normalised`` → y
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

PIXELS, CHANNELS = 32, 64
"""The piece of a map that a program takes at once."""
WHOLE = 8192
"""Values of a group, padded, that one program holds in its registers."""
SECTOR = 32
"""Bytes that a GPU reads at once: of a group with fewer in a pixel, most would be read for nothing…"""
LITTLE = 1 << 20
"""… which costs less than two launches more where a map has no more values than this."""
PROGRAMS, MOST_PARTS = 4096, 64
"""Programs that keep a large GPU busy, and parts of an image at most."""

_PIXELS, _CHANNELS = tl.constexpr(PIXELS), tl.constexpr(CHANNELS)


def group_norm_relu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """``relu(norm(x))`` in channels_last; x is (N, C, H, W) in float32, float16 or bfloat16, as norm's weights are."""
    (images, channels, height, width), groups = x.shape, norm.num_groups
    pixels, group = height * width, channels // groups
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    tile, lanes = _power_of_two(pixels), _power_of_two(group)
    if tile * lanes <= WHOLE and (group * x.element_size() >= SECTOR or x.numel() <= LITTLE):
        weights, warps = (norm.weight, norm.bias), _warps(tile * lanes)
        _whole[(groups, images)](x, y, *weights, pixels, norm.eps, group, tile, num_warps=warps)
        return y
    pieces, columns = triton.cdiv(pixels, PIXELS), triton.cdiv(channels, CHANNELS)
    parts = min(MOST_PARTS, _power_of_two(pieces), _power_of_two(triton.cdiv(PROGRAMS, images * columns)))
    found = torch.empty(images, parts, 2, channels, device=x.device, dtype=torch.float32)
    statistics = torch.empty(images, groups, 2, device=x.device, dtype=torch.float32)
    _part[(images * parts, columns)](x, found, pixels, channels, parts)
    warps = _warps(parts * lanes)
    _combined[(groups, images)](found, statistics, pixels, channels, norm.eps, parts, lanes, num_warps=warps)
    _normalised[(images * pieces, columns)](x, y, statistics, norm.weight, norm.bias, pixels, channels, groups)
    return y


def _power_of_two(number: int) -> int:
    """The least that is not smaller."""
    return 1 << (number - 1).bit_length()


def _warps(values: int) -> int:
    """Warps of a program that holds so many values, a power of two: few enough for each thread's registers."""
    return max(1, min(8, values // 512))


@triton.jit(do_not_specialize=["pixels"])
def _whole(x, y, scale, offset, pixels, epsilon, GROUP: tl.constexpr, PIXELS: tl.constexpr):
    """One group of one image, whose pixels are no more than PIXELS."""
    number, image = tl.program_id(0), tl.program_id(1)
    pixel, lane = tl.arange(0, PIXELS)[:, None], tl.arange(0, triton.next_power_of_2(GROUP))[None, :]
    is_lane = lane < GROUP
    is_inside = (pixel < pixels) & is_lane
    channels, channel = tl.num_programs(0) * GROUP, number * GROUP + lane
    place = image.to(tl.int64) * pixels * channels + pixel * channels + channel
    values = tl.load(x + place, mask=is_inside, other=0.0).to(tl.float32)
    count = (pixels * GROUP).to(tl.float32)
    deviations = tl.where(is_inside, values - tl.sum(values) / count, 0.0)
    deviation = tl.sqrt_rn(tl.sum(deviations * deviations) / count + epsilon)
    factor = tl.load(scale + channel, mask=is_lane, other=0.0).to(tl.float32) / deviation
    values = deviations * factor + tl.load(offset + channel, mask=is_lane, other=0.0).to(tl.float32)
    values = tl.where(values < 0, 0.0, values)  # NaN stays
    tl.store(y + place, values.to(y.dtype.element_ty), mask=is_inside)


@triton.jit(do_not_specialize=["pixels", "parts"])
def _part(x, found, pixels, channels, parts):
    """Mean and sum of squared deviations of each channel, over one part of an image's pixels.

    Each row of the piece has a running mean of its own, so that nothing is summed over rows before the end.
    """
    image, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    rows = tl.cdiv(pixels, parts)
    count = tl.maximum(tl.minimum(rows, pixels - part * rows), 0)
    row = tl.arange(0, _PIXELS)[:, None]
    channel = tl.program_id(1) * _CHANNELS + tl.arange(0, _CHANNELS)[None, :]
    start = image.to(tl.int64) * pixels * channels + part * rows * channels
    mean = tl.zeros((_PIXELS, _CHANNELS), tl.float32)
    square = tl.zeros((_PIXELS, _CHANNELS), tl.float32)
    seen = 0.0
    for done in range(0, count, _PIXELS):
        is_inside = (done + row < count) & (channel < channels)
        values = tl.load(x + start + (done + row) * channels + channel, mask=is_inside, other=0.0).to(tl.float32)
        seen += 1.0
        step = tl.where(is_inside, values - mean, 0.0)
        mean += step * (1.0 / seen)
        square += step * tl.where(is_inside, values - mean, 0.0)
    of_row = (tl.maximum(count - row + _PIXELS - 1, 0) // _PIXELS).to(tl.float32)
    whole = tl.sum(mean * of_row, 0)[None, :] / tl.maximum(count, 1).to(tl.float32)
    square = tl.sum(square + of_row * (mean - whole) * (mean - whole), 0)[None, :]
    place = tl.program_id(0).to(tl.int64) * 2 * channels + channel
    tl.store(found + place, whole, mask=channel < channels)
    tl.store(found + place + channels, square, mask=channel < channels)


@triton.jit(do_not_specialize=["pixels"])
def _combined(found, statistics, pixels, channels, epsilon, PARTS: tl.constexpr, LANES: tl.constexpr):
    """Mean of one group of one image, and one over its deviation."""
    number, image, groups = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    part, lane, group = tl.arange(0, PARTS)[:, None], tl.arange(0, LANES)[None, :], channels // groups
    rows = tl.cdiv(pixels, PARTS)
    count = tl.maximum(tl.minimum(rows, pixels - part * rows), 0).to(tl.float32)
    place = (image * PARTS + part).to(tl.int64) * 2 * channels + number * group + lane
    is_inside = (lane < group) & (part < PARTS)
    means = tl.load(found + place, mask=is_inside, other=0.0)
    squares = tl.load(found + place + channels, mask=is_inside, other=0.0)
    total = (pixels * group).to(tl.float32)
    mean = tl.sum(means * count) / total
    squares += tl.where(is_inside, count * (means - mean) * (means - mean), 0.0)
    result = statistics + 2 * (image * groups + number)
    tl.store(result, mean)
    tl.store(result + 1, 1.0 / tl.sqrt_rn(tl.sum(squares) / total + epsilon))


@triton.jit(do_not_specialize=["pixels"])
def _normalised(x, y, statistics, scale, offset, pixels, channels, groups):
    """One piece of an image, scaled, moved and cut off at zero."""
    pieces = tl.cdiv(pixels, _PIXELS)
    image, piece = tl.program_id(0) // pieces, tl.program_id(0) % pieces
    pixel = piece * _PIXELS + tl.arange(0, _PIXELS)[:, None]
    channel = tl.program_id(1) * _CHANNELS + tl.arange(0, _CHANNELS)[None, :]
    is_channel = channel < channels
    number = 2 * (image * groups + channel // (channels // groups))
    mean = tl.load(statistics + number, mask=is_channel, other=0.0)
    factor = tl.load(statistics + number + 1, mask=is_channel, other=0.0)
    factor *= tl.load(scale + channel, mask=is_channel, other=0.0).to(tl.float32)
    is_inside = (pixel < pixels) & is_channel
    place = image.to(tl.int64) * pixels * channels + pixel * channels + channel
    values = tl.load(x + place, mask=is_inside, other=0.0).to(tl.float32)
    values = (values - mean) * factor + tl.load(offset + channel, mask=is_channel, other=0.0).to(tl.float32)
    values = tl.where(values < 0, 0.0, values)  # NaN stays
    tl.store(y + place, values.to(y.dtype.element_ty), mask=is_inside)
