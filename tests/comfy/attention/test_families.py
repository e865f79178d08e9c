"""What is said of each class of networks: those that are refused, why, and what the others' parts are called."""

import comfy.model_base
import comfy.model_patcher
import pytest
import torch
from stagecraft.core.attention.comfy.families import FAMILIES, family_of, known_family
from stagecraft.tests.comfy.small_network import NO_NETWORK, class_of
from stagecraft.tests.comfy.transformers import TRANSFORMERS, small

REFUSED = {
    ("pixart.pixartms", "PixArtMS"): "does not pass where other programs can see it",
    ("hydit.models", "HunYuanDiT"): "does not pass where other programs can see it",
    ("ernie.model", "ErnieImageModel"): "does not pass where other programs can see it",
    ("lightricks.model", "LTXVModel"): "its latent is not one picture or video",
    ("genmo.joint_model.asymm_models_joint", "AsymmDiTJoint"): "nobody has tried it yet",
    ("omnigen.omnigen2", "OmniGen2Transformer2DModel"): "nobody has tried it yet",
    ("cogvideo.model", "CogVideoXTransformer3DModel"): "nobody has tried it yet",
    ("boogu.model", "BooguTransformer2DModel"): "nobody has tried it yet",
    ("hidream_o1.model", "HiDreamO1Transformer"): "keeps what it has computed of the text",
    ("wan.ar_model", "CausalWanModel"): "keeps what it has computed of the text",
    ("wan.model", "HumoWanModel"): "Stagecraft does not know that class",
    ("cascade.stage_c", "StageC"): "Stagecraft does not know that class",
}


def model_with(network):
    base = comfy.model_base.BaseModel(NO_NETWORK)
    base.diffusion_model = network
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


@pytest.mark.parametrize(("module", "name"), REFUSED)
def test_a_class_that_is_refused_is_named_and_why(module, name):
    try:
        kind = class_of(module, name)
    except ModuleNotFoundError as error:
        pytest.skip(f"not in this ComfyUI: {error}")
    network = kind.__new__(kind)  # it is asked for its class only
    torch.nn.Module.__init__(network)
    with pytest.raises(ValueError, match=rf"Soft reading.* {name}, .*{REFUSED[module, name]}.*Models that work: SD 1"):
        family_of(model_with(network), "Soft reading")


def test_other_packs_networks_are_refused_by_their_own_reasons():
    for module, name, why in (
        ("nunchaku.models.transformers", "NunchakuFluxTransformer2dModel", "inside its quantised blocks"),
        ("custom_nodes.somewhere", "ComfyFluxWrapper", "inside its quantised blocks"),
        ("tensorrt_loader", "TrTUnet", "compiled as a whole"),
        ("custom_nodes.somewhere", "Flux", "Stagecraft does not know that class"),
    ):
        network = type(name, (torch.nn.Module,), {"__module__": module})()
        with pytest.raises(ValueError, match=f"{name}.*{why}.*Do this instead"):
            family_of(model_with(network), "Soft reading", "Do this instead")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_parts_of_a_family_are_called_so(name):
    network = small(name).network
    family = known_family(network)
    assert family in FAMILIES.values()
    assert family_of(model_with(network), "Soft reading") is family
    assert family_of(model_with(torch.compile(network, backend="eager")), "Soft reading") is family
    assert family.count(network) >= 2
    for blocks in family.blocks:
        for block in getattr(network, blocks):
            names = {path.rpartition(".")[2] for path, _ in block.named_modules()}
            assert names & set(family.checkpointed) or (blocks, family.name) in WITHOUT, (blocks, sorted(names))


# Their second half of a block is one product, which nothing is gained by evaluating again.
WITHOUT = {("single_blocks", name) for name in ("Flux", "Chroma", "Chroma Radiance", "HunyuanVideo, HunyuanImage")}
