"""Random views by torchvision's transforms, image by image: a whole batch at once would get the same crop and colors."""

import torch
from torchvision.transforms import InterpolationMode, v2


def pipeline(case):
    """The recipe as torchvision writes it."""
    blur = v2.GaussianBlur(kernel_size=case["size"] // 10 | 1, sigma=case["blur_sigma"])
    jitter = v2.ColorJitter(case["brightness"], case["contrast"], case["saturation"], case["hue"])
    return v2.Compose([
        v2.RandomResizedCrop(case["size"], case["crop_scale"], case["crop_ratio"],
                             InterpolationMode[case["interpolation"].upper()], antialias=True),
        v2.RandomHorizontalFlip(case["flip"]),
        v2.RandomApply([jitter], case["jitter"]),
        v2.RandomGrayscale(case["grayscale"]),
        v2.RandomApply([blur], case["blur"]),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(case["mean"], case["std"]),
    ])


class Views:
    def __init__(self, case, inputs, variant):
        self.images = inputs["images"].permute(0, 3, 1, 2).contiguous()
        self.pipeline = pipeline(case)

    @torch.no_grad()
    def run(self):
        return torch.stack([self.pipeline(image) for image in self.images])

    def outputs(self):
        views = self.run().permute(1, 0, 2, 3).flatten(1).double()
        return {"mean and deviation": torch.stack([views.mean(1), views.std(1, unbiased=False)], 1).float()}
