"""The editor's format to the API's, one feature of the editor at a time, on nodes small enough to read."""

import pytest
from stagecraft.commands.workflow import WorkflowError, to_api

OBJECT_INFO = {
    "Load": {"input": {"required": {"name": [["a.safetensors", "b.safetensors"], {}]}}, "output": ["MODEL"]},
    "Text": {"input": {"required": {"text": ["STRING", {"multiline": True}]}}, "output": ["STRING"]},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0}],
                "sampler": ["COMBO", {"options": ["euler", "heun"]}],
                "strength": ["FLOAT", {"default": 1.0}],
            },
            "optional": {"mask": ["MASK", {}], "tiled": ["BOOLEAN", {"default": False}]},
        },
        # The order of the widgets is said here; the order of the sections above may be any.
        "input_order": {"required": ["model", "seed", "sampler", "strength"], "optional": ["mask", "tiled"]},
        "output": ["LATENT"],
        "display_name": "Sampler",
    },
    "Two": {"input": {"required": {"first": ["LATENT"], "second": ["MODEL"]}}, "output": ["MODEL", "LATENT"]},
    "Save": {"input": {"required": {"latent": ["LATENT"], "prefix": ["STRING", {}]}}, "output": []},
    "Blend": {"input": {"required": {"a": ["LATENT"], "b": ["LATENT"]}}, "output": ["LATENT"]},
}
SAMPLE_VALUES = [7, "randomize", "heun", 0.5, True]


def node(number, kind, inputs=(), outputs=(), values=None, **more):
    """One node; inputs are (name, type, link) or (name, type, link, "widget")."""
    entries = []
    for name, type_, link, *widget in inputs:
        entries.append({"name": name, "type": type_, "link": link} | ({"widget": {"name": name}} if widget else {}))
    made = {"id": number, "type": kind, "mode": 0, "inputs": entries}
    made["outputs"] = [{"name": type_, "type": type_} for type_ in outputs]
    return made | ({} if values is None else {"widgets_values": values}) | more


def workflow(*nodes, links=(), **more):
    return {"version": 0.4, "nodes": list(nodes), "links": [list(link) for link in links]} | more


def load(number=1, **more):
    return node(number, "Load", [], ["MODEL"], ["b.safetensors"], **more)


def sample(number=2, link=1, values=SAMPLE_VALUES, inputs=(), **more):
    return node(number, "Sample", [("model", "MODEL", link), *inputs], ["LATENT"], values, **more)


def save(number=9, link=9, **more):
    return node(number, "Save", [("latent", "LATENT", link)], [], ["picture"], **more)


def convert(*nodes, links=(), **more):
    return to_api(workflow(*nodes, links=links, **more), OBJECT_INFO)


STRAIGHT = [(1, 1, 0, 2, 0, "MODEL"), (9, 2, 0, 9, 0, "LATENT")]


def test_links_and_widgets_get_their_names():
    assert convert(load(), sample(), save(), links=STRAIGHT) == {
        "1": {"class_type": "Load", "inputs": {"name": "b.safetensors"}, "_meta": {"title": "Load"}},
        "2": {
            "class_type": "Sample",
            "inputs": {"model": ["1", 0], "seed": 7, "sampler": "heun", "strength": 0.5, "tiled": True},
            "_meta": {"title": "Sampler"},
        },
        "9": {"class_type": "Save", "inputs": {"latent": ["2", 0], "prefix": "picture"}, "_meta": {"title": "Save"}},
    }


def test_schema_1_writes_links_as_objects():
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    file = workflow(load(), sample(), save()) | {"version": 1}
    file["links"] = [dict(zip(keys, link, strict=True)) for link in STRAIGHT]
    assert to_api(file, OBJECT_INFO) == convert(load(), sample(), save(), links=STRAIGHT)


def test_widget_values_may_have_names():
    values = {"strength": 0.5, "seed": 7, "sampler": "heun", "tiled": True, "unknown": 1}
    assert convert(load(), sample(values=values), links=STRAIGHT[:1])["2"]["inputs"] == {
        "model": ["1", 0],
        "seed": 7,
        "sampler": "heun",
        "strength": 0.5,
        "tiled": True,
    }


@pytest.mark.parametrize("control", ["fixed", "increment", "decrement", "randomize"])
def test_the_widget_behind_a_seed_is_stepped_over(control):
    inputs = convert(load(), sample(values=[7, control, "heun", 0.5, True]), links=STRAIGHT[:1])["2"]["inputs"]
    assert (inputs["seed"], inputs["sampler"]) == (7, "heun")


def test_a_seed_without_that_widget_is_read_too():
    inputs = convert(load(), sample(values=[7, "heun", 0.5, True]), links=STRAIGHT[:1])["2"]["inputs"]
    assert (inputs["seed"], inputs["sampler"]) == (7, "heun")


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["INT", {"control_after_generate": True}], [5, "fixed", "last"]),
        (["INT", {}], [5, "last"]),
        (["COMBO", {"options": [4, 5], "control_after_generate": True}], [5, "increment-wrap", "", "last"]),
    ],
)
def test_the_widget_after_generate_follows_the_schema(options, values):
    info = {"Odd": {"input": {"required": {"number": options, "text": ["STRING", {}]}}}}
    assert to_api(workflow(node(1, "Odd", values=values)), info)["1"]["inputs"] == {"number": 5, "text": "last"}


def test_a_seed_that_switches_the_widget_off_has_none():
    required = {"seed": ["INT", {"control_after_generate": False}], "text": ["STRING", {}]}
    prompt = to_api(workflow(node(1, "Odd", values=[5, "fixed"])), {"Odd": {"input": {"required": required}}})
    assert prompt["1"]["inputs"] == {"seed": 5, "text": "fixed"}


def test_the_upload_button_of_a_picture_is_no_value():
    info = {"LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}}}
    prompt = to_api(workflow(node(1, "LoadImage", values=["a.png", "image"])), info)
    assert prompt["1"]["inputs"] == {"image": "a.png"}


def test_an_input_that_is_forced_to_be_a_socket_has_no_value():
    required = {"text": ["STRING", {"forceInput": True}], "number": ["INT", {}]}
    prompt = to_api(workflow(node(1, "Odd", values=[3])), {"Odd": {"input": {"required": required}}})
    assert prompt["1"]["inputs"] == {"number": 3}


def test_a_list_is_marked_as_a_value():
    info = {"Odd": {"input": {"required": {"points": ["POINTS", {"widgetType": "EDITOR"}]}}}}
    prompt = to_api(workflow(node(1, "Odd", values=[[[1, 2], [3, 4]]])), info)
    assert prompt["1"]["inputs"] == {"points": {"__value__": [[1, 2], [3, 4]]}}


def test_a_widget_with_a_line_to_it_takes_the_line():
    inputs = [("strength", "FLOAT", 5, "widget")]
    links = [STRAIGHT[0], (5, 3, 0, 2, 1, "FLOAT")]
    info = OBJECT_INFO | {"Number": {"input": {"required": {"value": ["FLOAT", {}]}}, "output": ["FLOAT"]}}
    number = node(3, "Number", [], ["FLOAT"], [0.25])
    prompt = to_api(workflow(load(), sample(inputs=inputs), number, links=links), info)
    # The widget keeps its place in the list of values although its value does not count.
    assert prompt["2"]["inputs"] == {
        "model": ["1", 0],
        "seed": 7,
        "sampler": "heun",
        "strength": ["3", 0],
        "tiled": True,
    }


def test_reroutes_are_followed():
    reroutes = [node(n, "Reroute", [("", "*", n)], ["MODEL"]) for n in (3, 4)]
    links = [(3, 1, 0, 3, 0, "*"), (4, 3, 0, 4, 0, "*"), (1, 4, 0, 2, 0, "MODEL")]
    prompt = convert(load(), *reroutes, sample(), links=links)
    assert prompt["2"]["inputs"]["model"] == ["1", 0]
    assert list(prompt) == ["1", "2"]


def test_a_reroute_with_nothing_before_it_gives_nothing():
    prompt = convert(node(3, "Reroute", [("", "*", None)], ["MODEL"]), sample(), links=[(1, 3, 0, 2, 0, "MODEL")])
    assert "model" not in prompt["2"]["inputs"]


def test_a_primitive_gives_its_value():
    primitive = node(3, "PrimitiveNode", [], ["INT"], [123, "fixed"])
    inputs = [("seed", "INT", 5, "widget")]
    links = [STRAIGHT[0], (5, 3, 0, 2, 1, "INT")]
    prompt = convert(load(), primitive, sample(inputs=inputs), links=links)
    assert prompt["2"]["inputs"]["seed"] == 123
    assert list(prompt) == ["1", "2"]


def test_notes_are_left_out():
    notes = [node(5, "Note", values=["hello"]), node(6, "MarkdownNote", values=["# hello"])]
    assert list(convert(load(), *notes)) == ["1"]


def test_a_muted_node_is_left_out_with_the_lines_from_it():
    prompt = convert(load(), sample(mode=2), save(), links=STRAIGHT)
    assert list(prompt) == ["1", "9"]
    assert prompt["9"]["inputs"] == {"prefix": "picture"}


def test_a_bypassed_node_passes_its_input_of_the_same_type():
    # Two has the outputs MODEL, LATENT and the inputs LATENT, MODEL: types decide, not positions.
    two = node(3, "Two", [("first", "LATENT", 2), ("second", "MODEL", 3)], ["MODEL", "LATENT"], mode=4)
    links = [(2, 2, 0, 3, 0, "LATENT"), (3, 1, 0, 3, 1, "MODEL"), (4, 3, 0, 5, 0, "MODEL"), (9, 3, 1, 9, 0, "LATENT")]
    prompt = convert(load(), sample(link=None), two, sample(5, 4), save(), links=links)
    assert "3" not in prompt
    assert prompt["5"]["inputs"]["model"] == ["1", 0]
    assert prompt["9"]["inputs"]["latent"] == ["2", 0]


def test_a_bypassed_node_prefers_the_same_position():
    blend = node(3, "Two", [("a", "LATENT", 5), ("b", "LATENT", 6)], ["LATENT", "LATENT"], mode=4)
    links = [(5, 2, 0, 3, 0, "LATENT"), (6, 4, 0, 3, 1, "LATENT"), (9, 3, 1, 9, 0, "LATENT")]
    prompt = convert(sample(2, None), sample(4, None), blend, save(), links=links)
    assert prompt["9"]["inputs"]["latent"] == ["4", 0]


def test_a_bypassed_node_without_such_an_input_gives_nothing():
    prompt = convert(load(), sample(mode=4), save(), links=STRAIGHT)
    assert prompt["9"]["inputs"] == {"prefix": "picture"}


INSIDE = "3b1d3f66-0000-4000-8000-000000000001"


def subgraph(instance, **more):
    """A subgraph with the inputs model and seed and the output LATENT; inside, a sampler behind a reroute."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [
        (1, -10, 0, 4, 0, "MODEL"),
        (2, 4, 0, 3, 0, "MODEL"),
        (3, -10, 1, 3, 1, "INT"),
        (4, 3, 0, -20, 0, "LATENT"),
    ]
    definition = {
        "id": INSIDE,
        "name": "Paint",
        "inputNode": {"id": -10},
        "outputNode": {"id": -20},
        "inputs": [{"name": "model", "type": "MODEL"}, {"name": "seed", "type": "INT"}],
        "outputs": [{"name": "LATENT", "type": "LATENT"}],
        "nodes": [
            node(4, "Reroute", [("", "*", 1)], ["MODEL"]),
            sample(3, 2, inputs=[("seed", "INT", 3, "widget")]),
        ],
        "links": [dict(zip(keys, link, strict=True)) for link in links],
    }
    links = [(1, 1, 0, 2, 0, "MODEL"), (9, 2, 0, 9, 0, "LATENT")]
    return workflow(load(), instance, save(), links=links, definitions={"subgraphs": [definition]}, **more)


def instance(values=None, **more):
    return node(2, INSIDE, [("model", "MODEL", 1)], ["LATENT"], values, **more)


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


def test_optional_values_that_an_older_file_lacks_are_left_to_the_node():
    assert "tiled" not in convert(load(), sample(values=SAMPLE_VALUES[:-1]), links=STRAIGHT[:1])["2"]["inputs"]


ERRORS = [
    (lambda: convert(node(4, "Unheard", title="My node")), r"My node \(node 4\) has the type 'Unheard'"),
    (
        lambda: convert(sample(link=None, values=[7, "fixed", "heun"])),
        r"Sample \(node 2\): .* input 'strength' is miss",
    ),
    (lambda: convert(sample(link=None, values=None)), r"Sample \(node 2\): .* input 'seed' is missing"),
    (lambda: convert(sample(link=None, values={"seed": 1, "sampler": "euler"})), r"input 'strength' is missing"),
    (
        lambda: convert(sample(link=None, values=[*SAMPLE_VALUES, 9])),
        r"node 2\): the file has 6 values, and \[9\] is left",
    ),
    (lambda: convert(sample(link=5)), r"Sample \(node 2\): input 'model' names a link that the file does not have"),
    (lambda: convert(sample(), links=STRAIGHT[:1]), r"begins at node 1, which the file does not have"),
    (
        lambda: convert(load(), sample(link=None, inputs=[("vae", "VAE", 5)]), links=[(5, 1, 0, 2, 1, "VAE")]),
        r"Sample \(node 2\): something is connected to its input 'vae'.*model, seed, sampler, strength, mask, tiled",
    ),
    (
        lambda: convert(node(3, "Reroute", [("", "*", 1)], ["*"]), sample(), links=[(1, 3, 0, 3, 0, "*")]),
        r"Reroute \(node 3\): input '' is connected in a circle",
    ),
    (
        lambda: convert(
            node(3, "PrimitiveNode", [], ["INT"]),
            sample(link=None, inputs=[("seed", "INT", 1, "widget")]),
            links=[(1, 3, 0, 2, 1, "INT")],
        ),
        r"PrimitiveNode \(node 3\) has no value",
    ),
    (
        lambda: to_api(subgraph(instance([1, 2, 3])), OBJECT_INFO),
        r"\(node 2\): the subgraph has 3 values for 1 widgets",
    ),
    (lambda: to_api({"1": {"class_type": "Load", "inputs": {}}}, OBJECT_INFO), "not a workflow of the editor"),
    (lambda: to_api([], OBJECT_INFO), "not a workflow of the editor"),
]


@pytest.mark.parametrize(("attempt", "message"), ERRORS, ids=range(len(ERRORS)))
def test_errors_name_the_node_and_the_input(attempt, message):
    with pytest.raises(WorkflowError, match=message):
        attempt()


def test_a_subgraph_that_contains_itself_is_refused():
    file = subgraph(instance())
    file["definitions"]["subgraphs"][0]["nodes"].append(node(8, INSIDE, [], ["LATENT"]))
    with pytest.raises(WorkflowError, match="contains itself"):
        to_api(file, OBJECT_INFO)
