"""Whole training steps: torchvision's ResNets, lightly's losses, PyTorch's SGD."""

import contextlib

import torch
import torchvision
from torch import nn

from common import LAYOUTS
from losses import lightly_barlow_twins, lightly_nt_xent
from optim import sgd


class Network(nn.Module):
    """Backbone and projector under Diptych's names."""

    def __init__(self, case):
        super().__init__()
        backbone = torchvision.models.get_model(case["backbone"], weights=None)
        features = backbone.fc.in_features
        backbone.fc = nn.Identity()
        if case["stem"] == "cifar":
            backbone.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            backbone.maxpool = nn.Identity()
        self.backbone = backbone
        widths, layers = case["config"]["projector"], []
        for i, width in enumerate(widths):
            layers.append(nn.Linear(features, width, bias=False))
            features = width
            if i + 1 < len(widths):
                layers += [nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
            elif case["method"] == "simclr":
                # SimCLR's last norm has a scale and no shift.
                layers.append(nn.BatchNorm1d(width))
                layers[-1].register_parameter("bias", None)
        self.projector = nn.Sequential(*layers)

    def forward(self, x):
        return self.projector(self.backbone(x))


class Step:
    def __init__(self, case, inputs, variant):
        layout = LAYOUTS[variant]
        self.network = Network(case)
        weights = {name[10:]: p for name, p in inputs.items() if name.startswith("parameter.")}
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise ValueError(f"other parameters: {missing} are missing, {unexpected} are too many")
        self.network = self.network.to(memory_format=layout).train()
        views = [inputs[f"view.{i}"].float().permute(0, 3, 1, 2).contiguous(memory_format=layout) for i in range(2)]
        self.views = [view.clone(memory_format=torch.preserve_format) for view in views]
        self.fused = case["method"] == "simclr"
        loss = lightly_nt_xent(case["config"]["temperature"]) if self.fused else lightly_barlow_twins(case["config"]["lambda"])
        self.loss = loss
        self.bf16 = case["dtype"] == "bf16"
        self.parameters = dict(self.network.named_parameters())
        self.order = [name[7:] for name in sorted(inputs) if name.startswith("decays.")]
        decays = [name for name in self.order if inputs["decays." + name].item() == 1.0]
        self.optimizer = sgd(self.parameters, {**case, "decays": decays}, "fused")

    def step(self, norms=False):
        self.optimizer.zero_grad(set_to_none=True)
        autocast = torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with autocast:
            if self.fused:
                z1, z2 = self.network(torch.cat(self.views)).chunk(2)
            else:
                z1, z2 = [self.network(view) for view in self.views]
        loss = self.loss(z1.float(), z2.float())
        loss.backward()
        value = loss.item()
        found = [self.parameters[name].grad.float().norm().item() for name in self.order] if norms else None
        self.optimizer.step()
        return value, found

    def run(self):
        self.step()

    def outputs(self):
        first, norms = self.step(norms=True)
        second, _ = self.step()
        return {"losses": torch.tensor([first, second]), "gradient norms": torch.tensor(norms)}
