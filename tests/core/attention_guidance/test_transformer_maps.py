"""What energies read of a transformer's maps: words by their share among words, frames as pictures with one layout."""

import pytest
import torch
from stagecraft.core.attention.sites import BLOCK, CROSS, SELF, Site
from stagecraft.core.attention_guidance.energies import boxdiff, in_box_share, self_refocusing
from stagecraft.core.attention_guidance.target import Target
from stagecraft.core.attention_guidance.transformer_maps import energy_of_blocks

GRID, FRAMES = (4, 6), 3


def maps(frames=FRAMES, columns=4, stream=CROSS, count=2, seed=0):
    """Of two pictures, two blocks and two heads."""
    generator = torch.Generator().manual_seed(seed)
    shape = 2, 2, frames * GRID[0] * GRID[1], columns
    found = {Site(BLOCK, i, stream, GRID, frames, 8): torch.rand(shape, generator=generator) for i in range(count)}
    return {site: each / each.sum(2, keepdim=True) for site, each in found.items()}


def targets():
    left = torch.zeros(GRID)
    left[:, :3] = 1
    return [Target((0, 1), left), Target((2,), 1 - left)]


def frame(found, number):
    length = GRID[0] * GRID[1]
    rows = slice(number * length, (number + 1) * length)
    return {Site(BLOCK, site.number, site.stream, GRID): each[:, :, rows] for site, each in found.items()}


@pytest.mark.parametrize("energy", [in_box_share, boxdiff])
def test_a_videos_energy_is_the_mean_over_its_frames(energy):
    found = maps()
    whole = energy_of_blocks(lambda read: energy(read, targets()), found)
    expected = torch.stack([energy(frame(found, i), targets()) for i in range(FRAMES)]).mean(0)
    assert whole.shape == (2,)
    torch.testing.assert_close(whole, expected)


def test_a_picture_is_read_as_it_is():
    found = maps(frames=1)
    torch.testing.assert_close(
        energy_of_blocks(lambda read: in_box_share(read, targets()), found), in_box_share(found, targets())
    )


def test_what_leaves_a_region_leaves_it_in_every_frame():
    looks = maps(columns=2, stream=SELF)
    found = energy_of_blocks(lambda read: self_refocusing(read, targets()), looks | maps())
    length = GRID[0] * GRID[1]
    outside = torch.stack([1 - target.mask.flatten() for target in targets()])
    leaving = [
        torch.stack([(each[..., o].unflatten(2, (FRAMES, length)).sum(2) * outside[o]).sum(-1) for o in range(2)], -1)
        for each in looks.values()
    ]
    torch.testing.assert_close(found, torch.stack(leaving).mean((0, 2, 3)))


def test_words_are_compared_by_their_shares_among_words():
    """However little a place looks at text, and whatever other tokens get."""
    found, compared = maps(), (0, 1, 2)
    one = energy_of_blocks(lambda read: boxdiff(read, targets()), found, compared)
    rare = {site: 1e-3 * each for site, each in found.items()}
    torch.testing.assert_close(energy_of_blocks(lambda read: boxdiff(read, targets()), rare, compared), one)
    seen = {}
    energy_of_blocks(lambda read: seen.update(read) or boxdiff(read, targets()), found, compared)
    for each in seen.values():
        torch.testing.assert_close(each[..., :3].sum(-1), torch.ones(2 * FRAMES, 2, GRID[0] * GRID[1]))
