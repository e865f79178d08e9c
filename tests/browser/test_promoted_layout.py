"""A layout that is promoted to the node of a subgraph: drawn there, shown inside, kept, undone and queued."""

import json

import pytest
from stagecraft.tests.browser.editor import BLANK, HEIGHT, WIDTH, Editor
from stagecraft.tests.browser.test_editing import TWO
from stagecraft.tests.browser.test_graph_editor import press_until
from stagecraft.tests.browser.test_odd_values import drawn

ROOT = "(app.graph.rootGraph ?? app.rootGraph ?? app.graph)"
HOST = f"{ROOT}.nodes.find((node) => node.subgraph)"
# Wraps the node that is given and connects its layout to the new subgraph's own input.
PROMOTE = """(node) => {
    const { node: host, subgraph } = app.graph.convertToSubgraph(new Set([node]));
    const [inner] = subgraph.nodes;
    const input = inner.inputs.find((each) => (each.widget?.name ?? each.name) === "layout");
    if (input.link == null) subgraph.inputNode.emptySlot.connect(input, inner);
    return host }"""


@pytest.fixture(params=["classic", "vue"])
def rendering(request):
    return request.param


@pytest.fixture(params=["pinned", "newest"])
def promoted(request, browser, rendering):
    """A page of its own with a promoted canvas: older front ends keep what was inside a subgraph that is gone."""
    server = request.getfixturevalue(request.param)
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    editor = Editor(context, server.url, rendering)
    editor.server = server
    editor.add_canvas(json.dumps(TWO))
    editor.page.evaluate(f"void ({PROMOTE})({ROOT}.nodes[0])")
    editor.bring(HOST)
    editor.page.evaluate("() => { window.dispatchEvent(new MouseEvent('mouseup')) }")  # a step for the graph's undo
    yield editor
    assert not editor.problems
    context.close()


def queued(editor):
    """The phrases that each canvas of the graph would be queued with."""
    output = editor.page.evaluate("app.graphToPrompt().then((prompt) => prompt.output)")
    layouts = [node["inputs"]["layout"] for node in output.values() if node["class_type"] == "StageLayoutCanvas"]
    return [[region["phrase"] for region in json.loads(layout)["regions"]] for layout in layouts]


def step_into(editor, host):
    editor.page.evaluate(f"() => {{ const host = {host}; app.canvas.openSubgraph(host.subgraph, host) }}")
    editor.show_inside()


def step_out(editor):
    editor.page.evaluate(f"app.canvas.setGraph({ROOT})")
    editor.bring(HOST)


def reload(editor):
    """Save the graph, open an empty one, and open what was saved."""
    saved = json.loads(editor.page.evaluate(f"JSON.stringify({ROOT}.serialize())"))
    editor.load(BLANK)
    editor.page.evaluate("(workflow) => app.loadGraphData(workflow)", saved)


def test_it_is_drawn_on_outside_shown_inside_saved_and_queued(promoted):
    assert promoted.phrases == ["a cat", "a dog"]
    # Not what the node was made with, which has the same phrases.
    assert json.loads(promoted.page.evaluate(f"{HOST}.widgets[0].value")) == TWO
    assert drawn(promoted) > 0.1
    promoted.draw("a kite", 300, 40, 420, 120)
    promoted.wait_for_phrases("a kite", "a cat", "a dog")
    everything = ["a dog", "a cat", "a kite"]
    assert queued(promoted) == [everything]

    step_into(promoted, HOST)
    promoted.wait_for_phrases("a kite", "a cat", "a dog")
    assert drawn(promoted) > 0.1
    promoted.page.get_by_role("status").filter(has_text="drawn outside on the subgraph's node").wait_for()
    # What would be drawn here would be lost.
    assert promoted.surface.evaluate("(surface) => surface.closest('.stage-canvas').inert")

    step_out(promoted)
    reload(promoted)
    promoted.bring(HOST)
    promoted.wait_for_phrases("a kite", "a cat", "a dog")
    assert queued(promoted) == [everything]
    known = set(promoted.server.get_json("/history"))
    promoted.page.evaluate(
        f"""() => {{
            const host = {HOST};
            const preview = LiteGraph.createNode("PreviewImage");
            {ROOT}.add(preview);
            const [inner] = host.subgraph.nodes;
            host.subgraph.outputNode.emptySlot.connect(inner.outputs[inner.findOutputSlot("preview")], inner);
            host.connect(0, preview, 0);
            return app.queuePrompt(0) }}"""
    )
    entry = promoted.server.wait_for_new(known, 120)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (layout,) = [each["inputs"]["layout"] for each in entry["prompt"][2].values() if "layout" in each["inputs"]]
    assert [region["phrase"] for region in json.loads(layout)["regions"]] == everything


def test_the_undo_of_the_graph_reaches_it(promoted):
    value = f"{HOST}?.widgets?.[0]?.value"
    before = promoted.page.evaluate(value)
    promoted.draw("a kite", 300, 40, 420, 120)
    press_until(promoted, "Control+z", before, value)
    promoted.bring(HOST)
    promoted.wait_for_phrases("a cat", "a dog")
    assert queued(promoted) == [["a dog", "a cat"]]


def test_two_nodes_of_a_subgraph_have_drawings_of_their_own(promoted):
    promoted.draw("a kite", 300, 40, 420, 120)
    promoted.page.evaluate(
        f"""(text) => {{
            app.canvas.selectNode({HOST}); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard();
            {ROOT}.nodes[1].widgets[0].value = text }}""",
        json.dumps(TWO),
    )
    both = [["a dog", "a cat", "a kite"], ["a dog", "a cat"]]
    assert queued(promoted) == both
    for index, shown in ((1, ["a cat", "a dog"]), (0, ["a kite", "a cat", "a dog"])):
        step_into(promoted, f"{ROOT}.nodes[{index}]")
        promoted.wait_for_phrases(*shown)
        promoted.page.evaluate(f"app.canvas.setGraph({ROOT})")
    saved = json.loads(promoted.page.evaluate(f"JSON.stringify({ROOT}.serialize())"))
    promoted.page.evaluate("(workflow) => app.loadGraphData(workflow)", saved)
    promoted.page.wait_for_function(f"{ROOT}.nodes.length === 2")
    assert queued(promoted) == both


def test_it_can_be_promoted_twice_and_taken_back(promoted):
    promoted.page.evaluate(f"void ({PROMOTE})({HOST})")
    promoted.bring(HOST)
    promoted.draw("a kite", 300, 40, 420, 120)
    assert queued(promoted) == [["a dog", "a cat", "a kite"]]
    reload(promoted)
    promoted.bring(HOST)
    for host in (HOST, "app.canvas.graph.nodes[0]"):
        step_into(promoted, host)
        promoted.wait_for_phrases("a kite", "a cat", "a dog")
    # Without its link the canvas inside is itself again.
    promoted.page.evaluate(
        "() => { const [node] = app.canvas.graph.nodes;"
        " node.disconnectInput(node.inputs.findIndex((each) => each.link != null)) }"
    )
    promoted.page.wait_for_function("() => !app.canvas.graph.nodes[0].widgets[0].element.inert")
    promoted.draw("a tree", 16, 16, 60, 120)
    assert queued(promoted)[0][-1] == "a tree"


def test_beside_another_input_it_keeps_its_own_text(promoted):
    promoted.page.evaluate(
        f"""(text) => {{
            app.graph.clear();
            const [sampler, canvas] = ["KSampler", "StageLayoutCanvas"].map((type) => LiteGraph.createNode(type));
            for (const node of [sampler, canvas]) app.graph.add(node);
            canvas.widgets[0].value = text;
            const {{ subgraph }} = app.graph.convertToSubgraph(new Set([sampler, canvas]));
            for (const [type, name] of [["KSampler", "steps"], ["StageLayoutCanvas", "layout"]]) {{
                const node = subgraph.nodes.find((each) => each.type === type);
                const input = node.inputs.find((each) => (each.widget?.name ?? each.name) === name);
                if (input.link == null) subgraph.inputNode.emptySlot.connect(input, node);
            }}
            subgraph.renameInput(subgraph.inputs.at(-1), "my drawing");
            app.canvas.setGraph({ROOT}) }}""",
        json.dumps(TWO),
    )
    promoted.bring(HOST)
    promoted.draw("a kite", 300, 40, 420, 120)
    promoted.page.evaluate(
        f"""(text) => {{
            app.canvas.selectNode({HOST}); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard();
            {ROOT}.nodes[1].widgets.find((widget) => widget.element).value = text }}""",
        json.dumps(TWO),
    )
    both = [["a dog", "a cat", "a kite"], ["a dog", "a cat"]]
    assert queued(promoted) == both
    saved = json.loads(promoted.page.evaluate(f"JSON.stringify({ROOT}.serialize())"))
    # So every front end reads what another one has saved.
    values = [node["widgets_values"] for node in saved["nodes"]]
    assert all(20 in each for each in values), "the sampler's steps"
    texts = [json.loads(next(value for value in each if isinstance(value, str)))["regions"] for each in values]
    assert [[region["phrase"] for region in regions] for regions in texts] == both
    promoted.page.evaluate("(workflow) => app.loadGraphData(workflow)", saved)
    promoted.page.wait_for_function(f"{ROOT}.nodes.length === 2")
    assert queued(promoted) == both


def test_it_is_shown_as_long_as_its_node_has_it(promoted):
    inside = f"const {{ subgraph }} = {HOST}; const [node] = subgraph.nodes;"
    is_gone = "![...document.querySelectorAll('.stage-surface')].some((each) => each.checkVisibility())"
    promoted.page.evaluate(
        f"() => {{ {inside} node.disconnectInput(node.inputs.findIndex((each) => each.link != null)) }}"
    )
    # Older front ends leave a widget where it is when its link inside is cut, newer ones take it away.
    promoted.page.wait_for_timeout(500)
    promoted.page.wait_for_function(f"!{HOST}.widgets.length === {is_gone}")
    promoted.page.evaluate(
        f"() => {{ {inside} const input = node.inputs.find((each) => (each.widget?.name ?? each.name) === 'layout');"
        " subgraph.inputNode.slots[0].connect(input, node) }"
    )
    promoted.bring(HOST)
    promoted.draw("a kite", 300, 40, 420, 120)
    assert queued(promoted) == [["a dog", "a cat", "a kite"]]
    promoted.page.evaluate(f"{ROOT}.remove({HOST})")
    promoted.page.wait_for_function(is_gone)


def test_it_fills_the_window_and_is_dragged_and_saved_from_there(promoted):
    promoted.press("w")
    promoted.settle()
    promoted.draw("a kite", 304, 40, 424, 120)
    promoted.drag((364, 80), (364, 120))
    moved = [0.59375, 0.15625, 0.828125, 0.3125]
    assert json.loads(promoted.page.evaluate(f"{HOST}.widgets[0].value"))["regions"][2]["box"] == moved
    promoted.press("w")
    reload(promoted)
    promoted.bring(HOST)
    promoted.wait_for_phrases("a kite", "a cat", "a dog")
    assert drawn(promoted) > 0.1
