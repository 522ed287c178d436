"""Random views by torchvision's transforms, image by image, where the case's device is: a whole batch at once would get the same crop and colors."""

import torch

from recipes import v2


class Views:
    def __init__(self, case, inputs, variant):
        self.images = inputs["images"].permute(0, 3, 1, 2).contiguous()
        self.pipeline = v2(case)

    @torch.no_grad()
    def run(self):
        return torch.stack([self.pipeline(image) for image in self.images])

    def outputs(self):
        views = self.run().permute(1, 0, 2, 3).flatten(1).double()
        return {"mean and deviation": torch.stack([views.mean(1), views.std(1, unbiased=False)], 1).float()}
