"""Our files on ComfyUI's page, whatever the pack's folder is called.

ComfyUI serves a pack's files below the name of its folder. Its web server compares that name, as an address spells it
("my%20pack"), with the address as it is read ("my pack"), so a folder with a space or a letter beyond ASCII lost the
layout canvas, the help pages and the templates, and nothing said so.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from server import PromptServer


def serve_files(name: str, folders: Mapping[str, Path]) -> None:
    """Serve folders below a name that ComfyUI itself would not find again; other names are left to it.

    Args:
        name: of the pack's folder in custom_nodes.
        folders: the first part of the addresses, "extensions", and what lies below it and the name.
    """
    server = getattr(PromptServer, "instance", None)
    if server is None or quote(name) == name:
        return
    # An address that has been read keeps this one sign as it was spelled. Numbers need no further escapes.
    spelled = "".join(f"\\U{ord(letter):08x}" for letter in name.replace("%", "%25"))
    for start, folder in folders.items():
        server.routes.get(f"/{start}/{{pack:{spelled}}}/{{path:.+}}")(_sender(folder.resolve()))


def _sender(folder: Path) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    async def send(request: web.Request) -> web.FileResponse:
        path = (folder / request.match_info["path"]).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)

    return send
