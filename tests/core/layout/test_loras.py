"""LoRAs in a layout: lines and JSON say the same, and what cannot be meant is refused by a sentence."""

import pytest
from stagecraft.core.layout.layout import LayoutError, refuse_loras
from stagecraft.core.layout.reading import layout_from_data, parse_layout
from stagecraft.core.layout.region import Region, read_loras

BOX = (0.1, 0.2, 0.5, 0.9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("neon", [("neon", 1.0)]),
        ("neon:0.8", [("neon", 0.8)]),
        (" looks/neon.safetensors : -0.5 , pixels:2", [("looks/neon.safetensors", -0.5), ("pixels", 2.0)]),
        ("neon:0", []),
        ("neon:0, pixels:0.5", [("pixels", 0.5)]),
        ("v1:2 style:0.3", [("v1:2 style", 0.3)]),
    ],
)
def test_names_and_strengths(text, expected):
    assert read_loras(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neon:strong", r'lora="neon:strong" with the strength "strong"; expected a number .* such as neon:0.8'),
        ("neon:", r'with the strength ""; expected a number'),
        ("neon:nan", r'strength "nan"'),
        ("neon:1e9", r'strength "1e9"; expected a number from -100 to 100'),
        (":0.8", "a LoRA has no name"),
        ("neon:0.8,", "a LoRA has no name"),
    ],
)
def test_what_cannot_be_meant(text, message):
    with pytest.raises(LayoutError, match=message):
        Region("a dog", BOX, lora=text)
    with pytest.raises(LayoutError, match=f'The region "a dog" has .*{message}|{message}'):
        parse_layout(f"a dog: 0 0 0.5 1 | lora={text}")


def test_only_text_says_a_lora():
    data = {"phrase": "a dog", "box": BOX, "lora": 0.8}
    with pytest.raises(LayoutError, match="lora is 0.8; expected text"):
        Region.from_dict(data)


def test_lines_and_json_say_the_same():
    line = "a dog: 0.1 0.2 0.5 0.9 | a fluffy dog | lora=neon:0.8 | strength=2 | lora=pixels:0.5"
    layout = parse_layout(f"{line}\na cat: 0.6 0.2 0.9 0.9")
    assert [region.lora for region in layout.regions] == ["neon:0.8, pixels:0.5", ""]
    data = layout.to_dict()
    assert data["regions"][0]["lora"] == "neon:0.8, pixels:0.5"
    assert "lora" not in data["regions"][1]
    assert layout_from_data(data) == layout


def test_methods_without_a_pass_for_each_region_say_so():
    refuse_loras([parse_layout("a dog: 0 0 0.5 1 | lora=neon:0\na cat: 0.5 0 1 1")], "Soft Guidance")
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1 | lora=neon:0.8")
    with pytest.raises(LayoutError, match=r'"a cat" wears a LoRA \(neon:0.8\), but Soft Guidance has no pass'):
        refuse_loras([layout], "Soft Guidance")
