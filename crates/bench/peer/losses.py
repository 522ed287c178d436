"""Losses of two views' embeddings: lightly's, and plain PyTorch as one would write it from the paper, compiled or not."""

import torch
import torch.nn.functional as F

from common import compiled, lightly_has
from contrast import ChunkedNtXent


def nt_xent(z1, z2, temperature):
    """SimCLR, eq. 1: the 2N x 2N similarities, the diagonal left out, and cross entropy. Products in the precision of what came."""
    dtype, z = z1.dtype, F.normalize(torch.cat([z1, z2]).float())
    n, z = len(z1), z.to(dtype)
    similarity = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, partner).float()


def barlow_twins(z1, z2, weight):
    """The official code's loss, on one device; the product in the precision of what came."""
    n, d = z1.shape
    norm = lambda z: F.batch_norm(z.float(), None, None, training=True).to(z.dtype)
    c = (norm(z1).T @ norm(z2)).float().div_(n)
    on = torch.diagonal(c).add(-1).pow(2).sum()
    off = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:].pow(2).sum()
    return on + weight * off


class Loss:
    def __init__(self, function, inputs):
        self.function = function
        self.z = [inputs["z1"].clone().requires_grad_(), inputs["z2"].clone().requires_grad_()]

    def run(self):
        loss = self.function(*self.z)
        return loss, torch.autograd.grad(loss, self.z)

    def outputs(self):
        loss, (d1, d2) = self.run()
        return {"loss": loss.detach(), "z1.grad": d1, "z2.grad": d2}


def lightly_nt_xent(temperature):
    return lightly_has("lightly.loss", "NTXentLoss")(temperature=temperature)


def lightly_barlow_twins(weight):
    return lightly_has("lightly.loss", "BarlowTwinsLoss")(lambda_param=weight)


def make_nt_xent(case, inputs, variant):
    temperature = case["temperature"]
    if variant == "lightly":
        return Loss(lightly_nt_xent(temperature), inputs)
    if variant.startswith("chunked"):
        return Loss(ChunkedNtXent(temperature, variant), inputs)
    return Loss(compiled(lambda z1, z2: nt_xent(z1, z2, temperature), variant), inputs)


def make_barlow_twins(case, inputs, variant):
    weight = case["lambda"]
    if variant == "lightly":
        return Loss(lightly_barlow_twins(weight), inputs)
    return Loss(compiled(lambda z1, z2: barlow_twins(z1, z2, weight), variant), inputs)
