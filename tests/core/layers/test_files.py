"""Layered pictures in files: what painting programs will find in them, and that they open again as the same picture."""

import io
import sys
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.core.layers.files import OPENRASTER, PSD, read_layer_file, write_layer_file
from stagecraft.core.layers.layered_image import Layer, LayeredImage
from stagecraft.core.layers.stored import LayerFileError, in_8_bits, stored

HEIGHT, WIDTH = 24, 36
STEP = 1 / 255
FORMATS = pytest.mark.parametrize("suffix", [PSD, OPENRASTER])


def picture(seed=0, layers=3):
    """Soft discs of random colours over noise; one name repeats, one is not ASCII, one is empty."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT) / HEIGHT, torch.arange(WIDTH) / WIDTH, indexing="ij")
    stack = []
    for name in ["dog", "dog", "a café & 猫 <3>", ""][:layers]:
        y, x, radius = (0.2 + 0.6 * torch.rand(3, generator=generator)).tolist()
        alpha = (3 * (radius / 2 - torch.hypot(rows - y, columns - x)) / radius).clamp(0, 1)[None]
        colour = torch.rand(1, HEIGHT, WIDTH, 3, generator=generator) * (alpha > 0)[..., None]
        stack.append(Layer(colour, alpha, name))
    return LayeredImage(torch.rand(1, HEIGHT, WIDTH, 3, generator=generator), stack)


def as_float(image):
    return torch.from_numpy(np.asarray(image, np.float32) / 255)


@FORMATS
def test_a_file_opens_again_as_the_same_picture(tmp_path, suffix):
    image = picture(layers=4)
    write_layer_file(stored(image), tmp_path / f"a{suffix}")
    found = read_layer_file(tmp_path / f"a{suffix}")
    assert [layer.name for layer in found.layers] == ["dog", "dog", "a café & 猫 <3>", "layer 4"]
    expected = in_8_bits(image)
    torch.testing.assert_close(found.background, expected.background, atol=1e-6, rtol=0)
    for read, written in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(read.alpha, written.alpha, atol=1e-6, rtol=0)
        seen = written.alpha > 0
        torch.testing.assert_close(read.colour[seen], written.colour[seen], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.composite(), expected.composite(), atol=1e-6, rtol=0)
    assert (found.composite() - image.composite()).abs().max() < STEP


def test_rounding_many_layers_stays_within_one_step_and_repeats_itself():
    """Eight thin mists over a dark picture, whose opacities all round down: each by itself, the errors add up."""
    alphas = (10.3 + 0.19 * torch.rand(8, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4))) * STEP
    image = LayeredImage(0.2 * picture().background, [Layer(torch.ones(1, HEIGHT, WIDTH, 3), each) for each in alphas])
    found = in_8_bits(image)
    assert (found.composite() - image.composite()).abs().max() < STEP
    alone = [Layer(*(torch.round(v * 255) / 255 for v in (each.colour, each.alpha))) for each in image.layers]
    plain = LayeredImage(torch.round(image.background * 255) / 255, alone)
    assert (plain.composite() - image.composite()).abs().max() > 2 * STEP
    for read, written in zip(found.layers, image.layers, strict=True):
        assert (read.alpha - written.alpha).abs().max() < 1.01 * STEP
        assert (read.colour - written.colour).abs().max() < 1.51 * STEP
    again = in_8_bits(found)
    for first, second in zip(found.layers, again.layers, strict=True):
        seen = first.alpha > 0
        assert torch.equal(first.colour[seen], second.colour[seen]) and torch.equal(first.alpha, second.alpha)


@FORMATS
def test_other_programs_composite_it_alike(tmp_path, suffix):
    """The library's own composite of the layers, and the merged picture for programs that know none: to 1/255."""
    image = in_8_bits(picture(1))
    path = tmp_path / f"a{suffix}"
    write_layer_file(stored(image), path)
    expected = image.composite()[0]
    if suffix == PSD:
        from psd_tools import PSDImage
        from psd_tools.composite import composite

        document = PSDImage.open(path)
        colour, _, _ = composite(document)
        shown = [torch.from_numpy(np.array(colour[..., :3])), as_float(document.topil().convert("RGB"))]
    else:
        with zipfile.ZipFile(path) as archive:
            shown = [as_float(Image.open(archive.open("mergedimage.png")))]
            canvas = Image.new("RGBA", (WIDTH, HEIGHT))
            for element in reversed(ElementTree.fromstring(archive.read("stack.xml")).findall("stack/layer")):
                layer = Image.open(archive.open(element.attrib["src"])).convert("RGBA")
                canvas.alpha_composite(layer, (int(element.attrib["x"]), int(element.attrib["y"])))
            shown.append(as_float(canvas.convert("RGB")))
    for each in shown[:-1]:
        torch.testing.assert_close(each, expected, atol=STEP * 1.01, rtol=0)
    # PIL rounds after every layer, half a step each.
    torch.testing.assert_close(shown[-1], expected, atol=STEP * (1.51 if suffix == OPENRASTER else 1.01), rtol=0)


@FORMATS
def test_hidden_layers_stay_in_the_file_but_not_in_the_picture(tmp_path, suffix):
    image = picture(2)
    second = image.layers[1]
    image = image.with_layer(1, Layer(second.colour, second.alpha, "cat", visible=False))
    write_layer_file(stored(image), tmp_path / f"a{suffix}")
    found = read_layer_file(tmp_path / f"a{suffix}")
    assert [(layer.name, layer.visible) for layer in found.layers][1] == ("cat", False)
    assert (found.composite() - image.composite()).abs().max() < STEP
    assert (found.composite() - picture(2).composite()).abs().max() > 0.1


def test_layers_are_cut_to_where_they_are_not_empty(tmp_path):
    from psd_tools import PSDImage

    alpha = torch.zeros(1, HEIGHT, WIDTH)
    alpha[:, 3:9, 5:20] = 1
    empty = torch.zeros_like(alpha)
    colour = torch.ones(1, HEIGHT, WIDTH, 3)
    image = LayeredImage(0 * colour, [Layer(colour, alpha, "box"), Layer(colour, empty, "nothing")])
    write_layer_file(stored(image), tmp_path / "a.psd")
    boxes = [(0, 0, WIDTH, HEIGHT), (5, 3, 20, 9), (0, 0, 1, 1)]
    assert [layer.bbox for layer in PSDImage.open(tmp_path / "a.psd")] == boxes
    assert read_layer_file(tmp_path / "a.psd").layers[1].alpha.max() == 0


def test_openraster_is_recognised_by_its_first_bytes(tmp_path):
    """What the specification asks for: the type first and as it is, a merged picture, a thumbnail of at most 256."""
    large = LayeredImage(torch.rand(1, 40, 600, 3))
    write_layer_file(stored(large), tmp_path / "a.ora")
    assert (tmp_path / "a.ora").read_bytes()[30:54] == b"mimetypeimage/openraster"
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        assert Image.open(archive.open("mergedimage.png")).size == (600, 40)
        assert Image.open(archive.open("Thumbnails/thumbnail.png")).size == (256, 17)
        assert archive.testzip() is None


def test_a_document_of_another_program_with_groups_masks_and_opacity(tmp_path):
    from psd_tools import PSDImage

    document = PSDImage.new("RGB", (WIDTH, HEIGHT))
    ground = document.create_pixel_layer(Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 255)))
    group = document.create_group(name="things")
    half = Image.new("RGBA", (10, 8), (255, 0, 0, 128))  # in a document without opacity this becomes a mask
    group.append(document.create_pixel_layer(half, name="red", left=4, top=2, opacity=102))
    group.visible = True
    document.save(tmp_path / "a.psd")
    found = read_layer_file(tmp_path / "a.psd")
    assert ground.kind == "pixel" and [layer.name for layer in found.layers] == ["red"]
    alpha = 128 / 255 * 0.4
    torch.testing.assert_close(found.composite()[0, 5, 6], torch.tensor([alpha, 0, 1 - alpha]), atol=1e-5, rtol=0)
    assert torch.equal(found.composite()[0, 0, 0], torch.tensor([0.0, 0, 1]))


def ora(path, xml, **files):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stack.xml", f'<image w="8" h="6"><stack>{xml}</stack></image>')
        for name, data in files.items():
            archive.writestr(f"{name}.png", data)
    return path


def png(colour, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_openraster_file_of_another_program(tmp_path):
    layers = (
        '<stack name="g"><layer name="near" src="b.png" x="2" y="-1" opacity="0.5" visibility="hidden"/></stack>'
        '<layer name="far" src="a.png"/>'
    )
    path = ora(tmp_path / "a.ora", layers, a=png((10, 20, 30, 255)), b=png((255, 0, 0, 255), (3, 3)))
    found = read_layer_file(path)
    assert torch.equal(found.composite(), as_float(Image.new("RGB", (8, 6), (10, 20, 30)))[None])
    (near,) = found.layers
    assert near.name == "near" and not near.visible and float(near.alpha.sum()) == 3  # 3 x 2 pixels, half opaque


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            '<layer name="fog" src="a.png" composite-op="svg:multiply"/>',
            'layer "fog" has the blend mode "svg:multiply"',
        ),
        ('<stack name="g" opacity="0.5"><layer src="a.png"/></stack>', 'group "g" has an opacity of 50%'),
        ('<layer src="gone.png"/>', "cannot be read as OpenRaster"),
        ('<layer src="bad.png"/>', "cannot be read as OpenRaster"),
        ("", "holds no layer"),
        ('<layer src="a.png" x="inf"/>', "cannot be read as OpenRaster"),
        ('<layer src="a.png" x="99999999999"/>', "lies at 99999999999, 0"),
        ('<layer src="a.png" opacity="5"/>', "an opacity of 5;"),
        ('<layer src="a.png" opacity="nan"/>', "an opacity of nan;"),
        ("<stack>" * 5000 + "</stack>" * 5000, "cannot be read as OpenRaster"),
        ("<", "cannot be read as OpenRaster"),
        ('<!DOCTYPE x [<!ENTITY y "z">]>', "document type"),
    ],
)
def test_openraster_files_that_cannot_be_read_are_refused(tmp_path, layers, message):
    path = ora(tmp_path / "a.ora", layers, a=png((0, 0, 0, 255)), bad=b"no picture")
    with pytest.raises(LayerFileError, match=message):
        read_layer_file(path)


@pytest.mark.parametrize("size", ["0", "-4", "10000000"])
def test_impossible_canvases_are_refused(tmp_path, size):
    with zipfile.ZipFile(tmp_path / "a.ora", "w") as archive:
        archive.writestr("stack.xml", f'<image w="{size}" h="6"><stack><layer src="a.png"/></stack></image>')
        archive.writestr("a.png", png((0, 0, 0, 255)))
    with pytest.raises(LayerFileError, match=f"canvas is {size} x 6 pixels; expected 1 to 16384"):
        read_layer_file(tmp_path / "a.ora")


def test_a_documents_second_opacity_counts(tmp_path):
    from psd_tools import PSDImage
    from psd_tools.constants import Tag

    document = PSDImage.new("RGBA", (8, 6), color=255)
    document.create_pixel_layer(Image.new("RGBA", (8, 6), (0, 0, 255, 255)))
    red = document.create_pixel_layer(Image.new("RGBA", (8, 6), (255, 0, 0, 255)), name="red")
    red.tagged_blocks.set_data(Tag.BLEND_FILL_OPACITY, 128)
    document.save(tmp_path / "a.psd")
    found = read_layer_file(tmp_path / "a.psd").composite()[0, 3, 3]
    torch.testing.assert_close(found, torch.tensor([128 / 255, 0, 127 / 255]), atol=1e-3, rtol=0)


def test_documents_that_cannot_be_read_are_refused(tmp_path):
    from psd_tools import PSDImage
    from psd_tools.constants import BlendMode

    document = PSDImage.new("RGB", (WIDTH, HEIGHT))
    layer = document.create_pixel_layer(Image.new("RGB", (4, 4)), name="fog", blend_mode=BlendMode.MULTIPLY)
    document.save(tmp_path / "multiply.psd")
    layer.blend_mode = BlendMode.NORMAL
    layer.clipping = True
    document.save(tmp_path / "clipped.psd")
    PSDImage.new("CMYK", (4, 4)).save(tmp_path / "cmyk.psd")
    PSDImage.new("RGB", (4, 4)).save(tmp_path / "flat.psd")
    (tmp_path / "broken.psd").write_bytes((tmp_path / "multiply.psd").read_bytes()[:200])
    (tmp_path / "broken.ora").write_bytes(b"PK\x03\x04 no zip")
    refused = {
        "multiply.psd": 'layer "fog" has the blend mode "multiply"',
        "clipped.psd": 'layer "fog" is clipped to the layer below',
        "cmyk.psd": "is CMYK with 8 bits; expected RGB",
        "flat.psd": "holds no layer",
        "broken.psd": "cannot be read as a Photoshop document",
        "broken.ora": "cannot be read as OpenRaster",
        "gone.psd": "no file gone.psd",
        "a.tiff": 'suffix ".tiff"; expected .psd or .ora',
    }
    for name, message in refused.items():
        with pytest.raises(LayerFileError, match=message):
            read_layer_file(tmp_path / name)


def test_a_batch_and_another_format_are_refused(tmp_path):
    image = LayeredImage(torch.zeros(2, 4, 4, 3))
    with pytest.raises(LayerFileError, match="2 pictures are one batch; expected one for each file"):
        write_layer_file(stored(image), tmp_path / "a.ora")
    with pytest.raises(LayerFileError, match='suffix ".xcf"'):
        write_layer_file(stored(image.pictures()[0]), tmp_path / "a.xcf")


def test_without_psd_tools_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    with pytest.raises(LayerFileError, match="pip install psd-tools.*or use OpenRaster"):
        write_layer_file(stored(picture()), tmp_path / "a.psd")
    write_layer_file(stored(picture()), tmp_path / "a.ora")
    assert read_layer_file(tmp_path / "a.ora").layers


def test_pngs_lie_over_each_other_without_being_moved():
    image = picture(3)
    layers = stored(image).whole
    assert {layer.picture.size for layer in layers} == {(WIDTH, HEIGHT)}
    canvas = layers[0].picture.convert("RGBA")
    for layer in layers[1:]:
        canvas.alpha_composite(layer.picture)
    torch.testing.assert_close(
        as_float(canvas.convert("RGB")), as_float(stored(image).merged), atol=1.01 * STEP, rtol=0
    )
