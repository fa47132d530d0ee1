"""The files of publishers, with where they come from and their checksums."""

from vitral.data.datasets.published import File
from vitral.data.datasets.publishers.camelyon import file_name as camelyon_file
from vitral.data.datasets.publishers.dsprites import SPRITES
from vitral.data.datasets.publishers.imagenet import DEVKIT, TRAIN, VALIDATION, WHOLE
from vitral.data.datasets.publishers.retinopathy import TEST_LABELS_SOURCE

_TORONTO = "https://www.cs.toronto.edu/~kriz"
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_NORB = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
_KITTI = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
_IMAGENET = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
_KAGGLE = "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"
_TFDS = (
    "https://github.com/tensorflow/datasets/tree/v4.4.0/tensorflow_datasets/image_classification"
)

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
CALTECH101 = (
    File(
        "101_ObjectCategories.tar.gz",
        "https://data.caltech.edu/records/mzrjq-6wc02 (within caltech-101.zip)",
        "af6ece2f339791ca20f855943d8b55dd60892c0a25105fcd631ee3d6430f9926",
        unpacked="101_ObjectCategories",
    ),
)
SUN397 = (
    File(
        "SUN397.tar.gz",
        "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
        "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
        unpacked="SUN397",
    ),
    File(
        "sun397_tfds_tr.txt",
        _TFDS,
        "764d9aa5c7b67a12b1a5ef784656a84f6a3a3cc0383ce9dc7acc59e3efd45791",
    ),
    File(
        "sun397_tfds_va.txt",
        _TFDS,
        "0f5f5e56d4c10ea6dd64108980ce1fa3d0a5d92b61ef92530f34b6aa2dbaf192",
    ),
    File(
        "sun397_tfds_te.txt",
        _TFDS,
        "e172ef48fe5e94e26b698b0cdc56d9e100ae072eeb44d2e9e9e5bc289337fccc",
    ),
)
CAMELYON = tuple(
    File(
        camelyon_file(split, content),
        f"https://zenodo.org/record/2546921/files/{camelyon_file(split, content)}",
        sha256,
        unpacked=camelyon_file(split, content).removesuffix(".gz"),
    )
    for split, content, sha256 in (
        ("train", "x", "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c"),
        ("train", "y", "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a"),
        ("valid", "x", "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2"),
        ("valid", "y", "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c"),
        ("test", "x", "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245"),
        ("test", "y", "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef"),
    )
)
DMLAB = (
    File(
        "dmlab.tar.gz",
        "https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz",
        "638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4",
        unpacked="dmlab",
    ),
)
RETINOPATHY = (
    File("train.zip", f"{_KAGGLE} (joined: cat train.zip.0* > train.zip)", unpacked="train"),
    File("test.zip", f"{_KAGGLE} (joined: cat test.zip.0* > test.zip)", unpacked="test"),
    File("trainLabels.csv", f"{_KAGGLE} (in trainLabels.csv.zip)"),
    File(
        "retinopathy_solution.csv",
        TEST_LABELS_SOURCE,
        "a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9",
    ),
)
