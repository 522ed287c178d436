"""Checkpoints of full size as other projects write them, made with their real classes, and what PyTorch says of what came out of them.

`python weights.py NAME FOLDER` writes FOLDER/NAME.pth with the dictionary and names of the project, and FOLDER/NAME.values with two images [2, H, W, 3] and the
features that the module gives for them in evaluation mode. Then it answers a line with a line of JSON: `load` with the seconds that torch.load takes,
`check FILE` (torchvision's names), `timm FILE` and `detectron2 FILE` with how many tensors are equal to the byte and how many there are.
"""

import json
import sys
import time
from collections import OrderedDict
from pathlib import Path

import timm
import torch
from lightly.models.modules import SimCLRProjectionHead
from safetensors.torch import load_file, save_file
from torchvision.models import resnet


def twice(block, depths):
    """torchvision's ResNet with every channel doubled, the stem's included."""

    class Wide(resnet.ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            self.inplanes = 128 if planes == 64 else self.inplanes
            return super()._make_layer(block, planes * 2, *args, **kwargs)

    model = Wide(block, depths)
    model.conv1 = torch.nn.Conv2d(3, 128, 7, 2, 3, bias=False)
    model.bn1 = torch.nn.BatchNorm2d(128)
    model.fc = torch.nn.Linear(4096, 1000)
    return model


def seeded(model):
    """Running statistics and scales that are no ones and zeros."""
    generator = torch.Generator().manual_seed(7)
    for name, value in model.state_dict().items():
        draw = torch.rand(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(0.5 + draw)
        elif name.endswith("num_batches_tracked"):
            value.fill_(int(100 * draw.item()))
        elif value.ndim == 1 and "fc" not in name:
            last = ".bn3." in name or ("bn2" in name and not hasattr(model.layer1[0], "conv3"))
            value.copy_((0.3 if last else 1.0) + 0.1 * draw if name.endswith("weight") else 0.1 * draw)
    return model.eval()


def prefixed(state, prefix, skip="fc."):
    return OrderedDict((prefix + name, value) for name, value in state.items() if not name.startswith(skip))


def checkpoint(name, model):
    """The dictionary that the project's training script saves."""
    project = name.split("_")[0]
    state = model.state_dict()
    small = torch.zeros(4, 4)
    if project == "moco":
        both = {**prefixed(state, "module.encoder_q."), **prefixed(state, "module.encoder_k.")}
        heads = {"module.encoder_q.fc.0.weight": small, "module.encoder_q.fc.2.weight": small, "module.queue": small, "module.queue_ptr": torch.zeros(1).long()}
        return {"epoch": 200, "arch": "resnet50", "state_dict": {**both, **heads}, "optimizer": {"state": {}, "param_groups": []}}
    if project == "simsiam":
        return {"epoch": 100, "arch": "resnet50", "state_dict": {**prefixed(state, "module.encoder."), "module.predictor.0.weight": small}, "optimizer": {}}
    if project == "barlowtwins":
        return {"epoch": 1000, "model": {**prefixed(state, "module.backbone."), "module.projector.0.weight": small}, "optimizer": {}}
    if project == "swav":
        return {**prefixed(state, "module."), "module.projection_head.0.weight": small, "module.prototypes.weight": small}
    if project == "solo-learn":
        return {"epoch": 1, "state_dict": {**prefixed(state, "backbone."), "projector.0.weight": small, "classifier.weight": small}, "hyper_parameters": {}}
    if project == "lightly":
        numbered = torch.nn.Sequential(*list(model.children())[:-1]).state_dict()
        return {"epoch": 1, "state_dict": {**prefixed(numbered, "backbone."), **prefixed(SimCLRProjectionHead(512, 512, 128).state_dict(), "projection_head.")}}
    if project == "byol":
        return OrderedDict((name, value) for name, value in state.items() if not name.endswith("num_batches_tracked"))
    if project == "timm":
        return {"epoch": 1, "arch": "resnet101", "state_dict": state, "version": 2, "metric": 0.5}
    return state


def build(name):
    if name.startswith("timm_"):
        return timm.create_model(name.removeprefix("timm_"), pretrained=False)
    if name.endswith("_2x"):
        return twice(resnet.Bottleneck, [3, 4, 6, 3])
    return getattr(resnet, name.split("_")[1])()


def to_detectron2(name):
    """The names that detectron2's tools/convert-torchvision-to-d2.py gives, rule by rule."""
    name = name if "layer" in name else "stem." + name
    for layer in (1, 2, 3, 4):
        name = name.replace(f"layer{layer}", f"res{layer + 1}")
    for norm in (1, 2, 3):
        name = name.replace(f"bn{norm}", f"conv{norm}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def equal(ours, theirs):
    """How many of their tensors ours has, to the byte."""
    same = [k for k, v in theirs.items() if k in ours and ours[k].dtype == v.dtype and ours[k].shape == v.shape and ours[k].numpy().tobytes() == v.numpy().tobytes()]
    return {"equal": len(same), "of": len(theirs), "more": len(set(ours) - set(theirs))}


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(1)
    model = seeded(build(name))
    file = folder / f"{name}.pth"
    torch.save(checkpoint(name, model), file)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        features = torch.nn.Sequential(*list(model.children())[:-1], torch.nn.Flatten(1))(images)
    save_file({"images": images.permute(0, 2, 3, 1).contiguous(), "features": features.contiguous()}, folder / f"{name}.values")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    if name.startswith("byol"):
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    print(json.dumps({"file": str(file), "version": f"PyTorch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        word, _, path = line.strip().partition(" ")
        if word == "load":
            started = time.perf_counter()
            torch.load(file, map_location="cpu", weights_only=True)
            answer = {"seconds": time.perf_counter() - started}
        elif word == "check":
            answer = equal(load_file(path), state)
        elif word == "timm":
            other = timm.create_model(name.split("_")[1], pretrained=False, num_classes=0)
            timm.models.load_checkpoint(other, path, strict=True)
            answer = equal(other.state_dict(), state)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            wanted = {to_detectron2(k): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
            answer = equal(loaded["model"], wanted) | {"heuristics": loaded["matching_heuristics"]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
