"""Views as training gets them, from images in memory or from files, by each library.

Every variant writes its views into one batch in shared memory, image by image, but kornia, which makes whole batches.
"""

import os

import numpy
import torch
from PIL import Image

from recipes import MAKERS, imported
from workers import Workers

# Images that kornia gets at once, and that others take from the list at once.
BATCH = 16
CHUNK = 8
CIFAR_RECORD = 1 + 3 * 32 * 32


def pil_of(array):
    return Image.fromarray(array)


def planes_of(array):
    return torch.from_numpy(array).permute(2, 0, 1)


def decode_pil(path):
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def decode_planes(path):
    from torchvision.io import decode_jpeg, read_file

    return decode_jpeg(read_file(path))


def decode_array(path):
    import cv2

    return cv2.imdecode(numpy.fromfile(path, dtype=numpy.uint8), cv2.IMREAD_COLOR_RGB)


# What a variant is given: of an array in memory, and of a JPEG file.
TAKES = {
    "pil": (pil_of, decode_pil),
    "v2": (planes_of, decode_planes),
    "v2_pil_decode": (planes_of, lambda path: planes_of(numpy.array(decode_pil(path)))),
    "albumentations": (lambda array: array, decode_array),
    "kornia": (planes_of, decode_planes),
}


def cifar(path):
    """The pictures of a file of CIFAR-10, as torchvision holds them: one array [N, 32, 32, 3]."""
    records = numpy.fromfile(path, dtype=numpy.uint8).reshape(-1, CIFAR_RECORD)
    return numpy.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def sources(case, inputs, variant):
    """What one image is before it is decoded, image by image, and what decodes it."""
    from_array, from_file = TAKES[variant]
    if case["source"] == "files":
        names = sorted(name for name in os.listdir(case["path"]) if name.endswith(".jpg"))
        return [os.path.join(case["path"], name) for name in names], from_file
    if case["source"] == "cifar":
        return list(cifar(case["path"])), from_array
    # In memory, decoded: the conversion to what the library takes is not what is timed.
    return [from_array(image) for image in inputs["images"].numpy()], lambda image: image


class Job:
    def __init__(self, case, inputs, variant):
        if variant == "albumentations":
            imported("cv2")
        maker = variant.removesuffix("_pil_decode")
        self.images, self.decode = sources(case, inputs, variant)
        self.batches = maker == "kornia"
        self.recipes = [MAKERS[maker](view) for view in case["views"]]
        size, count = case["views"][0]["size"], len(self.images)
        self.last = maker == "albumentations"
        shape = (size, size, 3) if self.last else (3, size, size)
        self.views = torch.zeros((len(self.recipes), count, *shape)).share_memory_()

    @torch.no_grad()
    def make(self, start, stop):
        if self.batches:
            batch = torch.stack([self.decode(image) for image in self.images[start:stop]]).float().div_(255)
            for views, recipe in zip(self.views, self.recipes):
                views[start:stop] = recipe(batch)
            return
        for i in range(start, stop):
            image = self.decode(self.images[i])
            for views, recipe in zip(self.views, self.recipes):
                views[i] = recipe(image)


class Pipelines:
    def __init__(self, case, inputs, variant):
        self.job, self.repeats = Job(case, inputs, variant), case["repeats"]
        chunk = BATCH if self.job.batches else CHUNK
        self.workers = Workers(self.job, case["cores"], len(self.job.images), chunk)

    def run(self):
        self.workers.run()

    def close(self):
        self.workers.close()

    def outputs(self):
        """Mean and deviation of each channel over all views of several runs."""
        sums = 0
        for _ in range(self.repeats):
            self.run()
            views = self.job.views if self.job.last else self.job.views.movedim(2, -1)
            values = views.reshape(-1, 3).double()
            sums = sums + torch.stack([values.mean(0), values.square().mean(0)])
        mean, square = sums / self.repeats
        return {"mean and deviation": torch.stack([mean, (square - mean * mean).clamp(min=0).sqrt()], 1).float()}
