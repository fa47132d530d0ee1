"""The table of data sets: files with their checksums, classes, counts, sources, licences."""

from vitral.data.datasets.published import File, NamedDataset
from vitral.data.datasets.publishers.cifar import read_cifar10, read_cifar100
from vitral.data.datasets.publishers.clevr import read_clevr_count, read_clevr_distance
from vitral.data.datasets.publishers.dsprites import (
    SPRITES,
    read_dsprites_location,
    read_dsprites_orientation,
)
from vitral.data.datasets.publishers.dtd import read_dtd
from vitral.data.datasets.publishers.flowers import read_flowers102
from vitral.data.datasets.publishers.imagenet import (
    DEVKIT,
    TRAIN,
    VALIDATION,
    WHOLE,
    read_imagenet,
    read_imagenet21k,
)
from vitral.data.datasets.publishers.kitti import read_kitti_distance
from vitral.data.datasets.publishers.pets import read_pets
from vitral.data.datasets.publishers.scenes import read_eurosat, read_resisc45
from vitral.data.datasets.publishers.smallnorb import (
    read_smallnorb_azimuth,
    read_smallnorb_elevation,
)
from vitral.data.datasets.publishers.svhn import read_svhn
from vitral.data.datasets.vtab import Task

_TORONTO = "https://www.cs.toronto.edu/~kriz"
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_NORB = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
_KITTI = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
_IMAGENET = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"

CIFAR10 = (
    File(
        "cifar-10-binary.tar.gz",
        f"{_TORONTO}/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        unpacked="cifar-10-batches-bin",
    ),
)
CIFAR100 = (
    File(
        "cifar-100-binary.tar.gz",
        f"{_TORONTO}/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        unpacked="cifar-100-binary",
    ),
)
PETS = (
    File(
        "images.tar.gz",
        f"{_VGG}/pets/data/images.tar.gz",
        "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        unpacked="images",
    ),
    File(
        "annotations.tar.gz",
        f"{_VGG}/pets/data/annotations.tar.gz",
        "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        unpacked="annotations",
    ),
)
FLOWERS102 = (
    File(
        "102flowers.tgz",
        f"{_VGG}/flowers/102/102flowers.tgz",
        "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        unpacked="jpg",
    ),
    File(
        "imagelabels.mat",
        f"{_VGG}/flowers/102/imagelabels.mat",
        "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
    ),
    File(
        "setid.mat",
        f"{_VGG}/flowers/102/setid.mat",
        "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
    ),
)
IMAGENET = (
    File(
        TRAIN,
        _IMAGENET,
        "b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb",
        unpacked="train",
    ),
    File(
        VALIDATION,
        _IMAGENET,
        "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
        unpacked="val",
    ),
    File(DEVKIT, _IMAGENET, unpacked="ILSVRC2012_devkit_t12", optional=True),
)
IMAGENET21K = (File(WHOLE, "https://image-net.org/download-images", unpacked="fall11_whole"),)
SVHN = (
    File(
        "train_32x32.mat",
        f"{_SVHN}/train_32x32.mat",
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    File(
        "test_32x32.mat",
        f"{_SVHN}/test_32x32.mat",
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
)
DTD = (
    File(
        "dtd-r1.0.1.tar.gz",
        f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
        "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        unpacked="dtd",
    ),
)
EUROSAT = (
    File(
        "EuroSAT.zip",
        "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
        "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
        unpacked="2750",
    ),
)
RESISC45 = (
    File(
        "NWPU-RESISC45.zip",
        "https://huggingface.co/datasets/isaaccorley/resisc45 (the publisher's is a .rar)",
        "beeecd0b63656290ae6d65cf7763185b0c1c4c54a753ef8088d6fba3faaf1f53",
        unpacked="NWPU-RESISC45",
    ),
)
SMALLNORB = (
    File(
        "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz",
        f"{_NORB}/smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz",
        "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
        unpacked="smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat",
    ),
    File(
        "smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz",
        f"{_NORB}/smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz",
        "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
        unpacked="smallnorb-5x46789x9x18x6x2x96x96-training-info.mat",
    ),
    File(
        "smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz",
        f"{_NORB}/smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz",
        "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
        unpacked="smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat",
    ),
    File(
        "smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz",
        f"{_NORB}/smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz",
        "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
        unpacked="smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat",
    ),
)
DSPRITES = (File(SPRITES, "https://github.com/google-deepmind/dsprites-dataset"),)
CLEVR = (
    File(
        "CLEVR_v1.0.zip",
        "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",
        "5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1",
        unpacked="CLEVR_v1.0",
    ),
)
KITTI = (
    File(
        "data_object_image_2.zip",
        f"{_KITTI}/data_object_image_2.zip",
        "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
        unpacked="training/image_2",
    ),
    File(
        "data_object_label_2.zip",
        f"{_KITTI}/data_object_label_2.zip",
        "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
        unpacked="training/label_2",
    ),
    File(
        "devkit_object.zip",
        f"{_KITTI}/devkit_object.zip",
        "ce0b76b69c0c5f89690a0d65b7302bbbdb962a0c7e8aba6efc7050d1b04b4cf1",
        unpacked="mapping",
    ),
)

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
    "svhn": Task(
        "natural", read_svhn, SVHN, 10, ("train", 0, 90), ("train", 90, 100),
        ("test", 0, 100), 26_032, ("svhn",), "svhn",
    ),
    "eurosat": Task(
        "specialized", read_eurosat, EUROSAT, 10, ("train", 0, 60), ("train", 60, 80),
        ("train", 80, 100), 5400, ("eurosat",), "eurosat",
    ),
    "resisc45": Task(
        "specialized", read_resisc45, RESISC45, 45, ("train", 0, 60), ("train", 60, 80),
        ("train", 80, 100), 6300, ("resisc45",), "resisc45",
    ),
    "smallnorb-azim": Task(
        "structured", read_smallnorb_azimuth, SMALLNORB, 18, ("train", 0, 100), ("test", 0, 50),
        ("test", 50, 100), 12_150, ("smallnorb_azi",), "smallnorb", flip=False,
    ),
    "smallnorb-elev": Task(
        "structured", read_smallnorb_elevation, SMALLNORB, 9, ("train", 0, 100), ("test", 0, 50),
        ("test", 50, 100), 12_150, ("smallnorb_ele",), "smallnorb",
    ),
    "dsprites-loc": Task(
        "structured", read_dsprites_location, DSPRITES, 16, ("train", 0, 80), ("train", 80, 90),
        ("train", 90, 100), 73_728, ("dsprites_loc",), "dsprites", flip=False, crop=False,
    ),
    "dsprites-ori": Task(
        "structured", read_dsprites_orientation, DSPRITES, 16, ("train", 0, 80), ("train", 80, 90),
        ("train", 90, 100), 73_728, ("dsprites_ori",), "dsprites", flip=False,
    ),
    "clevr-count": Task(
        "structured", read_clevr_count, CLEVR, 8, ("train", 0, 90), ("train", 90, 100),
        ("validation", 0, 100), 15_000, ("clevr_count",), "clevr", crop=False,
    ),
    "clevr-dist": Task(
        "structured", read_clevr_distance, CLEVR, 6, ("train", 0, 90), ("train", 90, 100),
        ("validation", 0, 100), 15_000, ("clevr_dist",), "clevr", crop=False,
    ),
    "kitti-dist": Task(
        "structured", read_kitti_distance, KITTI, 4, ("train", 0, 100), ("validation", 0, 100),
        ("test", 0, 100), 711, ("kitti",), "kitti", crop=False,
    ),
}  # fmt: skip
