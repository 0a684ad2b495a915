"""The table of protocols. Adding one is a row here and, for a new form of files, a layout.

Addresses and sums are those that TFDS and scikit-learn check. Where no address is given the
authors ask people to fetch the files themselves, or the address is dead.
"""

from __future__ import annotations

from jdml.datasets import layouts
from jdml.datasets.protocol import Counts, File, Merge, Protocol

_HALVES = "the first half of the classes in order trains, the other half tests"
_DISJOINT = "the authors' own split, whose classes are disjoint"
_CARS = "http://ai.stanford.edu/~jkrause/cars/car_dataset.html (dead: ask for a copy)"
_CVDF = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_DEEPFASHION = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
_DOGS = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_LFW = "http://vis-www.cs.umass.edu/lfw/"
_OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python/"
_SMOOTH_AP = "https://github.com/Andrew-Brown1/Smooth_AP, Inat_dataset_splits"


_ANY = {"train": "", "test": ""}  # both splits together, split by class
_KEPT = {"train": "train", "test": "test"}


def _at(base: str, name: str, shows: str, sha256: str) -> File:
    """A file that lies at an address which ends in its name."""
    return File((name,), shows, base, base + name, sha256)


_LIST = [
    Protocol(
        name="cub200",
        title="CUB-200-2011, birds",
        rule=_HALVES,
        files=(
            File(
                ("CUB_200_2011.tgz",),
                "image_class_labels.txt",
                "https://data.caltech.edu/records/65de6-vp158",
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            ),
        ),
        layout=layouts.cub200,
        merge=Merge("caltech_birds2011", _ANY),
        counts={"train": Counts(5_864, 100), "test": Counts(5_924, 100)},
        total=Counts(11_788, 200),
    ),
    Protocol(
        name="cars196",
        title="Cars196",
        rule=_HALVES,
        files=(
            File(("cars_train.tgz",), "cars_train", _CARS),
            File(("cars_test.tgz",), "cars_test", _CARS),
            File(("car_devkit.tgz",), "cars_meta.mat", _CARS),
            File(("cars_test_annos_withlabels.mat",), "cars_test_annos_withlabels.mat", _CARS),
        ),
        others=(
            File(("car_ims.tgz",), "car_ims", _CARS),
            File(("cars_annos.mat",), "cars_annos.mat", _CARS),
        ),
        layout=layouts.cars196,
        merge=Merge("cars196", _ANY),
        counts={"train": Counts(8_054, 98), "test": Counts(8_131, 98)},
        total=Counts(16_185, 196),
    ),
    Protocol(
        name="sop",
        title="Stanford Online Products",
        rule=_DISJOINT,
        files=(
            File(
                ("Stanford_Online_Products.zip",),
                "Ebay_train.txt",
                "https://cvgl.stanford.edu/projects/lifted_struct/",
                "ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
                "b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48",
            ),
        ),
        layout=layouts.sop,
        merge=Merge("stanford_online_products", _KEPT, "class_id", "super_class_id"),
        counts={"train": Counts(59_551, 11_318), "test": Counts(60_502, 11_316)},
        total=Counts(120_053, 22_634),
    ),
    Protocol(
        name="inshop",
        title="In-Shop Clothes Retrieval",
        rule="the authors' own split; the queries (test) are searched in the gallery alone",
        files=(
            File(("img.zip",), "img/WOMEN", _DEEPFASHION),
            File(("list_eval_partition.txt",), "list_eval_partition.txt", _DEEPFASHION),
        ),
        layout=layouts.inshop,
        counts={
            "train": Counts(25_882, 3_997),
            "test": Counts(14_218, 3_985),
            "gallery": Counts(12_612, 3_985),
        },
        total=Counts(52_712, 7_982),
    ),
    Protocol(
        name="inaturalist",
        title="iNaturalist 2018",
        rule="the two lists that came with Smooth-AP, whose species are disjoint",
        files=(
            File(
                ("train_val2018.tar.gz",),
                "train_val2018",
                "https://github.com/visipedia/inat_comp/tree/master/2018",
                "https://ml-inat-competition-datasets.s3.amazonaws.com/2018/train_val2018.tar.gz",
            ),
            File(("Inaturalist_train_set1.txt",), "Inaturalist_train_set1.txt", _SMOOTH_AP),
            File(("Inaturalist_test_set1.txt",), "Inaturalist_test_set1.txt", _SMOOTH_AP),
        ),
        layout=layouts.inaturalist,
        counts={"train": Counts(325_846, 5_690), "test": Counts(136_093, 2_452)},
        total=Counts(461_939, 8_142),
    ),
    Protocol(
        name="omniglot",
        title="Omniglot, handwritten characters",
        rule="the background alphabets train, the evaluation alphabets test",
        files=(
            _at(
                _OMNIGLOT,
                "images_background.zip",
                "images_background",
                "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
            ),
            _at(
                _OMNIGLOT,
                "images_evaluation.zip",
                "images_evaluation",
                "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
            ),
        ),
        layout=layouts.omniglot,
        merge=Merge("omniglot", _KEPT, group="alphabet"),
        counts={"train": Counts(19_280, 964), "test": Counts(13_180, 659)},
        total=Counts(32_460, 1_623),
        size=28,
        channels=1,
        in_memory=True,
    ),
    Protocol(
        name="mnist",
        title="MNIST, handwritten digits",
        rule="digits 0 to 4 train, 5 to 9 test",
        files=(
            _at(
                _CVDF,
                "train-images-idx3-ubyte.gz",
                "train-images-idx3-ubyte",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            _at(
                _CVDF,
                "train-labels-idx1-ubyte.gz",
                "train-labels-idx1-ubyte",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            _at(
                _CVDF,
                "t10k-images-idx3-ubyte.gz",
                "t10k-images-idx3-ubyte",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            _at(
                _CVDF,
                "t10k-labels-idx1-ubyte.gz",
                "t10k-labels-idx1-ubyte",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        layout=layouts.mnist,
        merge=Merge("mnist", _ANY),
        counts={"train": Counts(35_735, 5), "test": Counts(34_265, 5)},
        total=Counts(70_000, 10),
        size=28,
        channels=1,
        in_memory=True,
    ),
    Protocol(
        name="cifar100",
        title="CIFAR-100",
        rule=_HALVES,
        files=(
            _at(
                "https://www.cs.toronto.edu/~kriz/",
                "cifar-100-binary.tar.gz",
                "fine_label_names.txt",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        layout=layouts.cifar100,
        merge=Merge("cifar100", _ANY, group="coarse_label"),
        counts={"train": Counts(30_000, 50), "test": Counts(30_000, 50)},
        total=Counts(60_000, 100),
        size=32,
        in_memory=True,
    ),
    Protocol(
        name="food101",
        title="Food-101",
        rule=_HALVES,
        files=(
            _at(
                "http://data.vision.ee.ethz.ch/cvl/",
                "food-101.tar.gz",
                "meta/classes.txt",
                "d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            ),
        ),
        layout=layouts.food101,
        merge=Merge("food101", {"train": "", "validation": ""}),
        counts={"train": Counts(51_000, 51), "test": Counts(50_000, 50)},
        total=Counts(101_000, 101),
    ),
    Protocol(
        name="stanford_dogs",
        title="Stanford Dogs",
        rule=_HALVES,
        files=(
            _at(
                _DOGS,
                "images.tar",
                "n02085620-Chihuahua",
                "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            ),
        ),
        layout=layouts.stanford_dogs,
        merge=Merge("stanford_dogs", _ANY),
        counts={"train": Counts(None, 60), "test": Counts(None, 60)},
        total=Counts(20_580, 120),
    ),
    Protocol(
        name="oxford_flowers102",
        title="Oxford Flowers 102",
        rule=_HALVES,
        files=(
            _at(
                _FLOWERS,
                "102flowers.tgz",
                "image_00001.jpg",
                "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            ),
            _at(
                _FLOWERS,
                "imagelabels.mat",
                "imagelabels.mat",
                "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            ),
        ),
        layout=layouts.oxford_flowers102,
        merge=Merge("oxford_flowers102", {**_ANY, "validation": ""}),
        counts={"train": Counts(None, 51), "test": Counts(None, 51)},
        total=Counts(8_189, 102),
    ),
    Protocol(
        name="lfw",
        title="Labeled Faces in the Wild, View 2",
        rule="6,000 pairs in 10 folds; nothing trains",
        files=(
            File(
                ("lfw.tgz", "lfw-funneled.tgz", "lfw-deepfunneled.tgz"),
                "Aaron_Eckhart",
                _LFW,
                "https://ndownloader.figshare.com/files/5976018",
                "055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
            ),
            File(
                ("pairs.txt",),
                "pairs.txt",
                _LFW + "pairs.txt",
                "https://ndownloader.figshare.com/files/5976006",
                "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
            ),
        ),
        layout=layouts.lfw,
        counts={"pairs": Counts(13_233, 5_749)},
        total=Counts(13_233, 5_749),
        size=250,
        pairs=6_000,
    ),
]

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _LIST}
"""By name. `hangul` and `fashion_mnist` have their own modules."""
