"""OpenRaster files (https://www.openraster.org): a zip of PNGs and one small XML file.

The only Python library, pyora, had its last release in 2021, so the standard library does it here.
"""

import io
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from .stored import LayerFileError, StoredLayer, require_normal, require_opaque_group, require_size

MIME = "image/openraster"
OVER = "svg:src-over"  # its name for I = m F + (1 - m) B
THUMBNAIL = 256  # pixels of the longer side
LARGEST_XML = 2**20  # bytes; thousands of layers need less


def write_openraster(path: Path, layers: Iterable[StoredLayer], merged: Image.Image) -> None:
    """Save layers, lowest first, and their composite.

    Args:
        path: the file.
        layers: with RGB or RGBA pictures.
        merged: RGB, of the canvas' size; programs that know no layers show it.
    """
    width, height = merged.size
    root = ElementTree.Element("image", version="0.0.3", w=str(width), h=str(height), xres="72", yres="72")
    stack = ElementTree.SubElement(root, "stack")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        # First and not compressed, so that programs recognise the file by its first bytes.
        archive.writestr("mimetype", MIME)
        for number, layer in enumerate(layers):
            source = f"data/layer{number:03}.png"
            archive.writestr(source, _png(layer.picture))
            element = ElementTree.Element("layer", name=layer.name, src=source, x=str(layer.left), y=str(layer.top))
            shown = "visible" if layer.visible else "hidden"
            element.attrib |= {"opacity": str(layer.opacity), "composite-op": OVER, "visibility": shown}
            stack.insert(0, element)  # the file lists the nearest first
        archive.writestr("stack.xml", ElementTree.tostring(root, "utf-8", xml_declaration=True))
        archive.writestr("mergedimage.png", _png(merged))
        small = merged.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        archive.writestr("Thumbnails/thumbnail.png", _png(small))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def read_openraster(path: Path) -> tuple[list[StoredLayer], tuple[int, int]]:
    """Open a file: its layers, lowest first and taken out of their groups, and the canvas' width and height.

    Raises:
        LayerFileError: a broken file, or a blend mode other than normal.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = ElementTree.fromstring(_stack_xml(archive))
            stack = root.find("stack")
            canvas = int(root.attrib["w"]), int(root.attrib["h"])
            sources = [] if stack is None else [each.attrib["src"] for each in stack.iter("layer")]
            require_size(canvas, [_size(archive, source) for source in sources])
            layers = list(_layers(stack, archive, True)) if stack is not None else []
            return layers[::-1], canvas
    except LayerFileError:
        raise
    except (
        zipfile.BadZipFile,
        ElementTree.ParseError,
        Image.DecompressionBombError,
        zlib.error,
        KeyError,
        ValueError,
        OverflowError,
        OSError,
        RuntimeError,  # encrypted, a compression that zipfile does not know, or groups in each other without end
    ) as error:
        raise LayerFileError(f"{path.name} cannot be read as OpenRaster: {error}. Save it again.") from error


def _stack_xml(archive: zipfile.ZipFile) -> bytes:
    if archive.getinfo("stack.xml").file_size > LARGEST_XML:
        raise ValueError(f"its stack.xml has more than {LARGEST_XML} bytes")
    text = archive.read("stack.xml")
    # OpenRaster has no entities; a file that defines some is made to fill the memory.
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("its stack.xml has a document type")
    return text


def _size(archive: zipfile.ZipFile, source: str) -> tuple[int, int]:
    """Width and height, from the first bytes of a PNG; other pictures are refused."""
    with archive.open(source) as file, Image.open(file, formats=["PNG"]) as picture:
        return picture.size


def _layers(stack: ElementTree.Element, archive: zipfile.ZipFile, visible: bool) -> Iterator[StoredLayer]:
    """Nearest first, as the file lists them."""
    for element in stack:
        name, opacity = element.get("name", ""), float(element.get("opacity", "1"))
        require_normal(name, element.get("composite-op", OVER), (OVER,))
        seen = visible and element.get("visibility", "visible") == "visible"
        if element.tag == "stack":
            require_opaque_group(name, opacity)
            yield from _layers(element, archive, seen)
        elif element.tag == "layer":
            left, top = (int(float(element.get(key, "0"))) for key in "xy")
            with archive.open(element.attrib["src"]) as file, Image.open(file, formats=["PNG"]) as picture:
                yield StoredLayer(name, picture.convert("RGBA"), left, top, seen, opacity)
