"""Where the shipped models lie: training writes them there, evaluation reads them."""

from pathlib import Path

MODELS = Path(__file__).parent.parent / "models"
CHECKPOINT_FILE = MODELS / "checkpoints" / "sticker_world.safetensors"
TRANSFORMER_FILE = MODELS / "checkpoints" / "sticker_world_joint.safetensors"
CLIP_FOLDER = MODELS / "hf_clip" / "sticker_world"
SEGMENTER_FOLDER = MODELS / "segmenters" / "sticker_world"
TEXT2LAYER_FILE = MODELS / "text2layer" / "sticker_world_text2layer.safetensors"
SPECIALIST_FOLDERS = {
    "segmenter_animals": MODELS / "segmenters" / "sticker_world_animals",
    "segmenter_things": MODELS / "segmenters" / "sticker_world_things",
}
VQGAN_FOLDER = MODELS / "vqgan" / "sticker_world"
CNC_FILE = MODELS / "cnc" / "sticker_world_cnc.safetensors"
LORA_FOLDER = MODELS / "loras" / "sticker_world"
