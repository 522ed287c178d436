"""Single operations on pictures of u8, with given parameters: one function of (picture, i) per library.

kornia gets all pictures at once, as floats, with a parameter for each: that is what it is made for. The others get one after the other.
What is made is dropped at once, so that nobody pays for moving it.
"""

import numpy
import torch

from pipelines import BATCH, CHUNK, TAKES
from recipes import imported
from workers import Workers

BYTES = 255.0


def radius(sigma):
    """Of a kernel that leaves out nothing to speak of."""
    return max(1, round(3 * sigma))


def pil(case, p):
    from PIL import ImageFilter
    from torchvision.transforms import InterpolationMode, functional as f

    size, bicubic = [case["size"]] * 2, InterpolationMode.BICUBIC

    def crop(x, i):
        left, top, width, height = p.rectangle(i)
        return f.resized_crop(x, top, left, height, width, size, bicubic)

    return {
        "crop_resize": crop,
        "flip": lambda x, i: f.hflip(x),
        "brightness": lambda x, i: f.adjust_brightness(x, p.factor[i]),
        "contrast": lambda x, i: f.adjust_contrast(x, p.factor[i]),
        "saturation": lambda x, i: f.adjust_saturation(x, p.factor[i]),
        "hue": lambda x, i: f.adjust_hue(x, p.factor[i]),
        "grayscale": lambda x, i: f.to_grayscale(x, 3),
        "blur": lambda x, i: x.filter(ImageFilter.GaussianBlur(p.factor[i])),
        "solarize": lambda x, i: f.solarize(x, 128),
        "normalize": lambda x, i: f.normalize(f.to_tensor(x), case["mean"], case["std"]),
    }


def v2(case, p):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as f

    size, bicubic = [case["size"]] * 2, InterpolationMode.BICUBIC

    def crop(x, i):
        left, top, width, height = p.rectangle(i)
        return f.resized_crop(x, top, left, height, width, size, bicubic, antialias=True)

    return {
        "crop_resize": crop,
        "flip": lambda x, i: f.horizontal_flip(x),
        "brightness": lambda x, i: f.adjust_brightness(x, p.factor[i]),
        "contrast": lambda x, i: f.adjust_contrast(x, p.factor[i]),
        "saturation": lambda x, i: f.adjust_saturation(x, p.factor[i]),
        "hue": lambda x, i: f.adjust_hue(x, p.factor[i]),
        "grayscale": lambda x, i: f.rgb_to_grayscale(x, 3),
        "blur": lambda x, i: f.gaussian_blur(x, [2 * radius(p.factor[i]) + 1] * 2, [p.factor[i]] * 2),
        "solarize": lambda x, i: f.solarize(x, 128),
        "normalize": lambda x, i: f.normalize(f.to_dtype(x, torch.float32, scale=True), case["mean"], case["std"]),
    }


def albumentations(case, p):
    cv2, f = imported("cv2"), imported("albumentations.augmentations.pixel.functional")
    flip = imported("albumentations.augmentations.geometric.functional").hflip
    a, size = imported("albumentations"), (case["size"], case["size"])
    normalize = a.Normalize(case["mean"], case["std"])

    def crop(x, i):
        left, top, width, height = p.rectangle(i)
        return cv2.resize(x[top:top + height, left:left + width], size, interpolation=cv2.INTER_CUBIC)

    return {
        "crop_resize": crop,
        "flip": lambda x, i: flip(x),
        "brightness": lambda x, i: f.adjust_brightness_torchvision(x, p.factor[i]),
        "contrast": lambda x, i: f.adjust_contrast_torchvision(x, p.factor[i]),
        "saturation": lambda x, i: f.adjust_saturation_torchvision(x, p.factor[i], 0),
        "hue": lambda x, i: f.adjust_hue_torchvision(x, p.factor[i]),
        "grayscale": lambda x, i: f.to_gray(x, 3, "weighted_average"),
        "blur": lambda x, i: cv2.GaussianBlur(x, [2 * radius(p.factor[i]) + 1] * 2, p.factor[i]),
        "solarize": lambda x, i: f.solarize(x, 128 / 255),
        "normalize": lambda x, i: normalize.apply(x),
    }


def kornia(case, p):
    e, k = imported("kornia.enhance"), imported("kornia")
    mean, std = (torch.tensor(case[key]) for key in ("mean", "std"))
    crop_of = imported("kornia.geometry.transform")
    size = (case["size"], case["size"])

    def crop(x, i):
        # What its RandomResizedCrop does: every picture's box for itself.
        made = []
        for picture, index in zip(x, range(i.start, i.stop)):
            left, top, width, height = p.rectangle(index)
            made.append(crop_of.resize(picture[None, :, top:top + height, left:left + width], size,
                                       interpolation="bicubic"))
        return torch.cat(made)

    def blur(x, i):
        sigma = p.of(i)
        side = 2 * radius(float(sigma.max())) + 1
        return k.filters.gaussian_blur2d(x, (side, side), sigma[:, None].expand(-1, 2))

    return {
        "crop_resize": crop,
        "flip": lambda x, i: k.geometry.transform.hflip(x),
        "brightness": lambda x, i: e.adjust_brightness_accumulative(x, p.of(i)),
        "contrast": lambda x, i: e.adjust_contrast_with_mean_subtraction(x, p.of(i)),
        "saturation": lambda x, i: e.adjust_saturation_with_gray_subtraction(x, p.of(i)),
        "hue": lambda x, i: e.adjust_hue(x, p.of(i) * (2 * torch.pi)),
        "grayscale": lambda x, i: k.color.rgb_to_grayscale(x).expand(-1, 3, -1, -1).contiguous(),
        "blur": blur,
        "solarize": lambda x, i: e.solarize(x, 128 / 255),
        "normalize": lambda x, i: e.normalize(x, mean, std),
    }


LIBRARIES = {"pil": pil, "v2": v2, "albumentations": albumentations, "kornia": kornia}


class Parameters:
    """One of each for every picture."""

    def __init__(self, inputs):
        self.factors = inputs["factor"]
        self.factor = self.factors.tolist()
        self.boxes = inputs["box"].tolist()

    def of(self, span):
        return self.factors[span]

    def rectangle(self, i):
        """Left, top, width, height."""
        return [int(v) for v in self.boxes[i]]


class Operation:
    def __init__(self, case, inputs, variant):
        self.batches, self.normalizes = variant == "kornia", case["operation"] == "normalize"
        self.function = LIBRARIES[variant](case, Parameters(inputs))[case["operation"]]
        take = TAKES[variant][0]
        self.pictures = [take(picture) for picture in inputs["images"].numpy()]
        if self.batches:
            self.pictures = torch.stack(self.pictures).float().div_(BYTES)
        self.count = len(self.pictures)
        self.workers = Workers(self, case["cores"], self.count, BATCH if self.batches else CHUNK)

    @torch.no_grad()
    def make(self, start, stop):
        if self.batches:
            return [self.function(self.pictures[start:stop], slice(start, stop))]
        return [self.function(self.pictures[i], i) for i in range(start, stop)]

    def run(self):
        self.workers.run()

    def close(self):
        self.workers.close()

    def outputs(self):
        """Pictures of u8, or floats where they are normalized, as [N, H, W, 3]."""
        made = self.make(0, self.count)
        made = made[0] if self.batches else torch.stack([torch.as_tensor(numpy.array(x)) for x in made])
        made = made if made.shape[-1] == 3 else made.movedim(1, -1)
        if self.batches and not self.normalizes:
            made = made.mul(BYTES).round().clamp(0, BYTES).to(torch.uint8)
        return {"pixels": made.contiguous()}
