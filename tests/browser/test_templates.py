"""The shipped workflows in the editor's own template browser, in the pinned and in the newest front end."""

import pytest
from stagecraft.commands.environment import CLONE

NAMES = sorted(path.stem for path in (CLONE / "workflows").glob("*.json"))
SHOWN = "[...document.querySelectorAll('[role=dialog] img')].filter((image) => image.naturalWidth).map(({alt}) => alt)"


@pytest.mark.parametrize(("front_end", "rendering"), [("pinned", "classic"), ("newest", "vue")])
def test_the_template_browser_lists_every_workflow_with_its_picture(request, editors, front_end, rendering):
    editor = editors.get(request.getfixturevalue(front_end), rendering)
    page = editor.page
    listed = page.request.get(f"{editor.address}/api/workflow_templates").json()
    (pack,) = (pack for pack, names in listed.items() if sorted(names) == NAMES)
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = page.get_by_role("dialog").last
    dialog.get_by_text(pack).first.click()
    dialog.get_by_alt_text("recompose").first.hover()
    found = set()
    for _ in range(40):  # cards are made, and their pictures fetched, as one scrolls down to them
        found |= set(page.evaluate(SHOWN))
        if found >= set(NAMES):
            break
        page.mouse.wheel(0, 200)
        page.wait_for_timeout(250)
    page.keyboard.press("Escape")
    assert found >= set(NAMES)
