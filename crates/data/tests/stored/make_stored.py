"""Image files of many channels and depths, and NumPy arrays: python make_stored.py in this folder (numpy, Pillow, tifffile).

Beside each picture lies NAME.npy with its numbers, [H, W, C], which the reader must give.
"""

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 9, 13


def numbers(channels, dtype, seed):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.normal(100.0, 50.0, (HEIGHT, WIDTH, channels)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def keep(name, picture):
    np.save(f"{name}.npy", picture)


def tiff(name, picture, **options):
    tifffile.imwrite(f"{name}.tif", picture, photometric="minisblack", **options)


bands = numbers(5, np.uint16, 1)
tiff("bands5_u16", bands, planarconfig="contig", compression="zlib")
keep("bands5_u16", bands)

planes = numbers(4, np.uint8, 2)
tiff("planes4_u8", planes.transpose(2, 0, 1).copy(), planarconfig="separate")
keep("planes4_u8", planes)

pages = numbers(3, np.uint16, 3)
with tifffile.TiffWriter("pages3_u16.tif") as writer:
    for c in range(3):
        writer.write(pages[..., c], photometric="minisblack", contiguous=False)
keep("pages3_u16", pages)

real = numbers(2, np.float32, 4)
tiff("bands2_f32", real, planarconfig="contig")
keep("bands2_f32", real)

signed = numbers(1, np.int16, 5)
tiff("gray_i16", signed[..., 0])
keep("gray_i16", signed.astype(np.float32))

gray = numbers(1, np.uint16, 6)
Image.fromarray(gray[..., 0]).save("gray_u16.png")
keep("gray_u16", gray)

alpha = numbers(4, np.uint8, 7)
Image.fromarray(alpha, "RGBA").save("rgba_u8.png")
keep("rgba_u8", alpha)

uneven = numbers(1, np.uint8, 8)[..., 0]
with tifffile.TiffWriter("uneven_pages.tif") as writer:
    writer.write(uneven, photometric="minisblack", contiguous=False)
    writer.write(uneven[1:], photometric="minisblack", contiguous=False)

broken = real.copy()
broken[3, 4, 1] = np.nan
tiff("not_a_number", broken, planarconfig="contig")
tiff("bands17_u8", numbers(17, np.uint8, 9), planarconfig="contig")

# A data set of arrays.
rng = np.random.default_rng(10)
images = rng.integers(0, 65536, (7, 4, 6, 5)).astype(np.uint16)
np.save("images_u16.npy", images)
np.save("images_u16.labels.npy", np.array([0, 2, 1, 1, 0, 2, 2]))
np.save("images_u16_big.npy", images.astype(">u2"))
np.save("images_gray_u8.npy", rng.integers(0, 256, (3, 4, 6)).astype(np.uint8))
np.save("images_f64.npy", rng.normal(size=(2, 4, 6, 1)))
np.save("images_fortran.npy", np.asfortranarray(images))
np.save("images_first.npy", images.transpose(0, 3, 1, 2).copy()[:, :, :, :3].repeat(8, axis=3))
