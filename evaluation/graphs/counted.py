"""A method's graph on another checkpoint, with all evaluations of the network counted."""

from copy import deepcopy

from .builder import PICTURES, Graph

LOADER, COUNT, COUNTED = "CheckpointLoaderSimple", "EvaluationCount", "counted"
MODEL = 0  # output of the loader


def counted(graph: Graph, checkpoint: str) -> Graph:
    """Take the model from another checkpoint and count the rows that it evaluates.

    Args:
        graph: of a method, in ComfyUI's API format.
        checkpoint: its name in the drop-down.

    Returns:
        A graph with an output node `COUNTED`, which says the number of rows as text.
    """
    graph = deepcopy(graph)
    loaders = [name for name, node in graph.items() if node["class_type"] == LOADER]
    counts = {loader: f"count {loader}" for loader in loaders}
    for node in graph.values():
        for key, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in counts and value[1] == MODEL:
                node["inputs"][key] = [counts[value[0]], 0]
    for loader, count in counts.items():
        graph[loader]["inputs"]["ckpt_name"] = checkpoint
        graph[count] = {"class_type": COUNT, "inputs": {"model": [loader, MODEL]}}
    (count,) = counts.values()
    after = graph[PICTURES]["inputs"]["images"]
    graph[COUNTED] = {"class_type": "EvaluationCounted", "inputs": {"model": [count, 0], "after": after}}
    return graph
