"""The editor's format to the API's, one feature of the editor at a time."""

import pytest
from stagecraft.commands.workflow import to_api
from stagecraft.commands.workflow_graph import WorkflowError
from stagecraft.tests.setup.small_workflows import (
    OBJECT_INFO,
    SAMPLE_VALUES,
    STRAIGHT,
    convert,
    instance,
    load,
    node,
    sample,
    save,
    subgraph,
    workflow,
)


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
