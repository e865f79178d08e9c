"""What an edit may change, what it keeps and what it pastes, cell by cell."""

import pytest
import torch
from stagecraft.core.editing.edits import EditError, insert, move, plan_edits, remove, replace, shifted
from stagecraft.core.layout.masks import soften
from stagecraft.core.layout.region import Region

HEIGHT, WIDTH = 40, 56


def picture(batch=1):
    return torch.rand(batch, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))


def block(top, left, height, width):
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[top : top + height, left : left + width] = 1
    return mask


def test_shifted_pixel_by_pixel():
    image = picture()[0, ..., 0]
    for right, down in ((3, -5), (-7, 2), (0, 0), (WIDTH, 0), (0, -HEIGHT)):
        found = shifted(image, right, down)
        for y in range(HEIGHT):
            for x in range(WIDTH):
                inside = 0 <= y - down < HEIGHT and 0 <= x - right < WIDTH
                assert found[y, x] == (image[y - down, x - right] if inside else 0)


def test_inserting_frees_the_region_and_starts_from_fresh_noise():
    region = Region("a dog", box=(0.25, 0.25, 0.5, 0.75))
    plan = plan_edits(picture(), [insert(region)], 4)
    assert torch.equal(plan.free, soften(block(10, 14, 20, 14), 4))
    torch.testing.assert_close(plan.keep, torch.sqrt(1 - plan.free))
    assert plan.regions == (region,) and plan.gone == ()
    assert torch.equal(plan.picture, picture())


def test_replacing_covers_the_old_thing_and_keeps_its_noise():
    old = block(10, 10, 12, 9)
    old[10:14, 10:14] = 0  # not a box
    plan = plan_edits(picture(), [replace(old, "a cat", whole_box=True, keep=0.6, colour="red")], 4)
    (region,) = plan.regions
    assert region.phrase == "a cat" and region.colour == "red"
    assert region.box == (10 / WIDTH, 10 / HEIGHT, 19 / WIDTH, 22 / HEIGHT)
    inside = block(10, 10, 12, 9) == 1
    assert (plan.free[inside] == 1).all()
    torch.testing.assert_close(plan.keep[inside], torch.tensor(0.6).expand(12 * 9))
    assert (plan.keep[plan.free == 0] == 1).all()
    (outlined,) = plan_edits(picture(), [replace(old, "a cat", whole_box=False)], 4).regions
    assert outlined.box is None and torch.equal(outlined.mask, old)


def test_removing_paints_nothing_but_what_lies_behind():
    plan = plan_edits(picture(), [remove(block(5, 5, 10, 10), " a cat ")], 4)
    assert plan.regions == () and plan.gone == ("a cat",)
    assert (plan.keep[plan.free == 1] == 0).all()


def test_moving_pastes_the_thing_and_holds_it_but_for_its_outline():
    old = block(8, 6, 12, 14)
    plan = plan_edits(picture(2), [move(old, "a cat", 0.5, 0.1)], 4)  # 28 to the right, 4 down
    given, new = picture(2), block(12, 34, 12, 14)
    expected = given.clone()
    expected[:, 12:24, 34:48] = given[:, 8:20, 6:20]
    torch.testing.assert_close(plan.picture, expected)
    assert (plan.free[old == 1] == 1).all(), "the old place is painted anew"
    assert (plan.keep[old == 1] == 0).all()
    assert (plan.free[14:22, 36:46] == 0).all(), "the thing itself stays"
    outline = plan.free[12, 36:46]
    assert (outline > 0.5).all()
    assert (plan.keep[new == 1] == 1).all()
    assert plan.gone == ("a cat",) and plan.regions[0].phrase == "a cat"


def test_moving_a_little_holds_the_thing_where_it_covers_its_old_place():
    old = block(8, 6, 12, 14)
    plan = plan_edits(picture(), [move(old, "", 4 / WIDTH, 0)], 4)
    assert (plan.free[10:18, 12:22] == 0).all() and (plan.keep[10:18, 12:22] == 1).all()
    assert (plan.free[8:20, 6:10] == 1).all()
    assert plan.regions == ()


def test_moving_nowhere_and_no_edits_do_nothing():
    for edits in ([], [move(block(8, 6, 12, 14), "a cat", 0.001, 0)]):
        plan = plan_edits(picture(), edits, 4)
        assert not plan.free.any() and (plan.keep == 1).all() and plan.regions == plan.gone == ()


def test_the_later_edit_wins():
    old = block(10, 10, 10, 10)
    kept = replace(old, "a cat", whole_box=True, keep=0.9)
    plan = plan_edits(picture(), [remove(old), kept], 4)
    torch.testing.assert_close(plan.keep[old == 1], torch.tensor(0.9).expand(100))
    plan = plan_edits(picture(), [kept, remove(old)], 4)
    assert (plan.keep[old == 1] == 0).all()
    assert not plan_edits(picture(), [remove(old)], 4).keeps_noise and plan.keeps_noise
    faint = plan_edits(picture(), [remove(old), remove(0.6 * old)], 4)
    assert (faint.keep[old == 1] == 0).all(), "a faint mask over a removed thing keeps nothing of it"
    moved_there = move(block(10, 30, 10, 10), "", -20 / WIDTH, 0)
    plan = plan_edits(picture(), [remove(old), moved_there], 4)
    assert (plan.free[12:18, 12:18] == 0).all()


def test_masks_of_another_resolution():
    plan = plan_edits(picture(), [remove(torch.ones(HEIGHT // 2, WIDTH // 2))], 4)
    assert (plan.free == 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: remove(torch.zeros(64, 64), "a cat"), 'Removing "a cat" got an empty mask'),
        (lambda: move(torch.ones(3, 8, 8), "a cat", 0.1, 0), "got 3 masks; expected one"),
        (lambda: replace(2 * torch.ones(8, 8), "a dog", whole_box=True), "values outside 0..1"),
        (lambda: plan_edits(picture(), [remove(torch.ones(64, 64))], 4), r"64 x 64 pixels.*picture \(56 x 40\)"),
        (lambda: plan_edits(picture(), [move(block(0, 0, 8, 8), "a cat", -0.5, 0)], 4), "takes it out of the picture"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message):
    with pytest.raises(EditError, match=message):
        make()
