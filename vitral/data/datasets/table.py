"""The table of data sets: files, classes, counts, sources, licences; and of VTAB's tasks."""

from vitral.data.datasets.published import NamedDataset
from vitral.data.datasets.publisher_files import (
    CALTECH101,
    CAMELYON,
    CIFAR10,
    CIFAR100,
    CLEVR,
    DMLAB,
    DSPRITES,
    DTD,
    EUROSAT,
    FLOWERS102,
    IMAGENET,
    IMAGENET21K,
    KITTI,
    PETS,
    RESISC45,
    RETINOPATHY,
    SMALLNORB,
    SUN397,
    SVHN,
)
from vitral.data.datasets.publishers.caltech import read_caltech101
from vitral.data.datasets.publishers.camelyon import read_camelyon
from vitral.data.datasets.publishers.cifar import read_cifar10, read_cifar100
from vitral.data.datasets.publishers.clevr import read_clevr_count, read_clevr_distance
from vitral.data.datasets.publishers.dmlab import read_dmlab
from vitral.data.datasets.publishers.dsprites import (
    read_dsprites_location,
    read_dsprites_orientation,
)
from vitral.data.datasets.publishers.dtd import read_dtd
from vitral.data.datasets.publishers.flowers import read_flowers102
from vitral.data.datasets.publishers.imagenet import (
    read_imagenet,
    read_imagenet21k,
)
from vitral.data.datasets.publishers.kitti import read_kitti_distance
from vitral.data.datasets.publishers.pets import read_pets
from vitral.data.datasets.publishers.retinopathy import read_retinopathy
from vitral.data.datasets.publishers.scenes import read_eurosat, read_resisc45
from vitral.data.datasets.publishers.smallnorb import (
    read_smallnorb_azimuth,
    read_smallnorb_elevation,
)
from vitral.data.datasets.publishers.sun397 import read_sun397
from vitral.data.datasets.publishers.svhn import read_svhn
from vitral.data.datasets.vtab import Task

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_TORONTO = "https://www.cs.toronto.edu/~kriz"

DATASETS: dict[str, NamedDataset] = {
    "imagenet": NamedDataset(
        "ImageNet (ILSVRC-2012)", IMAGENET, read_imagenet, 1000,
        {"train": 1_281_167, "validation": 50_000}, "https://image-net.org",
        "for research and education without profit, not to be passed on",
        splits={"train": "train", "test": "validation"},
    ),
    "imagenet21k": NamedDataset(
        "ImageNet-21k (fall 2011)", IMAGENET21K, read_imagenet21k, 21_841,
        {"train": 14_197_122}, "https://image-net.org",
        "for research and education without profit, not to be passed on",
        splits={"train": "train"},
    ),
    "cifar10": NamedDataset(
        "CIFAR-10", CIFAR10, read_cifar10, 10, {"train": 50_000, "test": 10_000},
        f"{_TORONTO}/cifar.html", "not stated",
    ),
    "cifar100": NamedDataset(
        "CIFAR-100", CIFAR100, read_cifar100, 100, {"train": 50_000, "test": 10_000},
        f"{_TORONTO}/cifar.html", "not stated",
    ),
    "pets": NamedDataset(
        "Oxford-IIIT Pets", PETS, read_pets, 37, {"train": 3680, "test": 3669},
        f"{_VGG}/pets/", "CC BY-SA 4.0",
    ),
    "flowers102": NamedDataset(
        "Oxford Flowers-102", FLOWERS102, read_flowers102, 102,
        {"train": 1020, "validation": 1020, "test": 6149}, f"{_VGG}/flowers/102/", "not stated",
        splits={"train": "train", "validation": "validation", "test": "test"},
    ),
}  # fmt: skip

TASKS: dict[str, Task] = {
    "caltech101": Task(
        "natural", read_caltech101, CALTECH101, 102, ("train", 0, 90), ("train", 90, 100),
        ("test", 0, 100), 6084, ("caltech101",), "caltech101",
    ),
    "cifar100": Task(
        "natural", read_cifar100, CIFAR100, 100, ("train", 0, 90), ("train", 90, 100),
        ("test", 0, 100), 10_000, ("cifar", "cifar100", "cifar_100"), "cifar100",
    ),
    "dtd": Task(
        "natural", read_dtd, DTD, 47, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 1880, ("dtd",), "dtd",
    ),
    "flowers102": Task(
        "natural", read_flowers102, FLOWERS102, 102, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 6149, ("oxford_flowers102", "flowers102"), "flowers102",
    ),
    "pets": Task(
        "natural", read_pets, PETS, 37, ("train", 0, 80), ("train", 80, 100),
        ("test", 0, 100), 3669, ("oxford_iiit_pet", "oxford_pet", "pets"), "pets",
    ),
    "sun397": Task(
        "natural", read_sun397, SUN397, 397, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 21_750, ("sun397",), "sun397",
    ),
    "svhn": Task(
        "natural", read_svhn, SVHN, 10, ("train", 0, 90), ("train", 90, 100),
        ("test", 0, 100), 26_032, ("svhn",), "svhn",
    ),
    "camelyon": Task(
        "specialized", read_camelyon, CAMELYON, 2, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 32_768, ("patch_camelyon",), "camelyon",
    ),
    "eurosat": Task(
        "specialized", read_eurosat, EUROSAT, 10, ("train", 0, 60), ("train", 60, 80),
        ("train", 80, 100), 5400, ("eurosat",), "eurosat",
    ),
    "resisc45": Task(
        "specialized", read_resisc45, RESISC45, 45, ("train", 0, 60), ("train", 60, 80),
        ("train", 80, 100), 6300, ("resisc45",), "resisc45",
    ),
    "retinopathy": Task(
        "specialized", read_retinopathy, RETINOPATHY, 5, ("train", 0, 100),
        ("validation", 0, 100), ("test", 0, 100), 42_670, ("diabetic_retinopathy",), "retinopathy",
    ),
    "clevr-count": Task(
        "structured", read_clevr_count, CLEVR, 8, ("train", 0, 90), ("train", 90, 100),
        ("validation", 0, 100), 15_000, ("clevr_count",), "clevr", crop=False,
    ),
    "clevr-dist": Task(
        "structured", read_clevr_distance, CLEVR, 6, ("train", 0, 90), ("train", 90, 100),
        ("validation", 0, 100), 15_000, ("clevr_dist",), "clevr", crop=False,
    ),
    "dmlab": Task(
        "structured", read_dmlab, DMLAB, 6, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 22_735, ("dmlab",), "dmlab", crop=False,
    ),
    "kitti-dist": Task(
        "structured", read_kitti_distance, KITTI, 4, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 711, ("kitti",), "kitti", crop=False,
    ),
    "dsprites-loc": Task(
        "structured", read_dsprites_location, DSPRITES, 16, ("train", 0, 80), ("train", 80, 90),
        ("train", 90, 100), 73_728, ("dsprites_loc",), "dsprites", flip=False, crop=False,
    ),
    "dsprites-ori": Task(
        "structured", read_dsprites_orientation, DSPRITES, 16, ("train", 0, 80), ("train", 80, 90),
        ("train", 90, 100), 73_728, ("dsprites_ori",), "dsprites", flip=False,
    ),
    "smallnorb-azim": Task(
        "structured", read_smallnorb_azimuth, SMALLNORB, 18, ("train", 0, 100), ("test", 0, 50),
        ("test", 50, 100), 12_150, ("smallnorb_azi",), "smallnorb", flip=False,
    ),
    "smallnorb-elev": Task(
        "structured", read_smallnorb_elevation, SMALLNORB, 9, ("train", 0, 100), ("test", 0, 50),
        ("test", 50, 100), 12_150, ("smallnorb_ele",), "smallnorb",
    ),
}  # fmt: skip
