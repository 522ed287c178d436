"""Makes the picture files of this folder, and beside each the RGB bytes that Pillow reads from it (NAME.rgb).

Run: python make_files.py   (Pillow and numpy; the output is deterministic for one version of Pillow)
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
W, H = 20, 14


def smooth(channels, maximum=255):
    """Slow waves, which JPEG keeps well."""
    y, x = np.mgrid[0:H, 0:W]
    waves = [0.5 + 0.45 * np.sin(x / (3.0 + c) + c) * np.cos(y / (4.0 + c)) for c in range(channels)]
    return np.rint(np.stack(waves, -1) * maximum)


def save(name, image, expected=None, **options):
    image.save(HERE / name, **options)
    if expected is None:
        with Image.open(HERE / name) as read:
            expected = np.asarray(ImageOps.exif_transpose(read).convert("RGB"))
    (HERE / f"{name}.rgb").write_bytes(np.ascontiguousarray(expected, np.uint8).tobytes())


def main():
    rgb = Image.fromarray(smooth(3).astype(np.uint8))
    rgba = Image.fromarray(smooth(4).astype(np.uint8), "RGBA")
    cmyk = Image.fromarray(smooth(4).astype(np.uint8), "CMYK")
    gray = Image.fromarray(smooth(1)[..., 0].astype(np.uint8))
    save("rgb.jpg", rgb, quality=95)
    save("progressive.jpg", rgb, quality=95, progressive=True)
    save("gray.jpg", gray, quality=95)
    save("cmyk.jpg", cmyk, quality=95)
    save("rgb.png", rgb)
    save("gray.png", gray)
    save("alpha.png", rgba)
    save("gray_alpha.png", rgba.convert("LA"))
    save("palette.png", rgb.quantize(16))
    save("one_bit.png", gray.point(lambda v: 255 if v > 120 else 0).convert("1"))
    save("lossless.webp", rgb, lossless=True)
    save("alpha.webp", rgba, lossless=True, exact=True)
    save("rgb.bmp", rgb)
    save("rgb.tiff", rgb)
    save("lzw.tif", rgb, compression="tiff_lzw")
    frames = [rgb.quantize(16), ImageOps.mirror(rgb).quantize(16)]
    save("animated.gif", frames[0], save_all=True, append_images=frames[1:])
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"orientation_{orientation}.jpg", rgb, quality=95, exif=exif)
    # 16 bits: Pillow's own conversion cuts off at 255; the sound one scales.
    deep = smooth(1, 65535)[..., 0].astype(np.uint16)
    save("gray16.png", Image.fromarray(deep), np.repeat(np.rint(deep / 257)[..., None], 3, -1))
    save("gray16.tif", Image.fromarray(deep), np.repeat(np.rint(deep / 257)[..., None], 3, -1))
    save("one_pixel.png", Image.fromarray(np.array([[[10, 200, 30]]], np.uint8)))


if __name__ == "__main__":
    main()
