"""Losses of two views' embeddings: lightly's, and plain PyTorch as one would write it from the paper."""

import torch
import torch.nn.functional as F


def nt_xent(z1, z2, temperature):
    """SimCLR, eq. 1: the 2N x 2N similarities, the diagonal left out, and cross entropy."""
    z = F.normalize(torch.cat([z1, z2]))
    n = len(z1)
    similarity = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    partner = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
    return F.cross_entropy(similarity, partner)


def barlow_twins(z1, z2, weight):
    """The official code's loss, on one device."""
    n, d = z1.shape
    c = F.batch_norm(z1, None, None, training=True).T @ F.batch_norm(z2, None, None, training=True)
    c.div_(n)
    on = torch.diagonal(c).add_(-1).pow_(2).sum()
    off = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:].flatten().pow_(2).sum()
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
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=temperature)


def lightly_barlow_twins(weight):
    from lightly.loss import BarlowTwinsLoss

    return BarlowTwinsLoss(lambda_param=weight)


def make_nt_xent(case, inputs, variant):
    temperature = case["temperature"]
    plain = lambda z1, z2: nt_xent(z1, z2, temperature)
    return Loss(lightly_nt_xent(temperature) if variant == "lightly" else plain, inputs)


def make_barlow_twins(case, inputs, variant):
    weight = case["lambda"]
    plain = lambda z1, z2: barlow_twins(z1, z2, weight)
    return Loss(lightly_barlow_twins(weight) if variant == "lightly" else plain, inputs)
