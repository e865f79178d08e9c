"""Links of a node that need each other: ComfyUI hears what is wrong before the run, and the run says the same."""

import inspect
import itertools
from collections.abc import Iterator, Mapping

import pytest
from stagecraft.nodes import NODES
from stagecraft.nodes.api import io
from stagecraft.nodes.inputs import NOT_CONNECTED

CHECKED = [node for node in NODES if "validate_inputs" in vars(node)]
# Nodes that say before the run what is wrong with links that are not there.
WITH_LINKS = [
    node
    for node in CHECKED
    if any(each.default is NOT_CONNECTED for each in inspect.signature(node.validate_inputs).parameters.values())
]
MOST_LINKS = 6  # of which every choice is tried; of more, all and none, each alone and every pair


def values_of(inputs: Mapping[str, io.Input]) -> Iterator[dict[str, object]]:
    """Values of all inputs that are no links: the defaults, and every other one that may change what is needed."""
    tried: dict[str, list[object]] = {}
    for name, each in inputs.items():
        if isinstance(each, io.Combo.Input):
            tried[name] = list(each.options)
        elif isinstance(each, io.Int.Input | io.Float.Input):
            tried[name] = [each.default, *([1] if isinstance(each, io.Int.Input) else [0.5])]
        elif isinstance(each, io.String.Input):
            tried[name] = [each.default, ""]
        elif isinstance(each, io.Boolean.Input):
            tried[name] = [each.default]
    usual = {name: choice[0] for name, choice in tried.items()}
    yield usual
    for name, choice in tried.items():
        yield from (usual | {name: value} for value in choice[1:])


def choices_of(links: list[str]) -> Iterator[tuple[str, ...]]:
    numbers = range(len(links) + 1) if len(links) <= MOST_LINKS else (0, 1, 2, len(links))
    yield from itertools.chain.from_iterable(itertools.combinations(links, number) for number in numbers)


def is_link(each: io.Input) -> bool:
    return not isinstance(each, io.WidgetInput)


@pytest.mark.parametrize("node", CHECKED, ids=lambda node: node.__name__)
def test_comfyui_hears_every_check(node):
    """ComfyUI reports an answer at each of the named inputs that the graph has, so one of them has to be there."""
    spec = inspect.getfullargspec(node.validate_inputs)
    named = {each.id for each in node.GET_SCHEMA().inputs} if spec.varkw else set(spec.args)
    required = {each.id for each in node.GET_SCHEMA().inputs if not each.optional}
    assert named & required, "validate_inputs names optional inputs only, so nobody hears it where none is connected"


@pytest.mark.parametrize("node", WITH_LINKS, ids=lambda node: node.__name__)
def test_the_run_refuses_links_that_the_check_refuses(node):
    """What is bypassed or brings nothing is known in the run only, so it says the same before it looks at anything."""
    inputs = {each.id: each for each in node.GET_SCHEMA().inputs}
    named = inspect.signature(node.validate_inputs).parameters
    optional = [name for name, each in named.items() if each.default is NOT_CONNECTED]
    refused = 0
    for values, chosen in itertools.product(list(values_of(inputs)), list(choices_of(optional))):
        there = {name for name, each in inputs.items() if is_link(each) and (not each.optional or name in chosen)}
        known = values | dict.fromkeys(there)
        answer = node.validate_inputs(**{name: known[name] for name in named if name in known})
        if answer is True:
            continue
        refused += 1
        brought = {name: object() for name in there}
        nothing = {name: None for name in optional if name not in there}
        with pytest.raises(ValueError) as caught:
            node.execute(**values, **brought, **nothing)
        assert str(caught.value) == answer
    assert refused, "nothing of what was tried is refused"
