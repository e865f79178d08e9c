"""Makes the stickers that Sticker World does not have.

By `python commands/launcher.py evaluation.judging.training.make_distractors ASSETS NAMES`. Two npm packages, unpacked
(`npm pack @lobehub/fluent-emoji-3d@1.1.0`, `npm pack unicode-emoji-json@0.9.0`), give the pictures and their names.
Left out is what a person might call one of the world's concepts (other cars, other trees, a bagel), and what the
notices exclude.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .distractors import CALIBRATION, FOLDER, TRAINING

SIDE = 128  # pixels; a thing's longer side in a scene is at most 154
QUALITY = 82
SEED = 7_300
CALIBRATED = 60  # stickers that no judge is trained with
NAMES = """
grinning_face smiling_face_with_hearts face_blowing_a_kiss star_struck thinking_face face_with_medical_mask
cowboy_hat_face partying_face nerd_face crying_face angry_face skull clown_face ghost alien robot ogre goblin
see_no_evil_monkey love_letter red_heart heart_with_ribbon hundred_points collision monkey gorilla fox raccoon lion
tiger_face horse_face unicorn zebra bison cow_face boar ram goat camel llama giraffe elephant mammoth rhinoceros
hippopotamus mouse_face hamster chipmunk beaver hedgehog bat bear koala sloth otter skunk kangaroo badger turkey
chicken rooster baby_chick dove eagle swan owl feather flamingo peacock parrot crocodile turtle lizard snake
dragon_face sauropod t_rex whale dolphin seal fish tropical_fish blowfish shark octopus spiral_shell coral crab
lobster shrimp squid oyster snail butterfly bug ant honeybee lady_beetle spider scorpion mosquito bouquet
cherry_blossom rose hibiscus tulip seedling sheaf_of_rice four_leaf_clover maple_leaf grapes melon tangerine banana
pineapple mango pear peach cherries strawberry blueberries kiwi_fruit tomato coconut avocado eggplant potato carrot
ear_of_corn hot_pepper broccoli garlic onion peanuts bread croissant baguette_bread pretzel pancakes waffle
cheese_wedge meat_on_bone poultry_leg bacon hamburger french_fries pizza hot_dog sandwich taco burrito egg popcorn
rice_ball spaghetti sushi dumpling ice_cream cookie birthday_cake cupcake pie chocolate_bar candy lollipop honey_pot
teapot wine_glass beer_mug bubble_tea compass volcano stadium classical_building castle church tent fountain
carousel_horse ferris_wheel circus_tent locomotive high_speed_train fire_engine delivery_truck motorcycle
motor_scooter bicycle skateboard fuel_pump stop_sign anchor sailboat ship airplane helicopter flying_saucer luggage
alarm_clock sun_with_face ringed_planet star cloud rainbow high_voltage snowflake snowman fire jack_o_lantern
firecracker trophy soccer_ball basketball tennis bowling boxing_glove kite pool_8_ball crystal_ball magic_wand
game_die puzzle_piece teddy_bear nesting_dolls artist_palette yarn glasses t_shirt jeans dress handbag backpack
running_shoe crown top_hat graduation_cap ring gem_stone megaphone bell saxophone trumpet guitar musical_keyboard
violin drum telephone battery laptop television camera light_bulb candle open_book books coin money_bag envelope
postbox pencil paintbrush scissors key hammer shield magnet microscope telescope door chair toilet bathtub soap
toothbrush fire_extinguisher shopping_cart moai
""".split()


def main(argv: Sequence[str] | None = None) -> int:
    """Write both folders anew; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="the assets folder of @lobehub/fluent-emoji-3d")
    parser.add_argument("names", type=Path, help="data-by-emoji.json of unicode-emoji-json")
    options = parser.parse_args(argv)
    emoji = {row["slug"]: each for each, row in json.loads(options.names.read_text(encoding="utf-8")).items()}
    files = {name: picture_of(options.pictures, emoji[name]) for name in NAMES}
    order = np.random.default_rng(SEED).permutation(len(NAMES))
    for part, chosen in ((CALIBRATION, order[:CALIBRATED]), (TRAINING, order[CALIBRATED:])):
        folder = FOLDER / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for index in sorted(chosen):
            name = NAMES[index]
            picture = Image.open(files[name], formats=["WEBP"]).convert("RGBA").convert("RGBa")
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            picture.convert("RGBA").save(folder / f"{name}.webp", quality=QUALITY, alpha_quality=90, method=6)
    return 0


def picture_of(folder: Path, emoji: str) -> Path:
    """The file of an emoji; some names leave the variation selector out.

    Raises:
        FileNotFoundError: the package has no such picture.
    """
    points = [f"{ord(letter):x}" for letter in emoji]
    for chosen in (points, [point for point in points if point != "fe0f"]):
        if (path := folder / f"{'-'.join(chosen)}.webp").is_file():
            return path
    raise FileNotFoundError(f"no picture of {emoji} in {folder}")
