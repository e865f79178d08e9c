"""Text that nodes show in the browser, as the real server sends it: read by people, never run."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest
from server import PromptServer
from stagecraft.core.comfy.progress import JOINER, show_text

WORDS = (
    "<img src=x onerror=alert(1)>",
    "a dog</span><script>alert(1)</script>",
    "<<img src=x onerror=alert(1)//",
    "<!-- hidden --> <?php ?> <![CDATA[x]]>",
    "&lt;b&gt; &#60;b&#62; &amp; R&D",
    'https://a.b/[[" onmouseover="alert(1)" x="|y]]',
    "[[[label|https://a.b]]] __LNK0__ ___LNK1__",
    "![a picture](http://127.0.0.1/x.png) [a link](javascript:alert(1)) __bold__",
    "a café & 猫 <3\nsecond line, 3 < 4 > 2 'quoted' \"twice\"",
)


class Reader(HTMLParser):
    """What a browser makes of HTML: letters that people see, and everything else."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.seen, self.other = "", []
        self.feed(text)
        self.close()

    def handle_data(self, data):
        self.seen += data

    def handle_starttag(self, tag, attrs):
        self.other.append(tag)

    handle_endtag = handle_comment = handle_decl = handle_pi = unknown_decl = lambda self, data: self.other.append(data)


@pytest.fixture
def server(monkeypatch):
    """ComfyUI's own, without its socket."""
    made = object.__new__(PromptServer)
    made.loop, made.messages = asyncio.new_event_loop(), asyncio.Queue()
    monkeypatch.setattr(PromptServer, "instance", made, raising=False)
    yield made
    made.loop.close()


@pytest.mark.parametrize("text", WORDS)
def test_text_on_a_node_is_read_and_never_run(server, text):
    show_text("7", text)
    # In a thread of its own: where a browser is driven beside this test, the main one has a loop that runs.
    with ThreadPoolExecutor(1) as pool:
        _, message, _ = pool.submit(server.loop.run_until_complete, server.messages.get()).result()
    sent = message[5:].decode()  # behind the node's id and its length
    # The front ends of both years show it: one puts it into the page as HTML, the other as plain text.
    read = Reader(sent)
    assert read.other == []
    assert read.seen.replace(JOINER, "") == sent.replace(JOINER, "") == text
    # The first makes links of these before that, a third one reads Markdown.
    assert not re.search(r"\[\[[^|\]]+\|[^\]]+\]\]|__LNK\d+__|\]\(", sent)
