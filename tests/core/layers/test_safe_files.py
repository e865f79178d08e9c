"""Files of layers that are made to harm: nothing in them is run, and none fills the memory before it is refused."""

import ast
import io
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError, features
from stagecraft.core.drawing.formats import FORMATS
from stagecraft.core.layers.files import read_layer_file
from stagecraft.core.layers.stored import LayerFileError

ROOT = Path(__file__).resolve().parents[3]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(harm) print\n%%EOF\n"
LITTLE = 2**24  # bytes


def png(width, height):
    """The beginning of a picture of this size, and nothing behind it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def openraster(path, picture, width=8, height=8, layers=1):
    layer = '<layer name="a" src="data/a.png"/>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("stack.xml", f'<image w="{width}" h="{height}"><stack>{layer * layers}</stack></image>')
        archive.writestr("data/a.png", picture)
    return path


def small_picture(kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGBA" if kind == "PNG" else "RGB", (8, 8), "red").save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def programs(monkeypatch):
    """Whoever starts another program is heard."""
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **named: started.append(arguments) or 1 / 0)
    yield started
    assert started == []


@pytest.mark.parametrize("content", [EPS, small_picture("PPM"), small_picture("JPEG")])
def test_layers_are_pngs_and_start_nothing(tmp_path, programs, content):
    with pytest.raises(LayerFileError, match="cannot be read as OpenRaster"):
        read_layer_file(openraster(tmp_path / "a.ora", content))


@pytest.mark.parametrize(
    ("picture", "size", "layers"),
    [
        (small_picture(), (16384, 16384), 1),
        (small_picture(), (8192, 8192), 7),
        (small_picture(), (2**30, 2), 1),
        (small_picture(), (2048, 2048), 300),
        (png(16384, 8192), (8, 8), 5),
        (png(2**31 - 1, 2**31 - 1), (8, 8), 1),
        (png(30000, 30000), (8, 8), 1),
    ],
)
def test_a_small_file_of_a_large_picture_is_refused_before_it_is_decoded(tmp_path, picture, size, layers):
    path = openraster(tmp_path / "a.ora", picture, *size, layers=layers)
    tracemalloc.start()
    try:
        with pytest.raises(LayerFileError, match="megapixels|pixels|exceeds limit"):
            read_layer_file(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LITTLE and path.stat().st_size < LITTLE / 100


@pytest.mark.parametrize(("width", "height"), [(16384, 16384), (30000, 30000)])
def test_a_document_with_a_large_canvas_is_refused_before_it_is_decoded(tmp_path, width, height):
    from psd_tools import PSDImage

    document = PSDImage.new("RGBA", (8, 8))
    for _ in range(3):
        document.create_pixel_layer(Image.new("RGBA", (8, 8), "red"))
    document.save(tmp_path / "a.psd")
    content = bytearray((tmp_path / "a.psd").read_bytes())
    content[14:22] = struct.pack(">II", height, width)
    (tmp_path / "a.psd").write_bytes(content)
    with pytest.raises(LayerFileError, match="megapixels|expected 1 to"):
        read_layer_file(tmp_path / "a.psd")


def test_every_picture_is_opened_as_one_of_the_formats_that_start_nothing():
    """In the whole repository but its tests."""
    without = []
    for path in ROOT.rglob("*.py"):
        if "tests" in path.relative_to(ROOT).parts or ".part" in path.name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                without += [] if any(each.arg == "formats" for each in node.keywords) else [f"{path}:{node.lineno}"]
    assert not without
    with pytest.raises(UnidentifiedImageError):  # and not a KeyError of a format that this Pillow lacks
        Image.open(io.BytesIO(EPS), formats=FORMATS)
    known = {"EPS", "WMF", "PDF", "FPX", "MIC"}
    assert not known & set(FORMATS) and (features.check("webp") or "WEBP" in FORMATS)
