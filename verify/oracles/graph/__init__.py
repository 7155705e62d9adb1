"""The graph oracle: a SavedModel's own graph, as its file has it, in float64.

``program`` takes the part of the graph that makes logits or features of images and refuses it unless all of it is in
the table of ``operations``; ``machine`` runs it; ``oracle`` feeds it. Nothing else of the file is run.

    saved_model.pb → Program;  variables → Machine;  images → ``GraphOracle.layers()`` → features, logits
"""

from verify.oracles.graph.oracle import GraphInput, GraphOracle, graph_input

__all__ = ["GraphInput", "GraphOracle", "graph_input"]
