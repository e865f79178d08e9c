"""English as far as a sentence about places needs it: which words join, count, place and size things.

Every list is short on purpose: a word that stands in none of them is part of a thing's name.
"""

import re

ARTICLES = ("a", "an", "the")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6}
DETERMINERS = frozenset(
    (
        *ARTICLES,
        *NUMBERS,
        "another",
        "some",
        "several",
        "many",
        "few",
        "both",
        "his",
        "her",
        "its",
        "their",
        "my",
        "your",
    )
    + ("seven", "eight", "nine", "ten", "eleven", "twelve", "dozens", "hundreds", "no")
)
PRONOUNS = frozenset(("it", "them", "they", "him", "her", "he", "she", "this", "that", "these", "those"))
# The first words of things in other languages, which no English thing begins with.
FOREIGN = frozenset(
    "ein eine einen einem einer der das dem und en un une una uno unos unas el la los las le les il lo gli um uma "
    "een het ett jeden jedna".split()
)
# Share of width and height that a word gives its thing, beside the usual.
SIZES = {
    "big": (1.4, 1.4),
    "large": (1.4, 1.4),
    "huge": (1.8, 1.8),
    "giant": (1.8, 1.8),
    "enormous": (1.8, 1.8),
    "small": (0.65, 0.65),
    "little": (0.65, 0.65),
    "tiny": (0.45, 0.45),
    "tall": (0.8, 1.5),
    "high": (0.8, 1.5),
    "wide": (1.6, 0.8),
    "long": (1.6, 0.8),
    "short": (1.0, 0.6),
    "narrow": (0.55, 1.0),
}
COLOURS = frozenset(
    "black white red green blue yellow orange purple violet pink brown grey gray golden silver dark light bright "
    "pale".split()
)
# A place of many things, no thing itself, where one is in it, on it or at it.
SCENES = frozenset(
    "air alley autumn background beach bay bedroom blizzard bridge cafe carpet cave ceiling church city cliff "
    "classroom cloudscape coast countryside dark darkness dawn day daytime daylight desert distance dusk evening "
    "fall farm field floor fog forest garden grass grassland ground harbor harbour hill hillside horizon ice "
    "indoors island jungle kitchen lake land landscape lawn library light market meadow midnight mist moonlight "
    "morning mountainside museum night noon ocean office outdoors park path pavement place plain plaza pool rain "
    "ravine restaurant river road room sand savanna savannah sea seaside shade shore sidewalk sky snow snowstorm "
    "space spring square stage station storm street studio summer sun sunlight sunrise sunset supermarket swamp "
    "town twilight underwater valley village wall water wilderness wind winter wood world yard zoo".split()
)
# What a thing is in without being inside of it: part of its name.
WORN = frozenset(
    "apron armor armour boots clothes clothing coat costume dress flight glasses gloves gown hat helmet hoodie "
    "jacket jeans kimono love motion outfit pajamas pants pyjamas robe scarf shirt shoes shorts skirt socks style "
    "suit sweater tie trousers tuxedo t-shirt uniform vest".split()
)
# Verbs that only say that something is there; they are left out of names.
STANDING = frozenset(
    "is are was were be being stand stands sit sits lie lies fly flies hang hangs float floats rest rests stay "
    "stays hover hovers appears appear there that which who shows show".split()
)
POSTURES = frozenset("sitting standing lying hanging flying floating resting located placed positioned".split())
PREPOSITIONS = frozenset(
    "of with without for from like as to and or holding wearing carrying made full covered".split()
)
OPENINGS = re.compile(
    r"^(?:(?:a|an|the)\s+)?(?:\w+\s+)?(?:photo|photograph|picture|painting|drawing|image|illustration|render|rendering|"
    r"sketch|shot|view|scene|poster)\s+(?:of|with|showing)\s+",
    re.IGNORECASE,
)
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "oxen": "ox",
    "wolves": "wolf",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "shelves": "shelf",
    "scarves": "scarf",
    "halves": "half",
    "calves": "calf",
    "elves": "elf",
    "thieves": "thief",
    "cacti": "cactus",
    "shoes": "shoe",
    "canoes": "canoe",
    "pies": "pie",
    "ties": "tie",
    "movies": "movie",
    "cookies": "cookie",
    "buses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "axes": "axe",
    "sheep": "sheep",
    "fish": "fish",
    "deer": "deer",
    "moose": "moose",
    "bison": "bison",
    "aircraft": "aircraft",
}
_ONE_PAIR = frozenset(
    "scissors glasses sunglasses trousers pants jeans shorts binoculars tongs pliers headphones".split()
)
_NO_PLURAL = frozenset("gas bus lens iris glass grass dress cactus octopus tennis christmas canvas atlas".split())


def singular(word: str) -> str:
    """One of what an English plural says; a word that is no plural as it is."""
    low = word.lower()
    if low in _IRREGULAR:
        return _IRREGULAR[low]
    if (
        low in _NO_PLURAL
        or low in _ONE_PAIR
        or len(low) < 4
        or not low.endswith("s")
        or low.endswith(("ss", "us", "is"))
    ):
        return word
    if low.endswith("ies"):
        return word[:-3] + "y"
    if low.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return word[:-2]
    return word[:-1]


def is_plural(word: str) -> bool:
    """Whether a word looks like an English plural."""
    return singular(word) != word or word.lower() in ("sheep", "fish", "deer", "moose", "bison", "aircraft")


def is_one_pair(word: str) -> bool:
    """Whether a pair of these is one thing: scissors."""
    return word.lower() in _ONE_PAIR


def head_words(words: list[str]) -> list[str]:
    """The words of a name up to what only tells more about it: "cups" of "two cups of tea"."""
    for place, word in enumerate(words):
        low = word.lower()
        if place and (low in PREPOSITIONS or low in ("in", "on", "at", "wearing") or _tells_more(low, words[:place])):
            return words[:place]
    return words


def _tells_more(word: str, before: list[str]) -> bool:
    return word.endswith("ing") and len(word) > 5 and any(is_plural(each) for each in before)
