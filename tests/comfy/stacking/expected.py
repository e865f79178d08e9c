"""What is expected of our own nodes on top of each other, whatever network they patch.

A stack gives a picture in which every member took part, or says in one sentence of ours what to connect instead. A pair
that no table names gives a picture, in either order the same.
"""

import itertools

from stagecraft.tests.comfy.stacking.patchers import EDITS, INVERTED, LAYERED, STARTS, evidence
from stagecraft.tests.comfy.stacking.stack import assert_same_picture, difference, refusal, sample

DEPTHS = ("depths", "depths and looks")
# First, second, and what is said: such prompts are shared out among the parts of a run already.
REFUSED = [
    ((*LAYERED, *EDITS), LAYERED, "so it cannot be layered. Connect the prompt's own"),
    (LAYERED, EDITS, "so it cannot be edited with. Connect the prompt's own"),
    (EDITS, EDITS, "from another Edit Picture in Layers. Chain the edits"),
    ((*LAYERED, *EDITS), INVERTED, "an inversion needs one for the whole picture. Connect the prompt's own"),
    (("cropped layers",), DEPTHS, "cannot be cropped with its layer.* Switch crop off"),
    (DEPTHS, ("cropped layers",), "cannot be cropped with its layer.* Switch crop off"),
    (("inverted latent",), EDITS, "adds no noise, but an edit needs it. Switch add_noise on"),
]
# Pairs whose order matters, and why. All others commute: each writes its own options on prompts, and its own wrapper on
# the model, which finds in the run whatever lies on the prompts by then.
ORDERED = [
    (("guidance",), ("guidance",), "the second moves the state that the first has moved"),
    (STARTS, STARTS, "a run starts at the noise that is connected: the last one's"),
]


def kind(member):
    return member.name.removesuffix(" again")


def expected_refusals(*members):
    """What may be said of a stack, by its ordered pairs."""
    return [
        said
        for one, other in itertools.combinations(members, 2)
        for first, second, said in REFUSED
        if kind(one) in first and kind(other) in second
    ]


def is_ordered(one, other):
    pair = {kind(one), kind(other)}
    return any(pair <= {*first, *second} and pair & {*first} and pair & {*second} for first, second, _ in ORDERED)


def taking_part(members):
    """All members but the starts that another one has taken the place of."""
    starts = [member for member in members if kind(member) in STARTS]
    return [member for member in members if member not in starts[:-1]]


def check(world, *members):
    """A stack's picture shows every member, or the stack is refused."""
    if said := expected_refusals(*members):
        refusal(lambda: sample(world.stacked(*members)), "|".join(said))
        return
    picture, calls = world.run(*members)
    assert picture.shape == world.start.latent.shape and picture.isfinite().all()
    assert not evidence(world, taking_part(members), world.stacked(*members), calls, picture)
    for member in members:
        without = world.picture(*(each for each in members if each is not member))
        if member in taking_part(members):
            assert difference(picture, without) > 1e-2, f"{member.name} changes nothing"
        else:
            assert_same_picture(picture, without)


def two(first, second):
    return (first, second.other() if first is second else second)
