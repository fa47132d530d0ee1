"""Image files, folders and archives of them, made for a test."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed=0, *, size=(10, 12), mode="RGB"):
    """A picture of noise, (height, width) = size."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    return image.convert(mode) if mode in ("LA", "RGBA") else image.convert("RGB").convert(mode)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def content_of(name):
    """A picture of its own for every name of an image, text for any other."""
    if Path(name).suffix.lower() in {".png", ".jpg", ".jpeg"}:
        return encode(picture(list(name.encode())))
    return b"some text"


def fill(root, names):
    """Write files; `names` may be a dict that states their contents."""
    for name in names:
        content = names[name] if isinstance(names, dict) else None
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(name) if content is None else content)
    return root


def pack(path, names):
    """Write an archive of the kind that its name says."""
    contents = names if isinstance(names, dict) else {name: content_of(name) for name in names}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


class CountingStore:
    """A store that counts what is read of another one."""

    def __init__(self, store):
        self.store, self.names, self.reads = store, store.names, []

    def read(self, number):
        self.reads.append(number)
        return self.store.read(number)

    def stamp(self, number):
        return self.store.stamp(number)

    def blocks(self):
        return self.store.blocks()
