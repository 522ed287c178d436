"""NT-Xent in PyTorch for batches whose similarities do not fit, or fit badly: by blocks of rows, made again on the way back."""

import torch
import torch.nn.functional as F

from common import compiled

# Values of a block of similarities: 1 GB in f32.
BLOCK = 1 << 28


def forward_block(rows, z, scale, first):
    """The logarithm of the sum of exponentials of each row, its own column left out. Rows have length 1, so no logit passes `scale`,
    which takes the place of the largest one."""
    logits = (rows @ z.T).float() * scale - scale
    own = torch.arange(len(z), device=z.device)[None, :] == first + torch.arange(len(rows), device=z.device)[:, None]
    return scale + logits.exp().masked_fill(own, 0.0).sum(1).log()


def backward_block(rows, z, scale, first, sums, every, d, d_every):
    """Similarities are symmetric: row i has its gradient as a row, and as everybody's column. One product gives both."""
    logits = (rows @ z.T).float() * scale
    own = torch.arange(len(z), device=z.device)[None, :] == first + torch.arange(len(rows), device=z.device)[:, None]
    weights = d[:, None] * (logits - sums[:, None]).exp() + d_every[None, :] * (logits - every[None, :]).exp()
    return weights.masked_fill(own, 0.0).to(z.dtype) @ z * scale


class LogSumExp(torch.autograd.Function):
    """`[M, D]` rows of length 1 to the log-sum-exp of each one's similarities to all others, times `scale`."""

    @staticmethod
    def forward(ctx, z, scale, blocks):
        step = max(1, BLOCK // len(z))
        index = [(i, torch.tensor(i, device=z.device)) for i in range(0, len(z), step)]
        sums = torch.cat([blocks[0](z[i:i + step], z, scale, first) for i, first in index])
        ctx.save_for_backward(z, sums)
        ctx.scale, ctx.blocks, ctx.step, ctx.index = scale, blocks, step, index
        return sums

    @staticmethod
    def backward(ctx, d):
        z, sums = ctx.saved_tensors
        step = ctx.step
        parts = [
            ctx.blocks[1](z[i:i + step], z, ctx.scale, first, sums[i:i + step], sums, d[i:i + step], d)
            for i, first in ctx.index
        ]
        return torch.cat(parts).to(z.dtype), None, None


class ChunkedNtXent:
    """SimCLR, eq. 1, with memory for one block of similarities."""

    def __init__(self, temperature, variant):
        self.scale = 1.0 / temperature
        kind = variant.removeprefix("chunked_") if variant != "chunked" else ""
        self.blocks = [compiled(block, kind) if kind else block for block in (forward_block, backward_block)]

    def __call__(self, z1, z2):
        # Norms and positive pairs in f32, products in the precision of what came.
        a, b = F.normalize(z1.float()), F.normalize(z2.float())
        sums = LogSumExp.apply(torch.cat([a, b]).to(z1.dtype), self.scale, self.blocks)
        return sums.mean() - self.scale * (a * b).sum(1).mean()
