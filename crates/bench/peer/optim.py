"""Optimizer steps."""

import torch

from common import Unsupported


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


def lars(parameters, case):
    from lightly.utils.lars import LARS

    return LARS(
        groups(parameters, case["decays"], case["weight_decay"]),
        lr=case["lr"], momentum=case["momentum"], trust_coefficient=case["eta"],
    )


class Optimizer:
    def __init__(self, case, inputs, variant):
        parameters = {name[10:]: p for name, p in inputs.items() if name.startswith("parameter.")}
        self.parameters = {name: torch.nn.Parameter(p.clone()) for name, p in parameters.items()}
        for name, p in self.parameters.items():
            p.grad = inputs["gradient." + name].clone()
        self.optimizer = lars(self.parameters, case) if case["kind"] == "lars" else sgd(self.parameters, case, variant)

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
        self.tau, self.variant = case["tau"], variant

    @torch.no_grad()
    def run(self):
        if self.variant == "lightly":
            from lightly.models.utils import update_momentum

            update_momentum(self.online, self.target, self.tau)
        else:
            torch._foreach_lerp_(list(self.target), list(self.online), 1.0 - self.tau)

    def outputs(self):
        self.run()
        self.run()
        return {name: p.detach() for name, p in zip(self.names, self.target)}
