"""Whole training steps: torchvision's ResNets, PyTorch's SGD, and lightly's losses or our plain ones."""

import contextlib

import torch
import torchvision
from torch import nn

from common import Unsupported, compiled, layout
from losses import barlow_twins, lightly_barlow_twins, lightly_nt_xent, nt_xent
from optim import sgd


class Network(nn.Module):
    """Backbone and projector under Diptych's names."""

    def __init__(self, case):
        super().__init__()
        backbone = torchvision.models.get_model(case["backbone"], weights=None)
        if case["base"]:
            backbone = narrow(case["base"])
        features = backbone.fc.in_features
        backbone.fc = nn.Identity()
        if case["stem"] == "cifar":
            backbone.conv1 = nn.Conv2d(3, backbone.conv1.out_channels, 3, 1, 1, bias=False)
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


def narrow(base):
    """torchvision's ResNet-18 with another number of channels; only for trying things out."""
    net = torchvision.models.resnet18(weights=None)
    net.inplanes = base
    net.conv1, net.bn1 = nn.Conv2d(3, base, 7, 2, 3, bias=False), nn.BatchNorm2d(base)
    block = torchvision.models.resnet.BasicBlock
    net.layer1 = net._make_layer(block, base, 2)
    net.layer2, net.layer3, net.layer4 = (net._make_layer(block, base << i, 2, stride=2) for i in (1, 2, 3))
    net.fc = nn.Linear(8 * base, 1)
    return net


def loss_of(case, variant):
    """lightly's on the CPU, as published figures have it; on a GPU plain functions that torch.compile sees through."""
    simclr, config = case["method"] == "simclr", case["config"]
    if variant in ("channels_last", "contiguous"):
        with contextlib.suppress(Unsupported):
            return lightly_nt_xent(config["temperature"]) if simclr else lightly_barlow_twins(config["lambda"])
    if simclr:
        return lambda z1, z2: nt_xent(z1, z2, config["temperature"])
    return lambda z1, z2: barlow_twins(z1, z2, config["lambda"])


class Step:
    def __init__(self, case, inputs, variant):
        weights = {name[10:]: p for name, p in inputs.items() if name.startswith("parameter.")}
        device = next(iter(weights.values())).device
        self.device, self.bf16 = device.type, case["precision"] == "bf16"
        self.network = Network(case)
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise ValueError(f"other parameters: {missing} are missing, {unexpected} are too many")
        self.network = self.network.to(device, memory_format=layout(variant)).train()
        views = [inputs[f"view.{i}"].permute(0, 3, 1, 2) for i in range(2)]
        if self.device == "cpu":
            views = [view.float() for view in views]
        self.views = [view.clone().contiguous(memory_format=layout(variant)) for view in views]
        self.together = case["method"] == "simclr"
        self.loss = loss_of(case, variant)
        self.graphs = variant == "compile_reduce_overhead"
        self.forward = compiled(self.forward_plain, variant)
        self.parameters = dict(self.network.named_parameters())
        self.order = [name[7:] for name in sorted(inputs) if name.startswith("decays.")]
        decays = [name for name in self.order if inputs["decays." + name].item() == 1.0]
        self.optimizer = sgd(self.parameters, {**case, "decays": decays}, "fused")

    def forward_plain(self, view1, view2):
        autocast = torch.autocast(self.device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with autocast:
            if self.together:
                z1, z2 = self.network(torch.cat([view1, view2])).chunk(2)
            else:
                z1, z2 = self.network(view1), self.network(view2)
        return self.loss(z1.float(), z2.float())

    def step(self, norms=False):
        self.optimizer.zero_grad(set_to_none=True)
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        loss = self.forward(*self.views)
        loss.backward()
        found = [self.parameters[name].grad.float().norm().item() for name in self.order] if norms else None
        # A graph's next replay writes over it.
        loss = loss.detach().clone()
        self.optimizer.step()
        return loss, found

    def run(self):
        self.step()

    def outputs(self):
        first, norms = self.step(norms=True)
        second, _ = self.step()
        return {"losses": torch.stack([first, second]), "gradient norms": torch.tensor(norms)}
