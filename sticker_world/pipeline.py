"""The embedded family from nothing to shipped files, part by part; every part goes on where it stopped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .checkpoint.autoencoder import Autoencoder, train_autoencoder, train_decoder
from .checkpoint.diffusion import collect, train_diffusion
from .checkpoint.export import export_checkpoint, export_transformer
from .checkpoint.latents import encode_scenes, latent_colours
from .checkpoint.shipped_weights import latent_scale, shipped_average
from .checkpoint.transformer_training import Shown, train_transformer
from .compose_and_conquer.train import export_fusers, train_fusers
from .compose_and_conquer.triplets import ORDINARY, OVERLAPPING, Triplets, open_triplets
from .looks.drawing import LOOKS
from .looks.train import export_lora, train_lora
from .readers.clip import TaughtCLIP, train_clip
from .readers.export import export_clip, export_segmenter
from .readers.segmenter import train_segmenter
from .shipped import (
    CHECKPOINT_FILE,
    CLIP_FOLDER,
    CNC_FILE,
    LORA_FOLDER,
    MODELS,
    SEGMENTER_FOLDER,
    SPECIALIST_FOLDERS,
    TEXT2LAYER_FILE,
    TRANSFORMER_FILE,
    VQGAN_FOLDER,
)
from .tcig.vqgan import export_vqgan, train_vqgan
from .text2layer.autoencoder import PARTS as LAYERED_AUTOENCODERS
from .text2layer.autoencoder import SHIPPED as SHIPPED_AUTOENCODER
from .text2layer.autoencoder import train_layered_autoencoder
from .text2layer.diffusion import ROWS, train_layered_diffusion
from .text2layer.export import export_text2layer
from .text2layer.latents import SCENES, LayeredLatents, encode_layers, layered_codec, single_codec, stacked_codec
from .text2layer.samples import PICTURES, open_layers
from .training.loop import pick_device, weights_folder
from .training.prepared import fingerprint
from .world.dataset import Scenes, backgrounds_of, open_scenes

CNC_BITS = 6  # of a large weight in the shipped CnC file, which then takes 7 MB instead of 18; see `pack_weights`
FURTHER = ("diffusion", "transformer")  # parts that can go on from a shipped file
LAYER_BITS = 5  # of a large weight of the U-Net in the shipped Text2Layer file, which then takes 10 MB
# What `cnc_export` looks for: the latest stage, else what there is of those before it.
EXPORTED = (("cnc_joint",), ("cnc_local", "cnc_global"), ("cnc_local",), ("cnc_global",))


@dataclass(frozen=True)
class Workshop:
    """Where training happens and how long.

    Attributes:
        folder: scenes, latents, states and averaged weights; may be deleted afterwards.
        scenes: how many training scenes to draw.
        steps: length of the schedules, by part.
        fusers: stages whose fusers `cnc_export` writes; none: those of the latest stage that there are weights of.
        bits: of a weight in that file; None for half precision.
        layer_bits: the same for the U-Net that `t2l_export` writes.
        looks: whose LoRAs `lora` trains.
        from_shipped: whether one of `FURTHER` goes on from the shipped file's weights instead of beginning with none.
    """

    folder: Path
    scenes: int
    steps: dict[str, int]
    fusers: tuple[str, ...] = ()
    bits: int | None = CNC_BITS
    layer_bits: int | None = LAYER_BITS
    looks: tuple[str, ...] = tuple(LOOKS)
    from_shipped: bool = False

    def open(self) -> Scenes:
        """The training scenes, drawn if need be."""
        return open_scenes(self.folder / "scenes", self.scenes)

    def latents(self) -> tuple[np.ndarray, tuple[float, float]]:
        """Latents of the training scenes (n 4 32 32), and the mean and deviation that they were brought to unit from.

        The shipped autoencoder's keep the scale that is written in the checkpoint: models that are trained from it
        and those that are shipped beside it must mean the same by a latent.
        """
        autoencoder = Autoencoder()
        autoencoder.load_state_dict(self.average("autoencoder"))
        scale = None
        if not (self.weights / "autoencoder.safetensors").exists():
            deviation, shift = latent_scale(CHECKPOINT_FILE)
            scale = (-shift * deviation, deviation)
        return encode_scenes(self.open(), autoencoder, self.weights, scale)

    @property
    def weights(self) -> Path:
        """Folder of states and averaged weights."""
        return weights_folder(self.folder)

    def average(self, part: str) -> dict[str, Tensor]:
        """The averaged weights of a part, or the shipped ones of a base model; an error says what to train first."""
        path = self.weights / f"{part}.safetensors"
        if path.exists():
            return load_file(path)
        weights = shipped_average(part)
        if weights is None:
            raise SystemExit(f"There are no trained weights for '{part}' yet. Run: python stage.py train {part}")
        print(f"There are no trained weights for '{part}' in {self.weights}; the shipped checkpoint's are taken.")
        return weights

    def start_of(self, part: str) -> dict[str, Tensor] | None:
        """What a part begins with: the shipped file's weights, or none."""
        if not self.from_shipped:
            return None
        weights = shipped_average(part)
        if weights is None:
            raise SystemExit(f"There is no shipped file of '{part}' to go on from. Leave --from away.")
        return weights


def _autoencoder(shop: Workshop) -> None:
    train_autoencoder(shop.open(), shop.weights, shop.steps["autoencoder"])


def _decoder(shop: Workshop) -> None:
    train_decoder(shop.open(), shop.weights, shop.average("autoencoder"), shop.steps["decoder"])


def _diffusion(shop: Workshop) -> None:
    latents, _ = shop.latents()
    start = shop.start_of("diffusion")
    train_diffusion(collect(shop.open(), latents), shop.weights, shop.steps["diffusion"], start)


def _transformer(shop: Workshop) -> None:
    latents, _ = shop.latents()
    scenes = shop.open()
    shown = Shown(collect(scenes, latents), np.asarray(scenes.concepts), backgrounds_of(len(scenes)))
    start = shop.start_of("transformer")
    train_transformer(shown, shop.average("diffusion"), shop.weights, shop.steps["transformer"], start)


def _clip(shop: Workshop) -> None:
    train_clip(shop.open(), shop.weights, shop.steps["clip"])


def _segmenter(part: str) -> Callable[[Workshop], None]:
    """The judge, or one of the specialists."""

    def run(shop: Workshop) -> None:
        train_segmenter(shop.open(), shop.weights, shop.steps[part], part)

    return run


def _vqgan(shop: Workshop) -> None:
    train_vqgan(shop.open(), shop.weights, shop.steps["vqgan"])


def _triplets(shop: Workshop) -> Triplets:
    autoencoder, clip = Autoencoder(), TaughtCLIP()
    autoencoder.load_state_dict(shop.average("autoencoder"))
    clip.load_state_dict(shop.average("clip"))
    latents, stats = shop.latents()
    ordinary, overlapping = min(ORDINARY, shop.scenes), min(OVERLAPPING, shop.scenes)
    return open_triplets(shop.folder / "triplets", latents, stats, autoencoder, clip, ordinary, overlapping)


def _fusers(part: str, *before: str) -> Callable[[Workshop], None]:
    """The stage of that name, which goes on from the averaged weights of the stages `before`."""

    def run(shop: Workshop) -> None:
        start = {key: value for stage in before for key, value in shop.average(stage).items()}
        train_fusers(part, _triplets(shop), shop.average("diffusion"), shop.weights, shop.steps[part], start)

    return run


def _layered_autoencoder(part: str) -> Callable[[Workshop], None]:
    def run(shop: Workshop) -> None:
        layers = open_layers(shop.folder / "layers", min(PICTURES, shop.scenes))
        train_layered_autoencoder(part, layers, shop.weights, shop.steps[part])

    return run


def _layered_latents(shop: Workshop, codec: str) -> LayeredLatents:
    weights = shop.average(codec if codec in LAYERED_AUTOENCODERS else "autoencoder")
    if codec in LAYERED_AUTOENCODERS:
        made = layered_codec(codec, weights, one_by_one=codec == SHIPPED_AUTOENCODER)
    else:
        autoencoder = Autoencoder().to(pick_device(), memory_format=torch.channels_last)
        autoencoder.load_state_dict(weights)
        made = {"stacked": stacked_codec, "single": single_codec}[codec](autoencoder)
    name = f"{codec}-{fingerprint(weights)}"  # an autoencoder that was trained again makes other latents
    return encode_layers(name, made, shop.folder / "layers", min(SCENES, shop.scenes))


def _layered_diffusion(part: str) -> Callable[[Workshop], None]:
    def run(shop: Workshop) -> None:
        data = _layered_latents(shop, ROWS[part].codec)
        train_layered_diffusion(part, data, shop.average("diffusion"), shop.weights, shop.steps[part])

    return run


def _layered_export(shop: Workshop) -> None:
    data = _layered_latents(shop, SHIPPED_AUTOENCODER)
    weights = [shop.average(part) for part in ("t2l_layers", SHIPPED_AUTOENCODER)]
    export_text2layer(*weights, data, TEXT2LAYER_FILE, shop.layer_bits)
    print(f"{TEXT2LAYER_FILE.stat().st_size / 1e6:7.2f} MB  {TEXT2LAYER_FILE.relative_to(MODELS)}")


def _export(shop: Workshop) -> None:
    scenes = shop.open()
    latents, stats = shop.latents()
    export_checkpoint(shop.average("diffusion"), shop.average("decoder"), stats, CHECKPOINT_FILE)
    export_clip(shop.average("clip"), CLIP_FOLDER)
    export_segmenter(shop.average("segmenter"), SEGMENTER_FOLDER)
    factors, bias = latent_colours(scenes, latents)
    print("latent_rgb_factors =", [[round(x, 4) for x in row] for row in factors.tolist()])
    print("latent_rgb_factors_bias =", [round(x, 4) for x in bias.tolist()])
    shipped = [CHECKPOINT_FILE, *CLIP_FOLDER.iterdir(), *SEGMENTER_FOLDER.iterdir()]
    for path in shipped:
        print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.relative_to(MODELS)}")
    print(f"{sum(path.stat().st_size for path in shipped) / 1e6:7.2f} MB  in all")


def _transformer_export(shop: Workshop) -> None:
    export_transformer(shop.average("transformer"), TRANSFORMER_FILE)
    print(f"{TRANSFORMER_FILE.stat().st_size / 1e6:7.2f} MB  {TRANSFORMER_FILE.relative_to(MODELS)}")


def _cnc_export(shop: Workshop) -> None:
    there = [stages for stages in EXPORTED if all((shop.weights / f"{stage}.safetensors").exists() for stage in stages)]
    stages = shop.fusers or (there or EXPORTED)[0]
    weights = {key: value for stage in stages for key, value in shop.average(stage).items()}
    export_fusers(weights, CNC_FILE, bits=shop.bits)
    print(f"{CNC_FILE.stat().st_size / 1e6:7.2f} MB  {CNC_FILE.relative_to(MODELS)}, from {' and '.join(stages)}")


def _tcig_export(shop: Workshop) -> None:
    """Whatever there is of the VQGAN and the specialists, which nothing binds to each other."""
    folders = {"vqgan": VQGAN_FOLDER, **SPECIALIST_FOLDERS}
    parts = [part for part in folders if (shop.weights / f"{part}.safetensors").exists()]
    for part in parts or folders:  # without any, the first one's error says what to train
        if part == "vqgan":
            export_vqgan(shop.average(part), folders[part])
        else:
            export_segmenter(shop.average(part), folders[part], part)
        for path in folders[part].iterdir():
            print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.relative_to(MODELS)}")


def _lora(shop: Workshop) -> None:
    for look in shop.looks:
        train_lora(look, shop.folder / "looks", shop.weights, shop.average("diffusion"), shop.steps["lora"])


def _lora_export(shop: Workshop) -> None:
    for look in shop.looks:
        path = LORA_FOLDER / f"{look}.safetensors"
        export_lora(shop.average(f"lora_{look}"), path)
        print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.relative_to(MODELS)}")


# In the order in which a full training runs; the autoencoder must come before its decoder and the denoiser.
PARTS: dict[str, Callable[[Workshop], None]] = {
    "autoencoder": _autoencoder,
    "decoder": _decoder,
    "diffusion": _diffusion,
    "transformer": _transformer,
    "clip": _clip,
    "segmenter": _segmenter("segmenter"),
    "vqgan": _vqgan,
    "segmenter_animals": _segmenter("segmenter_animals"),
    "segmenter_things": _segmenter("segmenter_things"),
    "cnc_local": _fusers("cnc_local"),
    "cnc_global": _fusers("cnc_global"),
    "cnc_joint": _fusers("cnc_joint", "cnc_local", "cnc_global"),
    "export": _export,
    "transformer_export": _transformer_export,
    "cnc_export": _cnc_export,
    "tcig_export": _tcig_export,
    "lora": _lora,
    "lora_export": _lora_export,
    "cnc_single": _fusers("cnc_single"),
    "t2l_autoencoder": _layered_autoencoder("t2l_autoencoder"),
    "t2l_layers": _layered_diffusion("t2l_layers"),
    "t2l_export": _layered_export,
    "t2l_autoencoder_plain": _layered_autoencoder("t2l_autoencoder_plain"),
    "t2l_two": _layered_diffusion("t2l_two"),
    "t2l_two_plain": _layered_diffusion("t2l_two_plain"),
    "t2l_stacked": _layered_diffusion("t2l_stacked"),
    "t2l_single": _layered_diffusion("t2l_single"),
}
# What the shipped models are measured against; nothing shipped needs them.
BASELINES = ("cnc_single", "t2l_autoencoder_plain", "t2l_two", "t2l_two_plain", "t2l_stacked", "t2l_single")
