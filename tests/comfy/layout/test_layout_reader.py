"""The address at which the page lets a pasted text be read, on a real web server."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from stagecraft.core.comfy.layout_reader import ADDRESS, MOST_BYTES, answer
from stagecraft.core.layout.reading import layout_from_data

PLAIN = {"width": 128, "height": 64}


def ask(body):
    """Status and answer to a request with this body."""

    async def asked():
        app = web.Application(client_max_size=10 * MOST_BYTES)
        app.router.add_post(ADDRESS, answer)
        async with TestClient(TestServer(app)) as client:
            response = await client.post(ADDRESS, data=body)
            return response.status, await response.json()

    # In a thread of its own: where a browser is driven beside this test, the main one has a loop that runs.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asked()).result()


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("a dog: 0 0 0.5 1", False),
        ("a dog left of a cat", False),
        ('Here:\n```json\n{"prompt": "a dog", "regions": [{"phrase": "a dog", "box": [0, 0, 0.5, 1]}]}\n```', True),
        ('[{"phrase": "a dog", "box": [0, 0, 0.5, 1]}]', False),
        ('{"phrases": ["a dog"], "boxes": [[0, 0, 0.5, 1]], "prompt": "x"}', False),
    ],
)
def test_a_text_is_read_as_the_node_layout_reads_it(text, is_whole):
    status, found = ask(json.dumps({"text": text, **PLAIN}))
    assert status == 200 and found["whole"] is is_whole
    layout = layout_from_data(found["layout"])
    assert (layout.width, layout.height) == (128, 64) and layout.regions[0].phrase == "a dog"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("no json", 400, "Expected an object"),
        ("[]", 400, "Expected an object"),
        (json.dumps({"text": "a"}), 400, "Expected an object"),
        (json.dumps({"text": 5, **PLAIN}), 400, "is a text"),
        ("[" * 10**5, 400, "Expected an object"),
        (json.dumps({"text": "a dog: 0 0 2", **PLAIN}), 422, "four numbers"),
        (json.dumps({"text": "a dog: 0 0 1 1", "width": "wide", "height": 64}), 422, "width is 'wide'"),
        (json.dumps({"text": "a dog: 0 0 1 1", "width": 10**9, "height": 64}), 422, "from 16 to 16384"),
        (json.dumps({"text": "", **PLAIN}), 422, "empty"),
        (b" " * (MOST_BYTES + 1), 413, "more than 16 MB"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(body, status, reason):
    found, said = ask(body)
    assert found == status and reason in said["error"]
