"""Rows of `bench tcig`, that both of its loops do the same work, and that it runs."""

import json

import pytest
import torch
from stagecraft.commands.messages import SetupProblem
from stagecraft.core.clip.clip_guide import load_clip
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.core.tcig.cut_outs import CutOuts
from stagecraft.core.tcig.draft import DraftSettings, draft
from stagecraft.core.tcig.prompts import WeightedPrompt
from stagecraft.core.tcig.segmentation_loss import make_terms
from stagecraft.core.tcig.starts import random_start
from stagecraft.evaluation.bench import draft_speed, tcig
from stagecraft.evaluation.bench.plain_draft import canonical_augmentations, plain_draft
from stagecraft.evaluation.result_rows import BENCH_KEYS
from stagecraft.sticker_world.shipped import CLIP_FOLDER, SEGMENTER_FOLDER

MEASURED = {"seconds": 30.0, "ours": 4.0, "plain": 1.6, "mask_iou": 0.8}


def test_rows_are_ratios(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(tcig, "measure_apart", lambda module, given, *rest: asked.append((module, given)) or MEASURED)
    monkeypatch.setattr(tcig, "VQGAN_FOLDER", tmp_path)
    rows = tcig.bench_tcig()
    assert [tuple(row) for row in rows] == [BENCH_KEYS] * 2
    assert [row["ratio"] for row in rows] == [0.5, 2.5] and asked == [("draft_speed", [])]
    monkeypatch.setattr(tcig, "VQGAN_FOLDER", tmp_path / "gone")
    with pytest.raises(SetupProblem, match="gone is missing"):
        tcig.bench_tcig()
    assert len(tcig.bench_tcig(small=True)) == 2 and asked[-1] == ("draft_speed", ["--small"])


def test_both_loops_do_the_same():
    torch.manual_seed(0)
    vqgan = draft_speed.small_vqgan()
    vqgan.codes.data.normal_()
    guide, segmenter = load_clip(CLIP_FOLDER), Segmenter.load(SEGMENTER_FOLDER)
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64)
    terms = make_terms(layout, [segmenter], [5.0], 32, 32)
    prompts = (WeightedPrompt("a dog"), WeightedPrompt("a cat", -0.5))
    start = random_start(vqgan, 32, 32, 0)
    settings = DraftSettings(iterations=4, balanced=False, cut_outs=CutOuts(3, augmented=False))
    ours = draft(vqgan, start, guide, prompts, terms, settings, seed=0)
    plain = plain_draft(vqgan, start, guide, prompts, terms, 4, cut_outs=3, augment=lambda copies: copies)
    torch.testing.assert_close(ours.latent, plain, atol=1e-3, rtol=1e-3)
    assert (plain - start).abs().max() > 0.1


def test_the_plain_loops_augmentations_change_every_copy():
    torch.manual_seed(0)
    copies = torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1)
    found = canonical_augmentations()(copies)
    assert found.shape == copies.shape and len(found.flatten(1).unique(dim=0)) == 4


def test_it_runs(capsys):
    assert draft_speed.main(["--small"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found.keys() == MEASURED.keys() and all(value > 0 for name, value in found.items() if name != "mask_iou")
