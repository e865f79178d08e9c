"""What training on a user's own pictures may be told, and what it is told in the paper's scripts."""

from dataclasses import dataclass
from pathlib import Path

# As published: how often every picture is seen, and the stages in the order in which they come.
EPOCHS = {"cnc_local": 28, "cnc_global": 24, "cnc_joint": 9}
LEARNING_RATE, BATCH, SIZE = 1e-5, 4, 512
# As published for Text2Layer, in the order in which they come. Its learning rate is not.
LAYER_STEPS = {"t2l_autoencoder": 250_000, "t2l_layers": 75_000}
LAYER_LEARNING_RATE = 1e-4  # reconstructed: Stable Diffusion's U-Net was trained at this rate


@dataclass(frozen=True)
class OwnPictures:
    """What a user trains on and with.

    Attributes:
        data: folder of pictures and what belongs to them, see `open_pictures`.
        checkpoint: file that the fusers are for.
        folder: of states, encoded pictures and results.
        clip_vision: folder of the CLIP whose picture embeddings the global fuser reads; None where none is trained, or
            for the embedded one.
        size: pixels of the pictures' sides.
        batch: pictures in a step.
        steps: length of the schedule; None for the published number of epochs.
        learning_rate: after the warm-up.
        start: CnC file that the first stages go on from, or None.
    """

    data: Path
    checkpoint: Path
    folder: Path
    clip_vision: Path | None = None
    size: int = SIZE
    batch: int = BATCH
    steps: int | None = None
    learning_rate: float = LEARNING_RATE
    start: Path | None = None


@dataclass(frozen=True)
class OwnLayers:
    """What a user trains Text2Layer on and with.

    Attributes:
        data: folder of layers, see `open_layer_folder`.
        checkpoint: file whose U-Net is the start and whose text encoder reads the captions.
        folder: of states, encoded layers and the result.
        size: pixels of the layers' sides.
        batch: pictures in a step.
        steps: length of both schedules; None for the published ones.
        learning_rate: after the warm-up.
        start: Text2Layer file whose autoencoder is kept and whose U-Net is trained on, or None.
        lpips: file with the weights of LPIPS, or None to do without.
    """

    data: Path
    checkpoint: Path
    folder: Path
    size: int = SIZE
    batch: int = BATCH
    steps: int | None = None
    learning_rate: float = LAYER_LEARNING_RATE
    start: Path | None = None
    lpips: Path | None = None
