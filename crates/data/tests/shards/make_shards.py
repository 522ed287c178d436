"""Makes the tar and Parquet files of this folder, as Python's tarfile and pyarrow write them.

Run: python make_shards.py   (Pillow and pyarrow; the output is deterministic for one version of each)

Image i is a PNG of 4 x 3 pixels of the color (10 i, 255 - i, i), of class i % 3.
"""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent
N = 24
CLASSES = ["cat", "dog", "emu"]


def png(i):
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (10 * i % 256, 255 - i, i)).save(out, "PNG")
    return out.getvalue()


def member(tar, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def tars():
    for name, kind in [("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)]:
        long = "/".join(["a folder with a long name"] * (3 if name == "ustar" else 9))
        with tarfile.open(HERE / f"{name}.tar", "w", format=kind) as tar:
            member(tar, long, type=tarfile.DIRTYPE)
            for i in range(6):
                member(tar, f"{long}/{i:05}.rgb.png", png(i))
                if i % 2:
                    member(tar, f"{long}/{i:05}.cls", f"{i % 3}\n".encode())
                else:
                    member(tar, f"{long}/{i:05}.json", json.dumps({"label": i % 3, "width": 4}).encode())
    with tarfile.open(HERE / "odd.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member(tar, "/absolute.png", png(0))
        member(tar, "../../outside.png", png(1))
        member(tar, "é/ü.png", png(2), pax_headers={"comment": "x" * 600})
        member(tar, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        member(tar, "hard.png", type=tarfile.LNKTYPE, linkname="/absolute.png")
        member(tar, "device.png", type=tarfile.CHRTYPE)
        member(tar, "fifo.png", type=tarfile.FIFOTYPE)
        member(tar, ".hidden.png", png(3))
        member(tar, "notes.txt", b"words")
        member(tar, "alone.cls", b"1")
        member(tar, "two.left.png", png(4))
        member(tar, "two.right.png", png(5))
        member(tar, "empty.png")


def table(labels, **more):
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(N)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(images, kind), "label": labels, **more})


def parquets():
    numbers = pa.array([i % 3 for i in range(N)], pa.int64())
    features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
    named = table(numbers).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    write = lambda name, what, **options: pq.write_table(what, HERE / f"{name}.parquet", **options)
    write("default", named)
    write("groups", named, row_group_size=7, data_page_size=256, use_dictionary=False)
    write("plain", named, compression="none", use_dictionary=False)
    write("plain_dictionary", named, compression="none")
    write("zstd", named, compression="zstd", row_group_size=10)
    write("second", named, data_page_version="2.0", compression="snappy", use_dictionary=False)
    write("second_plain", named, data_page_version="2.0", compression="none")
    write("gzip", named, compression="gzip")
    write("delta", table(numbers), use_dictionary=False, column_encoding={"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"})
    # A column of bytes and labels as text; every fourth image is not there.
    some = [None if i % 4 == 3 else png(i) for i in range(N)]
    texts = pa.array([CLASSES[i % 3] for i in range(N)])
    write("binary", pa.table({"caption": texts, "img": pa.array(some, pa.binary()), "cls": texts}))
    write("narrow", table(pa.array([i % 3 + 4 for i in range(N)], pa.int32())), data_page_size=64)
    write("hidden_labels", table(pa.array([-1] * N, pa.int64())))
    write("no_images", pa.table({"text": texts, "label": numbers}))
    write("two_binaries", pa.table({"a": pa.array(some, pa.binary()), "b": pa.array(some, pa.binary())}))
    write("only_paths", pa.table({"image": pa.array([{"bytes": None, "path": "x.png"}] * 3, named.schema.field("image").type)}))
    write("empty", named.slice(0, 0))
    # As many values as equal ones can be: the dictionary has one entry.
    same = [{"bytes": png(0), "path": None}] * 300
    write("same", pa.table({"image": pa.array(same, named.schema.field("image").type)}), data_page_size=64)


tars()
parquets()
