"""The rules of the house: where a file may stand, what it may import, and debts that only ever go down.

Every rule is a function from sources (path -> text) to a list of what breaks it, so that each is also tried on a few
lines that do break it.
"""

import ast
import re
from collections.abc import Callable

import pytest
from stagecraft.tests.house.sources import (
    HOST_ROOMS,
    HOSTS,
    HOUSE,
    PACK,
    Sources,
    below,
    circle,
    definitions,
    folder_of,
    functions,
    imports,
    module_of,
    parse,
    promised,
    repository,
)

# These two only ever go down: a value that may be anything is an `object`, and the formatter has its way.
MOST_UNTYPED = 0
MOST_UNFORMATTED = 0
MOST_ARGUMENTS = 10
MOST_FILES = 16  # of a folder of core
MOST_LINES, MOST_TEST_LINES = 300, 320
# A node's schema is a form with as many fields as the node has inputs.
OF_NODES = {"execute", "validate_inputs", "fingerprint_inputs", "define_schema"}
# These hold code: the list of nodes, and a node pack of its own for the evaluation's server.
WITHOUT_INDEX = {
    "nodes/__init__.py",
    "evaluation/baselines/counting/__init__.py",
    "evaluation/baselines/multidiffusion/__init__.py",
}
# The words are written in two parts, so that this file does not count itself.
NOQA, FMT = "no" + "qa", "fm" + "t"
UNTYPED = re.compile(f"# {NOQA}(:.*ANN401|(?!:))")  # without a rule's name it stands for all of them
UNFORMATTED = re.compile(f"# {FMT}: (skip|off)")


def circle_of_files(sources: Sources) -> list[str]:
    return circle(below(sources, *HOUSE), {path: path for path in sources})


def circle_of_folders(sources: Sources) -> list[str]:
    return circle(below(sources, *HOUSE), {path: folder_of(path) for path in sources})


def hosts_in_the_mathematics(sources: Sources) -> list[str]:
    """Imports of a host, or of a host's room, in files of core that stand in no such room."""
    found = []
    for each in imports(below(sources, "core")):
        rooms = HOST_ROOMS & set(module_of(each.path).split("."))
        first, *_ = parts = each.module.split(".")
        if each.relative:
            wrong = not rooms and HOST_ROOMS & set(parts)
        elif first == "diffusers":
            wrong = "diffusers" not in rooms and not each.in_function
        else:
            wrong = first in HOSTS and "comfy" not in rooms
        if wrong:
            found.append(f"{each.path}:{each.line} imports {each.module}")
    return found


def untrue_indices(sources: Sources) -> list[str]:
    """Folders whose `__init__.py` is more than a docstring, or has no index, or names what does not exist."""
    indices = {path: text for path, text in below(sources, *HOUSE).items() if path.endswith("/__init__.py")}
    found = []
    for path in indices.keys() - WITHOUT_INDEX:
        body, names = parse(indices[path]).body, promised(indices[path])
        if len(body) != 1 or not ast.get_docstring(parse(indices[path])):
            found.append(f"{path} is not one docstring")
        if not names and path.count("/") > 1:
            found.append(f"{path} has no index")
        found += [f"{path} names {name}" for name in names if not _exists(name, path, sources)]
    return sorted(found)


def _exists(name: str, index: str, sources: Sources) -> bool:
    folder, parts = index.removesuffix("__init__.py"), name.split(".")
    files = ((folder + "/".join(parts[:count]) + ".py", ".".join(parts[count:])) for count in range(1, len(parts)))
    return any(file in sources and rest in definitions(sources[file]) for file, rest in files)


def full_folders(sources: Sources) -> list[str]:
    folders = [path.rpartition("/")[0] for path in below(sources, "core")]
    return sorted({folder for folder in folders if folders.count(folder) > MOST_FILES})


def untyped(sources: Sources) -> list[str]:
    return _lines_with(UNTYPED, sources)


def unformatted(sources: Sources) -> list[str]:
    return _lines_with(UNFORMATTED, sources)


def _lines_with(remark: re.Pattern, sources: Sources) -> list[str]:
    lines = ((path, number, line) for path, text in sources.items() for number, line in enumerate(text.splitlines(), 1))
    return [f"{path}:{number}" for path, number, line in lines if remark.search(line)]


def long_signatures(sources: Sources) -> list[str]:
    every = functions(below(sources, *PACK))
    return [place for place, node, count in every if count > MOST_ARGUMENTS and node.name not in OF_NODES]


def long_files(sources: Sources) -> list[str]:
    most = {path: MOST_LINES for path in below(sources, "core", "nodes")}
    most |= {path: MOST_TEST_LINES for path in below(sources, "tests")}
    lengths = {path: len(sources[path].splitlines()) for path in most}
    return [f"{path} has {lengths[path]} lines" for path in most if lengths[path] > most[path]]


def absolute_imports(sources: Sources) -> list[str]:
    """Imports by a name that the pack's folder need not have; ComfyUI has a module called `nodes`."""
    ours = {"stagecraft", *PACK} - {"nodes"}
    every = (each for each in imports(below(sources, *PACK)) if not each.relative)
    return [f"{each.path}:{each.line}" for each in every if each.module.split(".")[0] in ours]


Rule = Callable[[Sources], list[str]]
NONE: list[Rule] = [
    circle_of_files,
    circle_of_folders,
    hosts_in_the_mathematics,
    untrue_indices,
    full_folders,
    long_signatures,
    long_files,
    absolute_imports,
]
COUNTED: dict[Rule, int] = {untyped: MOST_UNTYPED, unformatted: MOST_UNFORMATTED}


def name_of(rule: Rule) -> str:
    return rule.__name__


@pytest.fixture(scope="module")
def sources() -> Sources:
    return repository()


@pytest.mark.parametrize("rule", NONE, ids=name_of)
def test_the_house_has_no(rule, sources):
    found = rule(sources)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", COUNTED, ids=name_of)
def test_debts_only_go_down(rule, sources):
    found = rule(sources)
    assert len(found) <= COUNTED[rule], "\n".join(found)


INDEX = '"""A folder.\n\nEq. 1    file.{name}    Eq. 2    file.{name}\n"""\n'
MATHS, ROOM = "core/a/maths.py", "core/a/comfy/run.py"
# For each rule: sources that keep it, and sources that break it.
TRIED: list[tuple[Rule, Sources, Sources]] = [
    (
        circle_of_files,
        {"core/a/b.py": "from .c import x", "core/a/c.py": "import b"},
        {"core/a/b.py": "from .c import x", "core/a/c.py": "def late():\n    from . import b"},
    ),
    (
        circle_of_folders,
        {"core/a/b.py": "from ..d import e", "core/d/e.py": "", "core/d/f.py": "from .e import x"},
        {
            "core/a/b.py": "",
            "core/a/comfy/c.py": "from ...d.e import x",
            "core/d/e.py": "",
            "core/d/f.py": "from ..a import b",
        },
    ),
    (
        hosts_in_the_mathematics,
        {ROOM: "import comfy.sd\nfrom ..maths import x", MATHS: ""},
        {MATHS: "def f():\n    import comfy.sd"},
    ),
    (hosts_in_the_mathematics, {MATHS: ""}, {ROOM: "", MATHS: "if TYPE_CHECKING:\n    from .comfy import run"}),
    (
        hosts_in_the_mathematics,
        {"core/a/diffusers.py": "import diffusers", MATHS: "def f():\n    from diffusers import VQModel"},
        {MATHS: "from diffusers import VQModel"},
    ),
    (hosts_in_the_mathematics, {"core/a/diffusers.py": ""}, {"core/a/diffusers.py": "import folder_paths"}),
    (
        untrue_indices,
        {
            "core/a/__init__.py": INDEX.format(name="Known.method"),
            "core/a/file.py": "class Known:\n    def method(self): ...",
        },
        {"core/a/__init__.py": INDEX.format(name="lost"), "core/a/file.py": "known = lost.other = 1"},
    ),
    (untrue_indices, {"core/__init__.py": '"""Short."""'}, {"core/a/__init__.py": '"""Without an index."""'}),
    (untrue_indices, {"nodes/__init__.py": "NODES = []"}, {"core/__init__.py": '"""Text."""\nfrom .a import b'}),
    (full_folders, {f"core/a/f{n}.py": "" for n in range(16)}, {f"core/a/f{n}.py": "" for n in range(17)}),
    (untyped, {MATHS: "x: object"}, {"tests/test_a.py": f"def f(x: Any): ...  # {NOQA}: E501, ANN401 - why"}),
    (untyped, {MATHS: f"import a  # {NOQA}: F401"}, {MATHS: f"import a  # {NOQA}"}),
    (unformatted, {MATHS: "x = 1"}, {"stage.py": f"x = [1,  2]  # {FMT}: skip"}),
    (
        long_signatures,
        {"nodes/a/b.py": "def execute(a, b, c, d, e, f, g, h, i, j, k): ..."},
        {"commands/a.py": "def long(a, b, c, d, e, f, g, h, i, *, j, k): ..."},
    ),
    (
        long_signatures,
        {MATHS: "class A:\n    def f(self, a, b, c, d, e, f, g, h, i, j): ..."},
        {MATHS: "def f(a, b, c, d, e, f, g, h, i, j, k): ..."},
    ),
    (long_files, {"tests/test_a.py": 320 * "\n"}, {"tests/test_a.py": 321 * "\n"}),
    (long_files, {MATHS: 300 * "\n", "commands/a.py": 900 * "\n"}, {MATHS: 301 * "\n"}),
    (
        absolute_imports,
        {"nodes/a.py": "import nodes\nfrom ..core.a import b"},
        {"nodes/a.py": "from stagecraft.core.a import b"},
    ),
    (absolute_imports, {"tests/a.py": "from stagecraft.core.a import b"}, {"nodes/a.py": "import core.a"}),
]


@pytest.mark.parametrize(
    ("rule", "good", "bad"), TRIED, ids=[f"{name_of(rule)}-{n}" for n, (rule, *_) in enumerate(TRIED)]
)
def test_every_rule_can_be_broken(rule, good, bad):
    assert rule(good) == []
    assert rule(bad)


def test_every_rule_is_tried():
    assert {rule for rule, *_ in TRIED} == {*NONE, *COUNTED}
