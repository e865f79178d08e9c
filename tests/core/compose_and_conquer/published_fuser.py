"""A slow local fuser: plain functions of the published names, after the description of the published network."""

import math

import torch
import torch.nn.functional as F


def conv(w, name, x, stride=1):
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[-1] // 2)


def normalised(x, eps, weight=None, bias=None):
    """Group normalisation with 32 groups, written out."""
    groups = x.reshape(len(x), 32, -1)
    mean = groups.mean(-1, keepdim=True)
    variance = (groups - mean).square().mean(-1, keepdim=True)
    y = ((groups - mean) / (variance + eps).sqrt()).reshape(x.shape)
    return y if weight is None else y * weight[:, None, None] + bias[:, None, None]


def affine_norm(w, name, x, eps=1e-5):
    return normalised(x, eps, w[f"{name}.weight"], w[f"{name}.bias"])


def fdn(w, name, h, f):
    return normalised(h, 1e-5) * (1 + conv(w, f"{name}.conv_gamma", f)) + conv(w, f"{name}.conv_beta", f)


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def res_block(w, name, x, emb, f=None):
    inside = affine_norm(w, f"{name}.in_layers.0", x) if f is None else fdn(w, f"{name}.norm_in", x, f)
    u = conv(w, f"{name}.in_layers.2", F.silu(inside))
    u = u + linear(w, f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
    inside = affine_norm(w, f"{name}.out_layers.0", u) if f is None else fdn(w, f"{name}.norm_out", u, f)
    v = conv(w, f"{name}.out_layers.3", F.silu(inside))
    skip = conv(w, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in w else x
    return skip + v


def attention(w, name, x, context, heads, allowed=None):
    """Head by head; what is not allowed gets the lowest number, as published."""
    q, k, v = linear(w, f"{name}.to_q", x), linear(w, f"{name}.to_k", context), linear(w, f"{name}.to_v", context)
    width = q.shape[-1] // heads
    parts = []
    for part in range(0, q.shape[-1], width):
        logits = q[..., part : part + width] @ k[..., part : part + width].transpose(1, 2) / math.sqrt(width)
        if allowed is not None:
            logits[~allowed] = -torch.finfo(logits.dtype).max
        weights = logits.exp() if allowed is None else (logits - logits.amax(-1, keepdim=True)).exp()
        parts.append(weights / weights.sum(-1, keepdim=True) @ v[..., part : part + width])
    return linear(w, f"{name}.to_out.0", torch.cat(parts, -1))


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return y * w[f"{name}.weight"] + w[f"{name}.bias"]


def transformer(w, name, x, context, heads, masked):
    b, c, rows, columns = x.shape
    h = conv(w, f"{name}.proj_in", affine_norm(w, f"{name}.norm", x, eps=1e-6))
    h = h.flatten(2).transpose(1, 2)
    block = f"{name}.transformer_blocks.0"
    own = layer_norm(w, f"{block}.norm1", h)
    h = h + attention(w, f"{block}.attn1", own, own, heads)
    allowed = masked(rows, columns) if masked else None
    h = h + attention(w, f"{block}.attn2", layer_norm(w, f"{block}.norm2", h), context, heads, allowed)
    inner = linear(w, f"{block}.ff.net.0.proj", layer_norm(w, f"{block}.norm3", h))
    half = inner.shape[-1] // 2
    gate = inner[..., half:]
    gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    h = h + linear(w, f"{block}.ff.net.2", inner[..., :half] * gelu)
    return x + conv(w, f"{name}.proj_out", h.transpose(1, 2).reshape(b, c, rows, columns))


def features(w, foreground, background):
    streams = []
    for name, h in (("fg_extractor", foreground), ("bg_extractor", background)):
        for index, stride in ((0, 1), (2, 2), (4, 1), (6, 2)):
            h = F.silu(conv(w, f"feature_extractor.{name}.{index}", h, stride))
        streams.append(h)
    h, sides = torch.cat(streams, 1), []
    for stage in range(4):
        h = F.silu(conv(w, f"feature_extractor.extractors.{stage}.0", h, 2))
        sides.append(conv(w, f"feature_extractor.zero_convs.{stage}", h))
    return sides


def published(w, x, timesteps, context, foreground, background, masked=None):
    """SD 1.5's encoder by block number: 1, 4, 7, 10 are injected, 3, 6, 9 go down, 1 2 4 5 7 8 have transformers."""
    frequencies = torch.tensor([10000 ** (-i / 160) for i in range(160)])
    angles = timesteps.float()[:, None] * frequencies
    emb = torch.cat([angles.cos(), angles.sin()], 1)
    emb = linear(w, "time_embed.2", F.silu(linear(w, "time_embed.0", emb)))
    sides = dict(zip((1, 4, 7, 10), features(w, foreground, background), strict=True))
    h = conv(w, "input_blocks.0.0", x)
    residuals = [conv(w, "zero_convs.0.0", h)]
    for number in range(1, 12):
        block = f"input_blocks.{number}"
        if number in (3, 6, 9):
            h = conv(w, f"{block}.0.op", h, 2)
        else:
            h = res_block(w, f"{block}.0", h, emb, sides.get(number))
        if number in (1, 2, 4, 5, 7, 8):
            h = transformer(w, f"{block}.1", h, context, 8, masked)
        residuals.append(conv(w, f"zero_convs.{number}.0", h))
    h = res_block(w, "middle_block.0", h, emb)
    h = res_block(w, "middle_block.2", transformer(w, "middle_block.1", h, context, 8, masked), emb)
    return residuals, conv(w, "middle_block_out.0", h)
