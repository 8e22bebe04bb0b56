"""Muon for the matrices of blocks (Jordan 2024: momentum, made orthogonal by Newton-Schulz steps), AdamW for the rest."""
import torch
import torch.distributed as dist


def orthogonal(g, steps=4):
    """[n, r, c] -> nearly orthogonal matrices of the same row and column spaces. Coefficients: Jordan's quintic."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.transpose(-1, -2) if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(g.dtype)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        gram = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, gram, x, beta=3.4445)
    return x.transpose(-1, -2) if tall else x


class Optimizer:
    """`step(factor)` with the gradients in the parameters, which are the mean over all processes already."""

    def __init__(self, named, lr, muon_lr, precision, weight_decay=0.05, momentum=0.95):
        named = [(name, p) for name, p in named if p.requires_grad]
        is_block = lambda name, p: p.dim() == 2 and ".layers." in "." + name
        self.matrices = [p for name, p in named if is_block(name, p)]
        self.everything = [p for _, p in named]
        rest = [(name, p) for name, p in named if not is_block(name, p)]
        self.adam = torch.optim.AdamW(
            [
                dict(params=[p for _, p in rest if p.dim() > 1], weight_decay=weight_decay),
                dict(params=[p for _, p in rest if p.dim() <= 1], weight_decay=0.0),
            ],
            lr, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self.lr, self.muon_lr, self.momentum, self.precision = lr, muon_lr, momentum, precision
        self.velocity = [torch.zeros_like(p) for p in self.matrices]
        shapes = sorted({tuple(p.shape) for p in self.matrices})
        self.groups = [[i for i, p in enumerate(self.matrices) if tuple(p.shape) == s] for s in shapes]

    @torch.no_grad()
    def step(self, factor, clip=1.0):
        torch.nn.utils.clip_grad_norm_(self.everything, clip)
        for group in self.adam.param_groups:
            group["lr"] = self.lr * factor
        self.adam.step()
        if self.matrices and self.matrices[0].grad is not None:
            self._muon(self.muon_lr * factor)
        for p in self.everything:
            p.grad = None

    def _muon(self, lr, decay=0.01):
        ours, n = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates = [torch.zeros_like(p) for p in self.matrices]
        for group in self.groups:
            for i in group:
                self.velocity[i].mul_(self.momentum).add_(self.matrices[i].grad)
            mine = group[ours::n]  # each process works out its share of the matrices
            if mine:
                g = torch.stack([self.matrices[i].grad + self.momentum * self.velocity[i] for i in mine])
                for i, update in zip(mine, orthogonal(g.to(self.precision)).float()):
                    updates[i] = update
        if n > 1:
            flat = torch.cat([u.flatten() for u in updates])
            dist.all_reduce(flat)
            updates = [u.view_as(p) for u, p in zip(flat.split([p.numel() for p in self.matrices]), self.matrices)]
        for p, update in zip(self.matrices, updates):
            p.mul_(1 - lr * decay).add_(update, alpha=-lr * max(1, p.shape[0] / p.shape[1]) ** 0.5)

    def state(self):
        return dict(adam=self.adam.state_dict(), velocity=self.velocity)

    def load(self, state):
        self.adam.load_state_dict(state["adam"])
        for mine, kept in zip(self.velocity, state["velocity"]):
            mine.copy_(kept)
