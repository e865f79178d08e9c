"""Numbers and choices that no schema allows, on every node: one sentence that names the input, before anything else."""

import inspect

import pytest
from stagecraft.nodes import NODES
from stagecraft.nodes.api import io
from stagecraft.nodes.soft_guidance.soft_guidance import StageRegionTokens, StageSoftGuidance

NUMBERS = (float("nan"), float("inf"), float("-inf"))
NO_NUMBERS = ({"a": 1}, "many", ["a"], None)
NO_TEXTS = ({"a": 1}, 7, ["a"], None, "a \ud800 dog")
NO_NAMES = (7, None, {"a": 1}, ["a"], 0.5)


def required(node):
    """Something for every argument that `execute` needs; links are never looked at."""
    every = inspect.signature(node.execute).parameters.values()
    return {each.name: None for each in every if each.default is inspect.Parameter.empty and each.name != "cls"}


def inputs(kind):
    return [
        pytest.param(node, each.id, id=f"{node.__name__}.{each.id}")
        for node in NODES
        for each in node.define_schema().inputs
        if isinstance(each, kind)
    ]


def valid(node):
    """Defaults of all numbers, texts and choices."""
    usual = {}
    for each in node.define_schema().inputs:
        if isinstance(each, io.Combo.Input):
            usual[each.id] = each.default or each.options[0]
        elif isinstance(each, io.Int.Input | io.Float.Input):
            usual[each.id] = 1 if each.default is None else each.default
        elif isinstance(each, io.String.Input):
            usual[each.id] = each.default or ""
    return usual


def validated(node, name, value):
    """What `validate_inputs` answers to one value, links aside; "" where it does not take that input."""
    asked = inspect.signature(node.validate_inputs).parameters
    if name not in asked:
        return ""
    needed = {each.name: None for each in asked.values() if each.default is inspect.Parameter.empty}
    return node.validate_inputs(**{key: each for key, each in needed.items() if key != "cls"} | {name: value})


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(("node", "name"), inputs(io.Float.Input))
def test_a_number_that_is_none_is_refused_by_name(node, name, value):
    with pytest.raises(ValueError, match=f"^{name} is -?(nan|inf); expected a finite number"):
        node.execute(**required(node) | valid(node) | {name: value})


@pytest.mark.parametrize(("node", "name"), inputs(io.Float.Input | io.Int.Input))
def test_what_is_no_number_is_refused_by_name(node, name):
    """ComfyUI hands what it cannot make a number of to `validate_inputs` as it is."""
    for value in NO_NUMBERS:
        with pytest.raises(ValueError, match=f"^{name} is .*; expected a finite number"):
            node.execute(**required(node) | valid(node) | {name: value})
        if value is not None and (answer := validated(node, name, value)):
            assert "expected a finite number" in answer and answer.startswith(name)


@pytest.mark.parametrize(("node", "name"), inputs(io.String.Input))
def test_what_is_no_text_is_refused_by_name(node, name):
    for value in NO_TEXTS:
        with pytest.raises(ValueError, match=f"^{name} is .*; expected a text"):
            node.execute(**required(node) | valid(node) | {name: value})
        if value is not None and (answer := validated(node, name, value)):
            assert "expected a text" in answer and answer.startswith(name)


@pytest.mark.parametrize(("node", "name"), inputs(io.Combo.Input))
def test_a_choice_that_is_no_text_is_refused_by_name(node, name):
    for value in NO_NAMES:
        with pytest.raises(ValueError, match=f"^{name} is .*; expected one of these choices"):
            node.execute(**required(node) | valid(node) | {name: value})
        if value is not None and (answer := validated(node, name, value)):
            assert "expected one of these choices" in answer and answer.startswith(name)


@pytest.mark.parametrize(("node", "name"), inputs(io.Combo.Input))
def test_a_choice_that_there_is_not_is_refused_unless_the_node_looks_it_up(node, name):
    own = {*inspect.signature(node.validate_inputs).parameters, getattr(node, "FILE_INPUT", None)}
    if name not in own:
        with pytest.raises(ValueError, match=f"^{name} is 'no such choice'; expected one of these choices"):
            node.execute(**required(node) | valid(node) | {name: "no such choice"})


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_comfyui_still_sees_the_names_that_a_node_validates(node):
    found = inspect.getfullargspec(node.validate_inputs)
    assert found.varargs is None
    # The base class takes everything by name and validates nothing; a loader of files takes its one input so.
    assert found.varkw is not None or len(found.args) > 1


def test_what_comfyui_does_not_hear_of_before_the_run_is_said_in_it():
    with pytest.raises(ValueError, match="Soft Guidance has no regions. Connect a layout"):
        StageSoftGuidance.execute(None, (), (), 1.0, "area")
    with pytest.raises(ValueError, match="A region needs either a conditioning or a style_model"):
        StageRegionTokens.execute(None, 1.0, False, False)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_a_required_input_that_is_not_there_is_left_to_comfyui(node):
    """It names the input, and asks `validate_inputs` about the others all the same."""
    asked = [each for each in inspect.signature(node.validate_inputs).parameters.values() if each.name != "cls"]
    needed = [each.name for each in asked if each.default is inspect.Parameter.empty and each.kind != each.VAR_KEYWORD]
    for missing in needed:
        assert node.validate_inputs(**dict.fromkeys(name for name in needed if name != missing)) is True
