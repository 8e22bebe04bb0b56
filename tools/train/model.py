"""The graph that the engine runs, in the published layout: the names of the parameters are those of a MobileVLM V2
checkpoint, so that `state_dict` is the checkpoint.

    CLIP vision transformer -> LDPv2 -> LLaMA
"""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Sizes:
    image: int = 168  # pixels
    patch: int = 14
    vision_width: int = 192
    vision_ffn: int = 768
    vision_layers: int = 6
    vision_heads: int = 3
    hidden: int = 256
    ffn: int = 704
    layers: int = 4
    heads: int = 4
    vocab: int = 1024
    context: int = 512
    rope_theta: float = 10000.0
    eps: float = 1e-5

    @property
    def grid(self):
        return self.image // self.patch


def joined(layers, x):
    """What each of some linear layers makes of x, in one product."""
    weights, biases = ([getattr(m, name) for m in layers] for name in ("weight", "bias"))
    bias = torch.cat(biases) if biases[0] is not None else None
    return F.linear(x, torch.cat(weights), bias).chunk(len(layers), -1)


def attention(q, k, v, n_heads, mask=None):
    """q, k, v [B, N, D] -> [B, N, D], and who looks where [B, n_heads, N, N]. In plain products: on CPUs they are faster in
    bf16 than the fused kernel."""
    batch, n, width = q.shape
    q, k, v = (x.view(batch, -1, n_heads, width // n_heads).transpose(1, 2) for x in (q, k, v))
    scores = (q * (width // n_heads) ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).reshape(batch, n, width), weights


# ---- Vision tower ---------------------------------------------------------------------------


class SelfAttention(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        return self.out_proj(attention(*joined((self.q_proj, self.k_proj, self.v_proj), x), self.n_heads)[0])


class MLP(nn.Module):
    """fc2(quick_gelu(fc1(x))). quick_gelu(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702: the factors go to the weights."""

    def __init__(self, width, ffn):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)

    def forward(self, x):
        inner = F.silu(F.linear(x, 1.702 * self.fc1.weight, 1.702 * self.fc1.bias))
        return F.linear(inner, self.fc2.weight / 1.702, self.fc2.bias)


class VisionLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(s.vision_width, eps=s.eps) for _ in range(2))
        self.self_attn = SelfAttention(s.vision_width, s.vision_heads)
        self.mlp = MLP(s.vision_width, s.vision_ffn)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, s.vision_width, s.patch, s.patch, bias=False)
        self.class_embedding = nn.Parameter(0.02 * torch.randn(s.vision_width))
        self.position_embedding = nn.Embedding(s.grid**2 + 1, s.vision_width)

    def forward(self, pictures, keep):
        """[B, 3, S, S] -> [B, 1 + K, D]: the class token and the patches `keep` [B, K] (all without it)."""
        weight, position = self.patch_embedding.weight, self.position_embedding.weight
        batch, _, side, _ = pictures.shape
        patch, grid = weight.shape[-1], side // weight.shape[-1]
        x = pictures.view(batch, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5).reshape(batch, grid**2, -1)
        at = resized_positions(position, grid)[1:].expand(batch, -1, -1)
        if keep is not None:
            x, at = (t.gather(1, keep[..., None].expand(-1, -1, t.shape[-1])) for t in (x, at))
        patches = F.linear(x, weight.flatten(1)) + at
        return torch.cat([(self.class_embedding + position[0]).expand(batch, 1, -1), patches], 1)


class VisionModel(nn.Module):
    """CLIP's vision_model. All layers are read (mm_vision_select_layer -1), so there is no norm after them."""

    def __init__(self, s):
        super().__init__()
        self.embeddings = Embeddings(s)
        self.pre_layrnorm = nn.LayerNorm(s.vision_width, eps=s.eps)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(VisionLayer(s) for _ in range(s.vision_layers))})

    def forward(self, pictures, keep=None):
        """-> rows of the patches after the last layer, and those of the middle one (which a teacher is compared with)."""
        x = self.pre_layrnorm(self.embeddings(pictures, keep))
        for i, layer in enumerate(self.encoder["layers"]):
            x = layer(x)
            if i == len(self.encoder["layers"]) // 2 - 1:
                middle = x
        return x[:, 1:], middle[:, 1:]


def resized_positions(position, grid):
    """Positions of a tower for another grid, [1 + grid * grid, D]: bicubic, the class token's as it is."""
    old = math.isqrt(len(position) - 1)
    if old == grid:
        return position
    rows = position[1:].t().reshape(1, -1, old, old)
    rows = F.interpolate(rows.float(), size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([position[:1], rows.flatten(2)[0].t()])


# ---- Projector and decoder ------------------------------------------------------------------


class LDPv2(nn.Module):
    """Two linear layers, 2 x 2 means, and a depthwise convolution beside its input."""

    def __init__(self, s):
        super().__init__()
        self.mlp = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(s.vision_width, s.hidden), nn.GELU(), nn.Linear(s.hidden, s.hidden))})
        self.peg = nn.ModuleDict({"peg": nn.Sequential(nn.Conv2d(s.hidden, s.hidden, 3, 1, 1, groups=s.hidden))})

    def forward(self, rows):
        x = self.mlp["mlp"](rows)
        batch, n, width = x.shape
        grid = math.isqrt(n)
        x = F.avg_pool2d(x.transpose(1, 2).reshape(batch, width, grid, grid), 2)
        return (self.peg["peg"](x) + x).flatten(2).transpose(1, 2)


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def linear(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


class CausalAttention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.n_heads = s.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (linear(s.hidden, s.hidden) for _ in range(4))

    def turned(self, x, cos, sin):
        """rope: the pair (i, i + head_dim / 2) of each head turns by the position's angles, [N, head_dim / 2]."""
        a, b = x.view(*x.shape[:2], self.n_heads, -1).chunk(2, -1)
        cos, sin = cos[:, None], sin[:, None]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).view_as(x)

    def forward(self, x, cos, sin, mask):
        q, k, v = joined((self.q_proj, self.k_proj, self.v_proj), x)
        q, k = (self.turned(t, cos, sin).to(v.dtype) for t in (q, k))
        mixed, weights = attention(q, k, v, self.n_heads, mask)
        return self.o_proj(mixed), weights


class GatedMLP(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_proj, self.up_proj = linear(s.hidden, s.ffn), linear(s.hidden, s.ffn)
        self.down_proj = linear(s.ffn, s.hidden)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (RMSNorm(s.hidden, s.eps) for _ in range(2))
        self.self_attn, self.mlp = CausalAttention(s), GatedMLP(s)

    def forward(self, x, cos, sin, mask):
        mixed, weights = self.self_attn(self.input_layernorm(x), cos, sin, mask)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), weights


def tower_of(vision_model):
    """The two wrappers of the published names, model.vision_tower.vision_tower.vision_model."""
    return nn.ModuleDict({"vision_tower": nn.ModuleDict({"vision_model": vision_model})})


class MobileVLM(nn.Module):
    """The embeddings are the head too (tie_word_embeddings)."""

    def __init__(self, s):
        super().__init__()
        self.sizes = s
        self.model = nn.ModuleDict(
            dict(
                embed_tokens=nn.Embedding(s.vocab, s.hidden),
                layers=nn.ModuleList(DecoderLayer(s) for _ in range(s.layers)),
                norm=RMSNorm(s.hidden, s.eps),
                mm_projector=LDPv2(s),
                vision_tower=tower_of(VisionModel(s)),
            )
        )
        init_decoder(self.model)
        angle = torch.arange(s.context)[:, None] * s.rope_theta ** (-torch.arange(0, s.hidden // s.heads, 2) * s.heads / s.hidden)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    @property
    def tower(self):
        return self.model["vision_tower"]["vision_tower"]["vision_model"]

    def rows_of(self, pictures):
        """[B, 3, S, S] -> the decoder's rows of the pictures [B, grid * grid / 4, hidden], the tower's [B, grid * grid, width]."""
        features = self.tower(pictures)[0]
        return self.model["mm_projector"](features), features

    def forward(self, before, rows, after):
        """ids before the picture [1, N0], the picture's rows [B, N1, hidden], ids behind [B, N2] -> what each id of
        `after`, and the one that follows it, makes the head say: last hidden states [B, N2, hidden]; and how much each of
        these ids looks at the picture's rows, by layers [[B, heads, N2, N1]]."""
        embed = self.model["embed_tokens"]
        x = torch.cat([embed(before).expand(len(rows), -1, -1), rows.to(embed.weight.dtype), embed(after)], 1)
        n = x.shape[1]
        mask, looks = torch.full((n, n), -1e9).triu(1), []
        picture = slice(before.shape[1], before.shape[1] + rows.shape[1])
        for layer in self.model["layers"]:
            x, weights = layer(x, self.cos[:n], self.sin[:n], mask)
            looks.append(weights[:, :, n - after.shape[1] :, picture])
        return self.model["norm"](x[:, n - after.shape[1] :]), looks

    def head(self, states):
        return F.linear(states, self.model["embed_tokens"].weight)


# ---- First values ---------------------------------------------------------------------------


def init_decoder(model):
    nn.init.normal_(model["embed_tokens"].weight, std=0.02)
    for part in (model["layers"], model["mm_projector"]):
        for m in part.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=0.04)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)


def init_tower(tower, s):
    """What a tower that sees few pictures need not learn: patch filters are the lowest terms of a cosine transform,
    positions are sines, and attention begins by looking at what is like the row itself (mimetic initialisation,
    Trockman and Kolter 2023)."""
    filters = cosine_filters(s.patch, 10)[: s.vision_width]
    tower.embeddings.patch_embedding.weight.data.copy_(filters / s.patch**0.5)
    nn.init.normal_(tower.embeddings.position_embedding.weight, std=0.02)
    tower.embeddings.position_embedding.weight.data[1:] = 0.3 * sine_positions(s.grid, s.vision_width)
    for m in tower.encoder.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.05)
            nn.init.zeros_(m.bias)
    for layer in tower.encoder["layers"]:
        layer.mlp.fc2.weight.data.div_(math.sqrt(s.vision_layers / 2))
        init_attention(layer.self_attn, s.vision_width)


def cosine_filters(side, n):
    """[3 n n, 3, side, side]: light before colour, low frequencies before high ones."""
    at = torch.arange(side) + 0.5
    wave = torch.stack([math.sqrt((2 if k else 1) / side) * torch.cos(math.pi * k * at / side) for k in range(n)])
    colour = torch.tensor([[0.577, 0.577, 0.577], [0.707, 0, -0.707], [0.408, -0.816, 0.408]])
    order = sorted((math.hypot(i, j) + (3 if k else 0), i, j, k) for i in range(n) for j in range(n) for k in range(3))
    return torch.stack([torch.einsum("y,x,c->cyx", wave[i], wave[j], colour[k]) for _, i, j, k in order])


def sine_positions(grid, width):
    """[grid * grid, width]: sines and cosines of column and row."""
    y, x = torch.meshgrid(torch.arange(grid).float(), torch.arange(grid).float(), indexing="ij")
    quarter = width // 4
    frequency = 8 / grid * 100 ** (-torch.arange(quarter) / quarter)
    return torch.cat([f(t.reshape(-1, 1) * frequency) for t in (x, y) for f in (torch.sin, torch.cos)], 1)


def init_attention(m, width):
    head = width // m.n_heads
    for h in range(m.n_heads):
        like = 0.7 * torch.randn(width, width) / math.sqrt(width) + 0.7 * torch.eye(width)
        u, s, v = torch.linalg.svd(like)
        m.q_proj.weight.data[h * head : (h + 1) * head] = (u[:, :head] * s[:head].sqrt()).t()
        m.k_proj.weight.data[h * head : (h + 1) * head] = s[:head].sqrt()[:, None] * v[:head]
    u, s, v = torch.linalg.svd(0.4 * torch.randn(width, width) / math.sqrt(width) - 0.4 * torch.eye(width))
    m.v_proj.weight.data = s.sqrt()[:, None] * v
    m.out_proj.weight.data = u * s.sqrt()
