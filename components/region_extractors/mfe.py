"""SEAGULL's mask-based feature extractor: a region becomes a global and a local token (reference facts 1.6).

The global token reads the pyramid: on each level the mean feature under the mask attends to the level's channels, each of
which is a token made of its whole map. The local token reads the region's crop.

    ours                                             released (`mask_extractor.`)
    global_token.region_in.{l}                       res{l + 2}
    global_token.channel_in.{l}                      g_res{l + 2}
    global_token.block.self_attention.{query,...}    cross_att_res.self_attn.{q,k,v,out}_proj
    global_token.block.norm_self                     cross_att_res.norm1
    global_token.block.cross_attention.{query,...}   cross_att_res.cross_attn.{q,k,v,out}_proj
    global_token.block.norm_cross                    cross_att_res.norm2
    global_token.block.mlp.{0,2}                     cross_att_res.mlp.{lin1,lin2}
    global_token.region_out                          feat_linear
    global_token.context_out                         cross_feat_linear
    global_token.fuse                                final_mlp
    local_token.shrink.{0,3}                         global_vit.{0,3}
    local_token.attention.{query,...}                sa.{q,k,v,out}_proj
    local_token.mlp.{0,2,4}                          mlp.layers.{0,1,2}
    not built: never called by the reference         mask_linear
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.pooling import mask_pool
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor

_POOL = 4  # the crop is pooled twice by this factor


@dataclass(frozen=True)
class Prepared:
    """What depends on the image alone, per level.

    Attributes:
        maps: (B, C_l, H_l, W_l).
        keys, values: (B, heads, C_l, d), the level's channels as the cross-attention sees them.
    """

    maps: tuple[Tensor, ...] = ()
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V with output projection; no dropout, no positions."""

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = width // downsample
        if width % downsample or inner % heads:
            raise ValueError(f"attention of width {width} / {downsample} does not split into {heads} heads: change the width or the heads")
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, width) -> two of (B, heads, N, d)."""
        return self._split(self.key(x)), self._split(self.value(x))

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Queries from x (B, M, width) on (B, heads, N, d); `allowed` (B, 1, M, N) bool -> (B, M, width)."""
        seen = F.scaled_dot_product_attention(self._split(self.query(x)), keys, values, attn_mask=allowed)  # (B, heads, M, d)
        return self.out(seen.transpose(1, 2).flatten(2))  # (B, M, width)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Self-attention: x (B, N, width), `allowed` (B, 1, N, N) bool -> (B, N, width)."""
        return self.attend(x, *self.keys_values(x), allowed)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)


class RegionBlock(nn.Module):
    """Regions look at each other, then at the channels of a level (facts 1.6.B)."""

    def __init__(self, embed: int, heads: int, mlp: int, cross_downsample: int) -> None:
        super().__init__()
        self.self_attention = Attention(embed, heads)
        self.norm_self = nn.LayerNorm(embed, eps=1e-5)
        self.cross_attention = Attention(embed, heads, cross_downsample)
        self.norm_cross = nn.LayerNorm(embed, eps=1e-5)
        self.mlp = nn.Sequential(nn.Linear(embed, mlp), nn.ReLU(), nn.Linear(mlp, embed))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, allowed: Tensor) -> Tensor:
        """x (B, R, E), keys and values (B, heads, C_l, d), allowed (B, 1, R, R) -> (B, R, E)."""
        x = self.norm_self(x + self.self_attention(x, allowed))
        x = self.norm_cross(x + self.cross_attention.attend(x, keys, values))
        return x + self.mlp(x)


class GlobalToken(nn.Module):
    """The region within its image: pooled features of every level, alone and in the context of the level's channels."""

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        *,
        embed: int,
        heads: int,
        mlp: int,
        cross_downsample: int,
        coupled: bool,
        geometry: bool,
    ) -> None:
        super().__init__()
        self.coupled = coupled
        self.region_in = nn.ModuleList(nn.Linear(c, embed) for c in channels)
        self.channel_in = nn.ModuleList(nn.Linear(h * w, embed) for h, w in sizes)
        self.block = RegionBlock(embed, heads, mlp, cross_downsample)
        self.region_out = nn.Linear(embed, width)
        self.context_out = nn.Linear(embed, width)
        self.fuse = nn.Linear(2 * width, width)
        self.geometry = _geometry(embed, width) if geometry else None

    def prepare(self, maps: tuple[Tensor, ...]) -> Prepared:
        """maps (B, C_l, H_l, W_l), the channels of each projected to keys and values."""
        tokens = [layer(m.flatten(2)) for layer, m in zip(self.channel_in, maps, strict=True)]  # (B, C_l, E)
        keys, values = zip(*(self.block.cross_attention.keys_values(t) for t in tokens), strict=True)
        return Prepared(maps, keys, values)

    def forward(self, prepared: Prepared, regions: Regions) -> Tensor:
        """(B, R, D)."""
        allowed = torch.eye(regions.valid.shape[1], dtype=torch.bool, device=regions.valid.device)[None, None]  # (1, 1, R, R)
        if self.coupled:
            allowed = allowed | regions.valid[:, None, None]  # (B, 1, R, R)
        alone = [layer(mask_pool(m, regions.masks)) for layer, m in zip(self.region_in, prepared.maps, strict=True)]  # (B, R, E)
        context = [self.block(x, k, v, allowed) for x, k, v in zip(alone, prepared.keys, prepared.values, strict=True)]  # (B, R, E)
        token = self.fuse(torch.cat([self.context_out(_sum(context)), self.region_out(_sum(alone))], -1))  # (B, R, D)
        if self.geometry is None:
            return token
        return token + self.geometry(torch.cat([regions.areas[..., None], regions.boxes], -1))  # (B, R, D)


class LocalToken(nn.Module):
    """The region's own pixels: two 1 x 1 convolutions, pooled to (S / 16) ** 2 values, and an MLP (facts 1.6.D)."""

    def __init__(self, crop_size: int, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        if crop_size < _POOL**2 or crop_size % _POOL**2:
            raise ValueError(f"crop_size: got {crop_size}, expected a multiple of {_POOL**2}")
        self.crop_size = crop_size
        cells = (crop_size // _POOL**2) ** 2
        if cells % heads:
            raise ValueError(f"crop_size {crop_size} gives a local width of {cells}, which does not split into {heads} heads")
        self.shrink = nn.Sequential(nn.Conv2d(3, 5, 1), nn.GELU(), nn.AvgPool2d(_POOL), nn.Conv2d(5, 1, 1), nn.GELU(), nn.AvgPool2d(_POOL))
        self.attention = Attention(cells, heads)
        self.mlp = nn.Sequential(nn.Linear(cells, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, crops: Tensor) -> Tensor:
        """crops (B, R, 3, S, S) -> (B, R, D). The attention sees one token: its output is that token's projected value."""
        if crops.shape[-2:] != (self.crop_size, self.crop_size):
            raise ValueError(f"crops are {tuple(crops.shape[-2:])}, this extractor was built for crop_size {self.crop_size}")
        mixed = _pointwise(self.shrink[0], crops.flatten(0, 1))  # (BR, 5, S, S)
        cells = self.shrink[1:](mixed).flatten(1)  # (BR, S * S / 256)
        token = self.mlp(self.attention(cells[:, None])[:, 0])  # (BR, D)
        return token.unflatten(0, crops.shape[:2])  # (B, R, D)


@REGION_EXTRACTORS.register("mfe")
class MFE(RegionExtractor):
    """The tokens of a region, in the order global, local.

    `blocks` stays empty: `prepare` uses the weights of the block outside its `forward`, where a sharded module would not
    have gathered them.
    """

    neutral = ("global_token.geometry.",)
    idle = ("local_token.attention.query.", "local_token.attention.key.")  # attention over one token has nothing to choose

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        embed: int = 1024,
        heads: int = 8,
        mlp: int = 2048,
        cross_downsample: int = 2,
        crop_size: int = 512,
        local_hidden: int = 512,
        coupled: bool = False,
        geometry: bool = False,
        global_token: bool = True,
        local_token: bool = True,
    ) -> None:
        """
        Args:
            embed: width inside the global token. heads: of every attention. mlp: hidden width of the block.
            cross_downsample: the cross-attention works at `embed / cross_downsample`.
            crop_size: S, pixels; the local token works on (S / 16) ** 2 values.
            local_hidden: hidden width of the local token's MLP.
            coupled: the regions of an image attend to each other, as in the reference when it is given several; False
                keeps each to itself, as in the reference's demo, which gives one at a time.
            geometry: adds an MLP of the region's area and box to the global token. Not in the paper. Its last layer starts
                at zero, so that released weights score the same until it is trained.
            global_token, local_token: the paper's ablations drop one of them.

        Raises:
            ValueError: widths that do not fit each other, or nothing to extract.
        """
        super().__init__(channels, sizes, width)
        if not (global_token or local_token):
            raise ValueError("global_token and local_token are both off: a region needs at least one token")
        if geometry and not global_token:
            raise ValueError("geometry is added to the global token: switch global_token on or geometry off")
        self.tokens = global_token + local_token
        self.coupled = coupled and global_token
        self.crop_size = crop_size if local_token else 0
        self.global_token = (
            GlobalToken(
                channels,
                sizes,
                width,
                embed=embed,
                heads=heads,
                mlp=mlp,
                cross_downsample=cross_downsample,
                coupled=coupled,
                geometry=geometry,
            )
            if global_token
            else None
        )
        self.local_token = LocalToken(crop_size, width, heads=heads, hidden=local_hidden) if local_token else None

    def prepare(self, pyramid: Pyramid) -> Prepared:
        """See the contract.

        Raises:
            ValueError: the pyramid is not the one this extractor was wired for.
        """
        self.check_pyramid(pyramid)
        return Prepared() if self.global_token is None else self.global_token.prepare(pyramid.maps)

    def forward(self, prepared: Prepared, regions: Regions) -> Tensor:
        """See the contract; K is 2, or 1 where a token is switched off."""
        tokens = []
        if self.global_token is not None:
            tokens.append(self.global_token(prepared, regions))
        if self.local_token is not None:
            tokens.append(self.local_token(regions.crops))
        return torch.stack(tokens, 2)  # (B, R, K, D)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"embed": 16, "heads": 2, "mlp": 32, "crop_size": 64, "local_hidden": 16}


def _pointwise(convolution: nn.Module, x: Tensor) -> Tensor:
    """A 1 x 1 convolution of (N, C, H, W) as matrix products: with so few channels several times faster on a CPU."""
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    weight = convolution.weight.flatten(1).expand(len(x), -1, -1)  # (N, C', C)
    return torch.baddbmm(convolution.bias[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])


def _sum(levels: list[Tensor]) -> Tensor:
    return torch.stack(levels).sum(0, dtype=torch.float32).to(levels[0].dtype)


def _geometry(hidden: int, width: int) -> nn.Sequential:
    last = nn.Linear(hidden, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(5, hidden), nn.GELU(), last)  # area, left, top, width, height
