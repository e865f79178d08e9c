"""Turns a workflow of the editor into the prompt that ComfyUI's API takes, so that no second copy is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .workflow_graph import Constant, Graph, WorkflowError, describe

__all__ = ["WorkflowError", "to_api"]

_WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "MARKDOWN")
# The editor puts a widget with one of these values behind every seed.
_AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize", "increment-wrap")
_SEED_NAMES = ("seed", "noise_seed")
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")


def to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Convert an editor workflow (schema 0.4 or 1) to API format.

    Args:
        workflow: the file that the editor saves.
        object_info: what ComfyUI says about its nodes (`ComfyApi.object_info`); it gives the order of the widgets.

    Returns:
        {node id: {"class_type", "inputs", "_meta": {"title"}}}. Nodes inside a subgraph have ids such as "12:3".

    Raises:
        WorkflowError: an unknown node, a value that is missing or left over, or a link that leads nowhere; the text
            names the node and the input.
    """
    prompt = {}
    for graph, node in Graph.of_workflow(workflow).running_nodes():
        description = object_info.get(node["type"])
        if description is None:
            raise WorkflowError(
                f"{describe(node)} has the type {node['type']!r}, which this ComfyUI does not know; it belongs to a "
                "pack that is not installed, or to another version."
            )
        prompt[f"{graph.prefix}{node['id']}"] = {
            "class_type": node["type"],
            "inputs": _inputs(graph, node, description),
            "_meta": {"title": node.get("title") or description.get("display_name") or node["type"]},
        }
    return prompt


def _inputs(graph: Graph, node: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    specification = dict(_ordered_inputs(description))
    linked: dict[str, Any] = {}
    for index, entry in enumerate(node.get("inputs") or []):
        source = graph.source_of_input(node, index)
        if source is None:
            continue
        # A node that grows inputs names them after the one it has: "images.image0".
        if entry["name"].split(".")[0] not in specification:
            raise WorkflowError(
                f"{describe(node)}: something is connected to its input {entry['name']!r}, but this ComfyUI's node has "
                f"only {', '.join(specification) or 'no inputs'}."
            )
        is_constant = isinstance(source, Constant)
        linked[entry["name"]] = _wrapped(source.value) if is_constant else [source.node_id, source.slot]
    values = _widget_values(node, specification, linked)
    return {name: _wrapped(value) for name, value in values.items() if name not in linked} | linked


def _ordered_inputs(description: dict[str, Any]) -> Iterator[tuple[str, tuple[str, dict[str, Any], bool]]]:
    """Go through a node's inputs in the editor's order: name, (type, options, required)."""
    for section in ("required", "optional"):
        inputs = description["input"].get(section) or {}
        order = (description.get("input_order") or {}).get(section) or list(inputs)
        for name in order:
            # Older nodes give the choices of a combo in the place of the type.
            kind, *rest = inputs[name]
            options = rest[0] if rest and isinstance(rest[0], dict) else {}
            yield name, ("COMBO" if isinstance(kind, list) else kind, options, section == "required")


def _widget_values(
    node: dict[str, Any], specification: dict[str, tuple[str, dict[str, Any], bool]], linked: dict[str, Any]
) -> dict[str, Any]:
    entries = {entry["name"]: entry for entry in node.get("inputs") or []}
    widgets = [
        name for name, (kind, options, _) in specification.items() if _is_widget(kind, options, entries.get(name))
    ]
    stored = node.get("widgets_values")
    if isinstance(stored, dict):
        values = {name: stored[name] for name in widgets if name in stored}
    else:
        values = _in_order(node, widgets, specification, list(stored or []))
    for name in widgets:
        if name not in values and name not in linked and specification[name][2]:
            raise WorkflowError(
                f"{describe(node)}: the value of its input {name!r} is missing; the file was made for another version "
                "of this node. Open it in the editor, check the node and save it again."
            )
    return values


def _in_order(
    node: dict[str, Any],
    widgets: list[str],
    specification: dict[str, tuple[str, dict[str, Any], bool]],
    stored: list[Any],
) -> dict[str, Any]:
    """Match the list of values with the widgets, stepping over values that only the editor uses."""
    values, position, button = {}, 0, None
    for name in widgets:
        kind, options, _ = specification[name]
        if position == len(stored):
            break
        values[name] = stored[position]
        position += 1
        if any(options.get(upload) for upload in _UPLOADS):
            button = options
        if _has_control(name, kind, options) and position < len(stored) and stored[position] in _AFTER_GENERATE:
            position += 1
            # Behind a combo there is also a text that filters its choices.
            if kind == "COMBO" and position < len(stored) and isinstance(stored[position], str):
                position += 1
    if button is not None and position < len(stored):
        # The upload button of the editor is saved as one more value.
        position += 1
    # Players and viewers of the editor save themselves as an empty value behind all others.
    if any(value not in (None, "") for value in stored[position:]):
        known = ", ".join(widgets) or "none"
        raise WorkflowError(
            f"{describe(node)}: the file has {len(stored)} values, and {stored[position:]} is left over after its "
            f"inputs ({known}); the file was made for another version of this node."
        )
    return values


def _is_widget(kind: str, options: dict[str, Any], entry: dict[str, Any] | None) -> bool:
    """Tell whether the editor shows a widget for an input, which then has a value in the file."""
    if options.get("forceInput"):
        return False
    if entry is not None and entry.get("widget"):
        return True
    return kind in _WIDGET_TYPES or bool(options.get("widgetType") or options.get("socketless"))


def _has_control(name: str, kind: str, options: dict[str, Any]) -> bool:
    asked = options.get("control_after_generate")
    return bool(asked) if asked is not None else kind == "INT" and name in _SEED_NAMES


def _wrapped(value: object) -> object:
    """Mark a list as a value, because in a prompt a bare list is a connection."""
    return {"__value__": value} if isinstance(value, list) else value
