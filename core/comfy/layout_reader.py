"""Reads a text that was pasted onto the layout canvas, by the reader of the node Layout, for our part of the page."""

import asyncio
import json

from aiohttp import web
from server import PromptServer

from ..layout.other_programs import read_pasted
from ..layout.region import LayoutError

ADDRESS = "/stagecraft/read_layout"
MOST_BYTES = 2**24  # of a request; a layout of 64 brushed masks of 1024 pixels has a tenth of it


def serve_reader() -> None:
    """Answer {"text", "width", "height"} with {"layout", "whole"} or with {"error"}, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ADDRESS)(answer)


async def answer(request: web.Request) -> web.Response:
    """Read one text; what is wrong with it is said in a sentence, and nothing of it is kept."""
    body = await request.content.read(MOST_BYTES + 1)
    while len(body) <= MOST_BYTES and (more := await request.content.read(MOST_BYTES + 1 - len(body))):
        body += more
    if len(body) > MOST_BYTES:
        return _refusal(f"The text has more than {MOST_BYTES // 2**20} MB. Leave out what is no layout.", 413)
    try:
        asked = json.loads(body)
        text, width, height = asked["text"], asked["width"], asked["height"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return _refusal("Expected an object with text, width and height.", 400)
    if not isinstance(text, str):
        return _refusal("Expected an object whose text is a text.", 400)
    try:
        # In a thread, so that a long text does not hold up the server.
        layout, is_whole = await asyncio.to_thread(read_pasted, text, width, height)
    except LayoutError as error:
        return _refusal(str(error), 422)
    return web.json_response({"layout": layout.to_dict(), "whole": is_whole})


def _refusal(reason: str, status: int) -> web.Response:
    return web.json_response({"error": reason}, status=status)
