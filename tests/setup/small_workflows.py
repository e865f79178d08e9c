"""Files of the editor on nodes small enough to read: in a straight line, and with a subgraph."""

from stagecraft.commands.workflow import to_api

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
