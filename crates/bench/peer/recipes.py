"""The recipes of views as each library's users write them: a function from what the library decodes to a normalized view.

| variant | takes | gives |
| --- | --- | --- |
| pil | a PIL image | [3, S, S] |
| v2 | a u8 tensor [3, H, W] | [3, S, S] |
| albumentations | a u8 array [H, W, 3] | [S, S, 3] |
| kornia | a float tensor [N, 3, H, W] in [0, 1] | [N, 3, S, S] |

A view is a dictionary of the keys of `[augment]`; steps whose probability is 0 are left out, as people do.
"""

import random

import torch

from common import Unsupported


def imported(name):
    """A library, where it is installed."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise Unsupported(f"{name} is not installed there ({error})") from error


def kernel(view):
    """The side of SimCLR's blur kernel: a tenth of the view's, and odd."""
    return max(3, view["size"] // 10 | 1)


def steps(view, made):
    """The steps that can happen; each of `made` is (probability, step)."""
    return [step for probability, step in made if probability > 0]


class PilBlur:
    """Pillow's blur, as in the codes of MoCo, SimSiam and Barlow Twins: faster than torchvision's on PIL images."""

    def __init__(self, sigma):
        from PIL import ImageFilter

        self.sigma, self.filter = sigma, ImageFilter.GaussianBlur

    def __call__(self, image):
        return image.filter(self.filter(random.uniform(*self.sigma)))


def pil(view):
    from torchvision import transforms as t

    interpolation = t.InterpolationMode[view["interpolation"].upper()]
    jitter = t.ColorJitter(view["brightness"], view["contrast"], view["saturation"], view["hue"])
    return t.Compose(steps(view, [
        (1, t.RandomResizedCrop(view["size"], view["crop_scale"], view["crop_ratio"], interpolation)),
        (view["flip"], t.RandomHorizontalFlip(view["flip"])),
        (view["jitter"], t.RandomApply([jitter], view["jitter"])),
        (view["grayscale"], t.RandomGrayscale(view["grayscale"])),
        (view["blur"], t.RandomApply([PilBlur(view["blur_sigma"])], view["blur"])),
        (view["solarize"], t.RandomSolarize(view["solarize_threshold"], view["solarize"])),
        (1, t.ToTensor()),
        (1, t.Normalize(view["mean"], view["std"])),
    ]))


def v2(view):
    from torchvision.transforms import InterpolationMode, v2 as t

    interpolation = InterpolationMode[view["interpolation"].upper()]
    jitter = t.ColorJitter(view["brightness"], view["contrast"], view["saturation"], view["hue"])
    blur = t.GaussianBlur(kernel_size=kernel(view), sigma=view["blur_sigma"])
    return t.Compose(steps(view, [
        (1, t.RandomResizedCrop(view["size"], view["crop_scale"], view["crop_ratio"], interpolation, antialias=True)),
        (view["flip"], t.RandomHorizontalFlip(view["flip"])),
        (view["jitter"], t.RandomApply([jitter], view["jitter"])),
        (view["grayscale"], t.RandomGrayscale(view["grayscale"])),
        (view["blur"], t.RandomApply([blur], view["blur"])),
        (view["solarize"], t.RandomSolarize(view["solarize_threshold"], view["solarize"])),
        (1, t.ToDtype(torch.float32, scale=True)),
        (1, t.Normalize(view["mean"], view["std"])),
    ]))


def albumentations(view):
    a, cv2 = imported("albumentations"), imported("cv2")
    cv2.setNumThreads(0)
    size = (view["size"], view["size"])
    interpolation = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}[view["interpolation"]]
    threshold = view["solarize_threshold"] / 255
    made = a.Compose(steps(view, [
        (1, a.RandomResizedCrop(size, view["crop_scale"], view["crop_ratio"], interpolation=interpolation)),
        (view["flip"], a.HorizontalFlip(p=view["flip"])),
        (view["jitter"], a.ColorJitter(view["brightness"], view["contrast"], view["saturation"], view["hue"],
                                       p=view["jitter"])),
        (view["grayscale"], a.ToGray(p=view["grayscale"])),
        (view["blur"], a.GaussianBlur(blur_limit=0, sigma_limit=tuple(view["blur_sigma"]), p=view["blur"])),
        (view["solarize"], a.Solarize((threshold, threshold), p=view["solarize"])),
        (1, a.Normalize(view["mean"], view["std"])),
    ]))
    return lambda image: torch.from_numpy(made(image=image)["image"])


def kornia(view):
    k = imported("kornia.augmentation")
    side, size = kernel(view), (view["size"], view["size"])
    threshold = view["solarize_threshold"] / 255
    return torch.nn.Sequential(*steps(view, [
        (1, k.RandomResizedCrop(size, tuple(view["crop_scale"]), tuple(view["crop_ratio"]), view["interpolation"])),
        (view["flip"], k.RandomHorizontalFlip(p=view["flip"])),
        (view["jitter"], k.ColorJitter(view["brightness"], view["contrast"], view["saturation"], view["hue"],
                                       p=view["jitter"])),
        (view["grayscale"], k.RandomGrayscale(p=view["grayscale"])),
        (view["blur"], k.RandomGaussianBlur((side, side), tuple(view["blur_sigma"]), p=view["blur"])),
        (view["solarize"], k.RandomSolarize((threshold, threshold), (0.0, 0.0), p=view["solarize"])),
        (1, k.Normalize(view["mean"], view["std"])),
    ]))


MAKERS = {"pil": pil, "v2": v2, "albumentations": albumentations, "kornia": kornia}
