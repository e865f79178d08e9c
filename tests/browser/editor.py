"""ComfyUI's graph editor in a browser, with a layout canvas in it, driven the way a person drives it."""

import json
import time
from collections.abc import Mapping

from stagecraft.commands.browser import PATIENCE, open_editor

WIDTH, HEIGHT = 1500, 1000  # of the page, pixels
STEP_PATIENCE = 20_000  # milliseconds for a step of the graph editor to show
BLANK = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "version": 0.4}
# The canvas node of the open graph.
NODE = 'app.graph.nodes.find((node) => node.type === "StageLayoutCanvas")'
# Of a node in a graph that is not on the screen, the classical rendering keeps the canvas in the page, hidden.
SURFACE, PHRASES = ".stage-surface:visible", ".stage-row .stage-phrase:visible"


class Editor:
    """One page with the graph editor.

    Attributes:
        page: Playwright's page.
        problems: what the page's scripts raised.
    """

    def __init__(self, context, address, rendering):
        self.address = address
        self.rendering = rendering
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.problems = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.open()

    def open(self):
        """Load the page, again where it is loaded already."""
        # Both renderings share the server's settings, so they are set anew before each load.
        open_editor(self.page, self.address, "StageLayoutCanvas", vue=self.rendering == "vue")

    def load(self, workflow: Mapping = BLANK):
        """Open a workflow in the editor."""
        self.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
        self.show()

    def add_canvas(self, value=None):
        """Start a new workflow with one canvas in it."""
        self.load()
        self.problems.clear()  # those of an earlier test are not this one's
        self.page.evaluate(
            "(value) => { const node = LiteGraph.createNode('StageLayoutCanvas'); app.graph.add(node);"
            " if (value !== null) node.widgets[0].value = value }",
            value,
        )
        self.show()
        # The graph editor notes a step for its undo whenever the mouse is let go anywhere.
        self.page.evaluate("() => { window.dispatchEvent(new MouseEvent('mouseup')) }")

    def show(self):
        """Bring the canvas node into view, as large as it is."""
        if self.page.evaluate(f"!!{NODE}"):
            self.bring(NODE)

    def show_inside(self):
        """The same in a subgraph that is open."""
        self.bring("app.canvas.graph.nodes[0]")

    def bring(self, node):
        """Bring a canvas node into view."""
        self.page.evaluate(
            f"() => {{ const [x, y] = {node}.pos; app.canvas.ds.scale = 1; app.canvas.ds.offset = [130 - x, 130 - y];"
            " app.canvas.setDirty(true, true) }"
        )
        # Of a workflow that was left, another canvas may still be there for a moment.
        surfaces = "[...document.querySelectorAll('.stage-surface')].filter((each) => each.checkVisibility())"
        self.page.wait_for_function(f"{surfaces}.length === 1")
        self.surface.wait_for()
        self.settle()

    @property
    def surface(self):
        """What is drawn on."""
        return self.page.locator(SURFACE)

    def settle(self):
        """Wait until the surface has stopped moving and the canvas has been drawn.

        A busy machine draws seldom, so that a place is only final where frames have passed and it is the same still.
        """
        last, same = None, 0
        for _ in range(50):
            found = self.surface.evaluate(
                "(element) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {"
                " const { x, y, width, height } = element.getBoundingClientRect();"
                " const { view, size } = element.stageSurface;"
                " done([x, y, width, height, view.x, view.y, view.scale, ...size]) })))"
            )
            same = same + 1 if found == last else 0
            if same == 2:
                return
            last = found
            time.sleep(0.1)

    @property
    def text(self):
        """The value of the widget."""
        return self.page.evaluate(f"{NODE}.widgets.find((widget) => widget.name === 'layout').value")

    @property
    def layout(self):
        """The value of the widget, read."""
        return json.loads(self.text)

    @property
    def phrases(self):
        """The phrases in the list, nearest first."""
        return self.page.locator(PHRASES).evaluate_all("(all) => all.map((each) => each.value)")

    def wait_for_phrases(self, *phrases):
        """Wait until the list, and the canvas that is shown, have these phrases, nearest first."""
        deadline = time.monotonic() + STEP_PATIENCE / 1000
        while self.phrases != list(phrases) or self.surface.count() != 1:
            assert time.monotonic() < deadline, f"{self.phrases} are shown, not {phrases}"
            self.page.wait_for_timeout(50)

    def at(self, x, y):
        """Where a pixel of the layout's canvas is on the page."""
        place = self.surface.bounding_box()
        found = self.surface.evaluate(
            "(element, [x, y]) => { const { view, size } = element.stageSurface;"
            " return [(x * view.scale + view.x) / size[0], (y * view.scale + view.y) / size[1]] }",
            [x, y],
        )
        return place["x"] + found[0] * place["width"], place["y"] + found[1] * place["height"]

    def drag(self, *points, steps=4):
        """Press the mouse at the first of some pixels of the layout's canvas, and let go at the last."""
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=steps)
        self.page.mouse.up()

    def press(self, *keys):
        """Press keys, with the surface in focus."""
        self.surface.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def draw(self, phrase, x0, y0, x1, y1):
        """Draw a box and name it, without anything but a mouse and a keyboard."""
        self.press("b")
        self.drag((x0, y0), (x1, y1))
        self.page.keyboard.type(phrase)
        self.page.keyboard.press("Enter")

    def tool(self, name):
        """Press a button of the bar."""
        self.page.locator(f'.stage-toolbar [data-command="{name}"]').click()
