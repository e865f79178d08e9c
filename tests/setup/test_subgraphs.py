"""The editor's subgraphs to the API's flat form: unfolded, with the values and lines that they show outside."""

import pytest
from stagecraft.commands.workflow import to_api
from stagecraft.commands.workflow_graph import WorkflowError
from stagecraft.tests.setup.small_workflows import (
    INSIDE,
    OBJECT_INFO,
    instance,
    node,
    subgraph,
)


def test_a_subgraph_is_unfolded():
    prompt = to_api(subgraph(instance()), OBJECT_INFO)
    assert list(prompt) == ["1", "2:3", "9"]
    assert prompt["2:3"]["inputs"] == {
        "model": ["1", 0],
        "seed": 7,
        "sampler": "heun",
        "strength": 0.5,
        "tiled": True,
    }
    assert prompt["9"]["inputs"]["latent"] == ["2:3", 0]


@pytest.mark.parametrize(
    "more", [{}, {"properties": {"proxyWidgets": [["-1", "seed"]]}}, {"properties": {"proxyWidgets": []}}]
)
def test_a_widget_that_a_subgraph_shows_outside_has_its_value_there(more):
    assert to_api(subgraph(instance([42], **more)), OBJECT_INFO)["2:3"]["inputs"]["seed"] == 42


def test_a_line_to_such_a_widget_goes_before_its_value():
    outer = instance([42])
    outer["inputs"].append({"name": "seed", "type": "INT", "link": 8, "widget": {"name": "seed"}})
    file = subgraph(outer)
    file["nodes"].append(node(5, "PrimitiveNode", [], ["INT"], [77, "fixed"]))
    file["links"].append([8, 5, 0, 2, 1, "INT"])
    assert to_api(file, OBJECT_INFO)["2:3"]["inputs"]["seed"] == 77


def test_a_subgraph_inside_a_subgraph_is_unfolded_too():
    outer_id = "3b1d3f66-0000-4000-8000-000000000002"
    file = subgraph(node(2, outer_id, [("model", "MODEL", 1)], ["LATENT"]))
    file["definitions"]["subgraphs"].append(
        {
            "id": outer_id,
            "inputs": [{"name": "model", "type": "MODEL"}],
            "outputs": [{"name": "LATENT", "type": "LATENT"}],
            "nodes": [node(6, INSIDE, [("model", "MODEL", 1)], ["LATENT"])],
            "links": [[1, -10, 0, 6, 0, "MODEL"], [2, 6, 0, -20, 0, "LATENT"]],
        }
    )
    prompt = to_api(file, OBJECT_INFO)
    assert prompt["2:6:3"]["inputs"]["model"] == ["1", 0]
    assert prompt["9"]["inputs"]["latent"] == ["2:6:3", 0]


def test_muted_and_bypassed_subgraphs():
    assert list(to_api(subgraph(instance(mode=2)), OBJECT_INFO)) == ["1", "9"]
    prompt = to_api(subgraph(instance(mode=4)), OBJECT_INFO)
    assert list(prompt) == ["1", "9"]
    assert prompt["9"]["inputs"] == {"prefix": "picture"}


def test_a_subgraph_that_contains_itself_is_refused():
    file = subgraph(instance())
    file["definitions"]["subgraphs"][0]["nodes"].append(node(8, INSIDE, [], ["LATENT"]))
    with pytest.raises(WorkflowError, match="contains itself"):
        to_api(file, OBJECT_INFO)
