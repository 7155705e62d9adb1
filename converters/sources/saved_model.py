"""Reads SavedModel folders: TF-Hub modules of TensorFlow 2, and of TensorFlow 1 (``tfhub_module.pb``).

Only the variables are read, as the checkpoint that they are; the graph is checked to be one, and is an oracle's affair
(verify/oracles/graph).

    saved_model.pb → parsed, not run;  variables/variables.index, .data-* → TfCheckpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from converters.errors import CheckpointError
from converters.reading import reading
from converters.sources.tf_checkpoint import TfCheckpoint
from verify.tensorflow import read_graph

GRAPH, HUB_MODULE, VARIABLES = "saved_model.pb", "tfhub_module.pb", "variables"
HUB_FORMAT = b"\x08\x03"
"""The whole of a tfhub_module.pb: ``format: 3`` (tensorflow/hub, module_def.proto)."""


class SavedModel(TfCheckpoint):
    """A SavedModel or TF1-Hub module as the checkpoint of its variables."""

    format = "saved-model"
    looked_for = "a SavedModel (saved_model.pb or tfhub_module.pb, and variables/)"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return path.is_dir() and any((path / name).is_file() for name in (GRAPH, HUB_MODULE))

    @classmethod
    def open(cls, path: Path) -> Self:
        prefix = path / VARIABLES / VARIABLES
        if not prefix.with_name(prefix.name + ".index").is_file():
            raise CheckpointError(
                f"{path}: a SavedModel without its variables: {VARIABLES}/variables.index is missing."
            )
        return cls(str(path), prefix)

    def __init__(self, path: str, prefix: Path) -> None:
        self._graphs = [file for name in (GRAPH, HUB_MODULE) if (file := Path(path, name)).is_file()]
        for file in self._graphs:
            _refuse_junk(file)
        super().__init__(path, prefix)

    @property
    def files(self) -> Mapping[str, Path]:
        return {file.name: file for file in self._graphs} | {
            f"{VARIABLES}/{name}": file for name, file in super().files.items()
        }


def _refuse_junk(file: Path) -> None:
    with reading(file, "the graph"):
        if file.name == HUB_MODULE:
            with file.open("rb") as mark:
                if not mark.read(len(HUB_FORMAT)) == HUB_FORMAT:
                    raise ValueError("not the mark of a TF-Hub module")
        elif not read_graph(file).meta_graphs:
            raise ValueError("a SavedModel without any graph")
