"""A CLIP folder as a node hands it on: both towers, each read where it is needed."""

import folder_paths
import pytest
import torch
import transformers
from stagecraft.core.clip.comfy.folder import load_clip_by_name
from stagecraft.core.clip.comfy.vision import KIND
from stagecraft.core.clip.small_clip import CLIPFileError
from stagecraft.core.layout.reading import parse_layout
from stagecraft.nodes.clip.folder import StageCLIPLoader
from stagecraft.nodes.tcig.draft import StageTCIGDraft
from stagecraft.sticker_world.shipped import CLIP_FOLDER

pytestmark = pytest.mark.usefixtures("no_gradients")
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 1}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, KIND, ([str(tmp_path), str(CLIP_FOLDER.parent)], set()))
    return tmp_path


def test_both_outputs_of_one_folder_see_alike(folders):
    clip, vision = StageCLIPLoader.execute(CLIP_FOLDER.name).args
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    seen = torch.nn.functional.normalize(vision.encode_image(pictures)["image_embeds"], dim=-1)
    assert "guide" not in vars(clip), "read before anything needs it"
    torch.testing.assert_close(clip.guide.embed_pictures(pictures.movedim(-1, 1)), seen, atol=5e-3, rtol=0)
    assert clip.guide is clip.guide is load_clip_by_name(CLIP_FOLDER.name)
    assert StageCLIPLoader.fingerprint_inputs(CLIP_FOLDER.name) != ()


def test_a_vision_tower_alone_sees_and_says_what_lacks_where_both_are_needed(folders):
    config = transformers.CLIPVisionConfig(**SIZES, image_size=32, patch_size=16, projection_dim=8)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folders / "sees")
    assert StageCLIPLoader.validate_inputs("sees") is True
    clip, vision = StageCLIPLoader.execute("sees").args
    assert vision.encode_image(torch.rand(1, 40, 40, 3))["image_embeds"].shape == (1, 8)
    reason = r"The CLIP folder sees holds no CLIP with both towers: .*clip_vision_model\. Choose the folder of a whole"
    with pytest.raises(CLIPFileError, match=reason):
        StageTCIGDraft.execute(
            parse_layout("a dog: 0 0 1 1"), None, clip, (), "", 32, 0, "flat colours", "1.0", False, 2
        )
    with pytest.raises(CLIPFileError, match=reason):  # and again, as often as it is asked
        _ = clip.guide


def test_a_text_tower_alone_is_refused_at_once(folders):
    transformers.CLIPTextModel(transformers.CLIPTextConfig(**SIZES)).save_pretrained(folders / "reads")
    with pytest.raises(CLIPFileError, match="no whole CLIP Vision model: config.json is of a clip_text_model"):
        StageCLIPLoader.execute("reads")
