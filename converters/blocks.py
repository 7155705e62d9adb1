"""The values of one parameter as a layout stores them, in blocks of bounded size.

source → some columns of a tensor in Google's layout → blocks of output channels → the file
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.layouts import Array, Exact, Layout, scaled
from converters.names import GOOGLE, Parameter
from converters.sources import GoogleView
from converters.transposing import OUTPUTS, outputs_first


def stored_blocks(source: GoogleView, parameter: Parameter, layout: Layout, exact: Exact) -> Iterator[Array]:
    """What ``layout.store`` gives, block after block along its first axis: float32, each valid until the next is
    asked for."""
    name, form = parameter.names[GOOGLE], layout.forms[parameter.kind]
    if not form.is_outputs_first:
        yield layout.store(parameter, source.read(name), exact)
        return
    shape = layout.shape(parameter)
    for columns in source.columns(name):
        kernel = columns.reshape(-1, shape[1], columns.shape[-1])
        block = np.empty((min(OUTPUTS, columns.shape[-1]), shape[1], len(kernel)), kernel.dtype)
        for start in range(0, columns.shape[-1], OUTPUTS):
            some = kernel[:, :, start : start + OUTPUTS]
            outputs_first(some, block[: some.shape[2]])
            yield scaled(block[: some.shape[2]].reshape(-1, *shape[1:]), parameter.kind, exact)
