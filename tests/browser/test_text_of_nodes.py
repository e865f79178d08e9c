"""What a node says is text: markup in the name of a region neither runs nor vanishes, wherever the page shows it."""

import pytest

MARKUP = '<img src=x onerror="window.hacked=1">'
# What else the page reads in a text: entities, links, pictures, and the mark that it puts in the place of a link.
SIGNS = "&lt;b&gt; [[a|http://b]] ![c](http://127.0.0.1:9/e.png) __LNK7__"
GRAPH = """(phrase) => {
    const add = (type, values) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        for (const [name, value] of Object.entries(values))
            node.widgets.find((each) => each.name === name).value = value;
        return node;
    };
    // Another colour each time: a node whose inputs are known is not run again, and says nothing.
    const empty = add("EmptyImage", { width: 64, height: 64, color: Date.now() % 2 ** 24 });
    const regions = [{ phrase, box: [0.1, 0.1, 0.6, 0.6] }];
    const layout = add("StageLayout", { layout: JSON.stringify({ width: 64, height: 64, regions }) });
    const score = add("StageLayoutScore", {});
    score.pos = [0, 0];
    empty.connect(0, score, score.findInputSlot("image"));
    layout.connect(0, score, score.findInputSlot("layout"));
    add("StageSegmenterLoader", {}).connect(0, score, score.findInputSlot("segmenter"));
    return app.queuePrompt(0) }"""


def queue(editor, server, phrase):
    """Run a graph with a region of this name; give what became of it and the page's requests meanwhile."""
    asked = []
    editor.load()
    editor.problems.clear()
    editor.page.on("request", lambda request: asked.append(request.url))
    editor.page.evaluate("() => { delete window.hacked }")
    known = set(server.get_json("/history"))
    editor.page.evaluate(GRAPH, phrase)
    entry = server.wait_for_new(known, 120)
    editor.page.wait_for_timeout(1500)  # for a script, or a picture, that must not come
    return entry["status"]["status_str"], asked


def printed(text):
    """A text without the signs that nobody sees, which keep the page from reading markup in it."""
    return text.replace("\u200b", "").replace("\u2060", "")


@pytest.mark.parametrize("rendering", ["classic", "vue"])
@pytest.mark.parametrize("front_end", ["pinned", "newest"])
@pytest.mark.parametrize(
    "phrase", [f"a panda {MARKUP}", f"a panda {SIGNS}", MARKUP], ids=["markup", "signs", "refused"]
)
def test_what_a_region_is_called_is_text_on_the_page(editors, request, front_end, rendering, phrase):
    server = request.getfixturevalue(front_end)
    editor = editors.get(server, rendering)
    status, asked = queue(editor, server, phrase)
    shown = printed(editor.page.evaluate("document.body.innerText"))
    editor.page.keyboard.press("Escape")  # what says the error
    assert status == ("error" if phrase == MARKUP else "success")
    assert editor.page.evaluate("window.hacked") is None
    assert [url for url in asked if url.endswith(("/x", "/e.png"))] == []
    # The newest front end takes a node's text away as soon as the run is over.
    if front_end == "pinned":
        assert phrase in shown
    assert not editor.problems
