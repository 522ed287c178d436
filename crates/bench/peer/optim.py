"""Optimizer steps."""

import torch

from common import Unsupported, lightly_has


def groups(parameters, decays, weight_decay):
    """Two parameter groups: those that decay, and those that do not."""
    decays = set(decays)
    return [
        {"params": [p for name, p in parameters.items() if name in decays], "weight_decay": weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decays], "weight_decay": 0.0},
    ]


def sgd(parameters, case, variant):
    flags = {"foreach": {"foreach": True}, "fused": {"fused": True}, "single": {"foreach": False}}[variant]
    try:
        return torch.optim.SGD(
            groups(parameters, case["decays"], case["weight_decay"]), lr=case["lr"], momentum=case["momentum"], **flags
        )
    except RuntimeError as error:
        raise Unsupported(str(error)) from error


class ForeachLars:
    """LARS in lightly's form over lists of tensors: a handful of kernels for a whole network, and no value of a norm on the host."""

    def __init__(self, parameters, case):
        decays = set(case["decays"])
        self.adapted = [p for name, p in parameters.items() if name in decays]
        self.others = [p for name, p in parameters.items() if name not in decays]
        self.lr, self.momentum, self.weight_decay, self.eta = (
            case["lr"], case["momentum"], case["weight_decay"], case["eta"])
        self.buffers = {p: torch.zeros_like(p) for p in parameters.values()}

    def ratios(self, weights, gradients):
        norms = [torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, gradients)]
        ratio = self.eta * norms[0] / (norms[1] + self.weight_decay * norms[0] + 1e-8)
        return torch.where((norms[0] > 0) & (norms[1] > 0), ratio, 1.0)

    @torch.no_grad()
    def step(self):
        gradients = [p.grad for p in self.adapted]
        ratios = self.ratios(self.adapted, gradients)
        changes = list(torch._foreach_add(gradients, self.adapted, alpha=self.weight_decay))
        torch._foreach_mul_(changes, list(ratios.unbind()))
        changes += [p.grad for p in self.others]
        weights = self.adapted + self.others
        buffers = [self.buffers[p] for p in weights]
        torch._foreach_mul_(buffers, self.momentum)
        torch._foreach_add_(buffers, changes)
        torch._foreach_add_(weights, buffers, alpha=-self.lr)


def lars(parameters, case, variant):
    if variant == "foreach":
        return ForeachLars(parameters, case)
    return lightly_has("lightly.utils.lars", "LARS")(
        groups(parameters, case["decays"], case["weight_decay"]),
        lr=case["lr"], momentum=case["momentum"], trust_coefficient=case["eta"],
    )


class Optimizer:
    def __init__(self, case, inputs, variant):
        parameters = {name[10:]: p for name, p in inputs.items() if name.startswith("parameter.")}
        self.parameters = {name: torch.nn.Parameter(p.clone()) for name, p in parameters.items()}
        for name, p in self.parameters.items():
            p.grad = inputs["gradient." + name].clone()
        make = lars if case["kind"] == "lars" else sgd
        self.optimizer = make(self.parameters, case, variant)

    def run(self):
        self.optimizer.step()

    def outputs(self):
        self.run()
        self.run()
        return {name: p.detach() for name, p in self.parameters.items()}


class Ema:
    def __init__(self, case, inputs, variant):
        self.names = [name[10:] for name in inputs if name.startswith("parameter.")]
        parameters = lambda kind: torch.nn.ParameterList([inputs[kind + name].clone() for name in self.names])
        self.target, self.online = parameters("parameter."), parameters("gradient.")
        self.tau = case["tau"]
        self.lightly = lightly_has("lightly.models.utils", "update_momentum") if variant == "lightly" else None

    @torch.no_grad()
    def run(self):
        if self.lightly:
            self.lightly(self.online, self.target, self.tau)
        else:
            torch._foreach_lerp_(list(self.target), list(self.online), 1.0 - self.tau)

    def outputs(self):
        self.run()
        self.run()
        return {name: p.detach() for name, p in zip(self.names, self.target)}
