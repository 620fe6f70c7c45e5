"""TFDS sets on the disk and in the catalogue, how one is prepared, and what `hmcvi data` prints."""

import io
import shutil
import socket
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from rich.console import Console
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

from hmcvi.benchmarks import data_command, tfds_prepare
from hmcvi.benchmarks.bundled import BUNDLED
from hmcvi.benchmarks.raw import DataError
from hmcvi.benchmarks.tfds_catalogue import KNOWN, Entry, find_prepared, is_known_to_tfds, prepared
from hmcvi.benchmarks.tfds_images import read_images
from hmcvi.benchmarks.tfds_prepare import prepare

from .prepared_sets import features, png, write_set

TOY = features((2, 2, 1))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty TFDS folder and an empty cache; whoever reaches for the network without being allowed to fails."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("HMCVI_CACHE", str(tmp_path / "cache"))

    def refuse(*arguments, **options):
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(tfds_prepare, "getproxies", dict)
    return tmp_path / "tfds"


def rows(count, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    return [(png(image), row % 3) for row, image in enumerate(images)]


# --- on the disk


def test_what_is_not_prepared_is_said_at_once(root):
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        find_prepared("mnist")
    assert time.perf_counter() - start < 5  # TFDS itself retries for 204 s
    assert str(caught.value) == (
        f'mnist is not prepared in {root}: prepare it with "hmcvi data prepare mnist" (needs a network and pip install '
        "'hmcvi[prepare]'), or point TFDS_DATA_DIR or --data-dir to a folder that holds it"
    )
    with pytest.raises(DataError, match=r"is not prepared in /no where: .* mnist --data-dir '/no where'\" \(needs"):
        find_prepared("mnist", data_dir="/no where")
    for name in ("", "..", "../mnist", "/etc", "a b", "emnist/", "emnist/letters/3.0.0", "mnist:3.0.1"):
        with pytest.raises(DataError, match="cannot be a TFDS set: NAME or NAME/CONFIG is wanted"):
            find_prepared(name)


def test_the_newest_version_is_found(root):
    for version in ("3.0.9", "3.0.10"):
        write_set(root, "toy", {"train": rows(3)}, like=TOY, version=version)
    shutil.copytree(root / "toy" / "3.0.10", root / "toy" / "incomplete.ABCDEF_3.0.11")
    shutil.copytree(root / "toy" / "3.0.10", root / "toy" / "3.0.12")
    (root / "toy" / "3.0.12" / "dataset_info.json").unlink()
    assert find_prepared("toy") == root / "toy" / "3.0.10"


def test_configurations_are_listed(root):
    for config in ("letters", "mnist", "digits"):
        write_set(root, f"emnist/{config}", {"train": rows(3)}, like=TOY)
    with pytest.raises(DataError, match=r"^emnist has configurations: write emnist/digits, emnist/letters or emnist/m"):
        find_prepared("emnist")
    assert find_prepared("emnist/mnist") == root / "emnist" / "mnist" / "1.0.0"
    with pytest.raises(DataError, match=r"^emnist/balanced is not prepared"):
        find_prepared("emnist/balanced")
    for number in range(20):
        write_set(root, f"many/c{number:02}", {"train": rows(1)}, like=TOY)
    with pytest.raises(DataError, match=r"write one of many/c00, .*, many/c11 and 8 more$"):
        find_prepared("many")


def test_what_is_prepared_is_listed_as_it_is(root):
    assert prepared() == []
    write_set(root, "old", {"train": rows(3)}, like=TOY, file_format="tfrecord")
    write_set(root, "foreign", {"test": rows(3)}, like=TOY)
    write_set(root, "emnist/letters", {"train": rows(5), "validation": rows(2)}, like=features((2, 2, 1), names="abcd"))
    write_set(root, "pets", {"train": rows(7), "test": rows(4), "extra": rows(6)}, shards=2, version="2.1.0")
    (root / "downloads" / "extracted").mkdir(parents=True)
    letters, pets = prepared()
    assert letters == Entry(
        name="emnist/letters", rows={"train": 5, "validation": 2}, shape=(2, 2, 1), num_classes=4, version="1.0.0"
    )
    assert letters.test_split == "validation"
    assert pets == Entry(
        name="pets",
        rows={"train": 7, "test": 4, "extra": 6},
        shape=(None, None, 3),
        num_classes=3,
        version="2.1.0",
    )
    assert pets.test_split == "test"
    for entry in (letters, pets):
        assert read_images(entry.name).x.shape[0] == entry.rows["train"]


# --- in TFDS's catalogue


def test_the_known_sets_are_as_the_installed_tfds_declares_them(root):
    names = [entry.name for entry in KNOWN]
    assert len(set(names)) == len(names)
    for entry in KNOWN:
        assert is_known_to_tfds(entry.name)
        builder = tfds.builder(entry.name, data_dir=root)
        assert builder.info.features["image"].shape == entry.shape
        assert builder.info.features["label"].num_classes == entry.num_classes
        if entry.name.startswith("emnist/"):
            config = builder.builder_config
            assert entry.rows == {"train": config.train_examples, "test": config.test_examples}


def test_names_that_tfds_knows():
    for name in ("mnist", "emnist/letters", "tf_flowers"):
        assert is_known_to_tfds(name)
    for name in ("", "mnits", "digits", "../mnist", "mnist/../x/y", "houses.csv"):
        assert not is_known_to_tfds(name)


# --- preparing


def test_preparing_needs_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as where it is not installed
    with pytest.raises(DataError) as caught:
        prepare("mnist")
    message = "hmcvi data prepare needs TensorFlow, which is not installed here: pip install 'hmcvi[prepare]'"
    assert str(caught.value) == message


def test_an_unknown_name_fails_before_anything_heavy(monkeypatch):
    def refuse():
        raise AssertionError("TensorFlow was imported")

    monkeypatch.setattr(tfds_prepare, "_import_tensorflow", refuse)
    with pytest.raises(DataError, match=r"^TFDS has no set 'mnits': did you mean mnist\?$"):
        prepare("mnits")
    with pytest.raises(DataError, match=r"^TFDS has no set 'zzzzzz/z': check the name$"):
        prepare("zzzzzz/z")
    with pytest.raises(DataError, match="cannot be a TFDS set"):
        prepare("../mnist")


def test_what_is_prepared_is_left_alone(root, monkeypatch):
    folder = write_set(root, "mnist", {"train": rows(3)}, like=TOY)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert prepare("mnist") == folder
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_tfrecord_files_are_converted(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    write_set(root / "other", "toy", {"train": rows(7), "test": rows(4, seed=1)}, like=TOY, shards=2)
    splits = {"train": rows(7), "test": rows(4, seed=1)}
    folder = write_set(root, "toy", splits, like=TOY, shards=2, file_format="tfrecord")
    with pytest.raises(DataError, match=r"^toy in .* has no ArrayRecord files, .*\"hmcvi data prepare toy\" \(conv"):
        read_images("toy")
    assert prepare("toy") == folder
    raw, same = read_images("toy"), read_images("toy", data_dir=root / "other")
    np.testing.assert_array_equal(raw.x, same.x)
    np.testing.assert_array_equal(raw.x_test, same.x_test)
    np.testing.assert_array_equal(raw.y_test, same.y_test)
    assert not list(folder.glob("*.partial"))
    assert len(list(folder.glob("*.tfrecord*"))) == 4  # TFDS still reads them


@pytest.mark.parametrize("damage", ["cut", "short", "gone", "full disk"])
def test_a_conversion_that_fails_leaves_nothing_that_counts(root, damage, monkeypatch):
    folder = write_set(root, "toy", {"train": rows(7)}, like=TOY, shards=2, file_format="tfrecord")
    last = max(folder.glob("*.tfrecord*"))
    message = rf"^toy in {folder} cannot be read \(ValueError: .*: remove that folder and prepare it again$"
    if damage == "gone":
        last.unlink()
    elif damage == "full disk":

        def count(path):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ArrayRecordFileAdapter, "num_examples", count)
        message = rf"^toy in {folder} cannot be converted to ArrayRecord \(OSError: .*No space .*: put that right and"
    else:
        last.write_bytes(last.read_bytes()[:-2] if damage == "cut" else b"")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(DataError, match=message):
        prepare("toy")
    assert {path.name for path in folder.iterdir()} == before
    with pytest.raises(DataError, match="has no ArrayRecord files"):
        find_prepared("toy")


@pytest.fixture(scope="module")
def builders():
    """Builders that TFDS finds by name; a class registers itself when it is made, once."""

    class HmcviToy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.3")
        broken = False

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=TOY)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(7), "test": self._generate_examples(4)}

        def _generate_examples(self, count):
            for number, (image, label) in enumerate(rows(count)):
                if self.broken and number == 3:
                    raise RuntimeError("the source\nchanged")
                yield number, {"image": io.BytesIO(image), "label": label}

    class HmcviUnlabelled(HmcviToy):
        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": TOY["image"]}))

    class HmcviByHand(HmcviToy):
        MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask the authors\nfor toys.zip."

    class HmcviConfigured(HmcviToy):
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="small"), tfds.core.BuilderConfig(name="large"))

    return SimpleNamespace(toy=HmcviToy)


@pytest.fixture
def without_tensorflow(monkeypatch):
    """The toys are prepared without it, which TFDS itself can do."""
    monkeypatch.setattr(tfds_prepare, "_import_tensorflow", lambda: None)


@pytest.mark.usefixtures("without_tensorflow")
def test_a_set_is_prepared(root, builders):
    folder = prepare("hmcvi_toy")
    assert folder == root / "hmcvi_toy" / "1.2.3" == find_prepared("hmcvi_toy")
    raw = read_images("hmcvi_toy")
    assert (len(raw.x), len(raw.x_test)) == (7, 4)
    original = {png(image) for image in read_images("hmcvi_toy").x}
    assert original == {image for image, _ in rows(7)}  # TFDS shuffles


@pytest.mark.usefixtures("without_tensorflow")
def test_a_preparation_that_fails_leaves_nothing_that_counts(root, builders, monkeypatch):
    monkeypatch.setattr(builders.toy, "broken", True)
    with pytest.raises(DataError) as caught:
        prepare("hmcvi_toy")
    assert str(caught.value).startswith("TFDS cannot prepare hmcvi_toy (RuntimeError: ")
    assert "the source changed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert prepared() == []
    with pytest.raises(DataError, match="is not prepared"):
        find_prepared("hmcvi_toy")
    monkeypatch.setattr(builders.toy, "broken", False)
    assert prepare("hmcvi_toy").is_dir()


@pytest.mark.usefixtures("without_tensorflow", "builders")
def test_configurations_to_prepare(root):
    with pytest.raises(DataError, match=r"^hmcvi_configured has configurations: write hmcvi_configured/small or"):
        prepare("hmcvi_configured")
    with pytest.raises(DataError, match=r"^hmcvi_configured has no configuration 'huge': write hmcvi_configured/s"):
        prepare("hmcvi_configured/huge")
    with pytest.raises(DataError, match=r"^hmcvi_toy has no configurations: write hmcvi_toy$"):
        prepare("hmcvi_toy/small")
    assert prepare("hmcvi_configured/large") == root / "hmcvi_configured" / "large" / "1.2.3"


@pytest.mark.usefixtures("without_tensorflow", "builders")
def test_what_cannot_be_learned_from_is_refused_before_it_is_downloaded(root):
    with pytest.raises(DataError, match=r"^hmcvi_unlabelled has the features image \(Image\), but image .* are wanted"):
        prepare("hmcvi_unlabelled")
    with pytest.raises(DataError, match=r"^hmcvi_by_hand must be downloaded by hand into .*manual .*: Ask the authors"):
        prepare("hmcvi_by_hand")
    assert not root.exists()
    (root / "downloads" / "manual").mkdir(parents=True)
    (root / "downloads" / "manual" / "toys.zip").write_text("")
    assert prepare("hmcvi_by_hand").is_dir()


@pytest.mark.usefixtures("without_tensorflow")
def test_no_network_is_said_at_once(root, monkeypatch):
    asked = []

    def unknown(host, *arguments):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        prepare("kmnist")
    assert time.perf_counter() - start < 5
    assert str(caught.value) == (
        "kmnist is downloaded from codh.rois.ac.jp, which cannot be reached: connect to a network, or put the files "
        f"by hand into {root / 'downloads' / 'manual'}, and run it again"
    )
    assert asked == ["codh.rois.ac.jp"]
    assert not root.exists()


def test_when_a_network_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.undo()  # real sockets, to this machine alone
    monkeypatch.setattr(tfds_prepare, "getproxies", dict)
    info = SimpleNamespace(filename="a.zip", checksum="0" * 64)

    def check(*urls):
        tfds_prepare._check_network("toy", dict.fromkeys(urls, info), tmp_path)

    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}/a.zip"
        check(here)
        check("http://127.0.0.1:1/a.zip", here)  # one of several is enough
    check()
    check("gs://bucket/a.zip")  # not a host
    with pytest.raises(DataError, match=r"^toy is downloaded from 127\.0\.0\.1, which cannot be reached"):
        check("http://127.0.0.1:1/a.zip")
    monkeypatch.setattr(tfds_prepare, "getproxies", lambda: {"https": "http://proxy:3128"})
    check("http://127.0.0.1:1/a.zip")
    monkeypatch.setattr(tfds_prepare, "getproxies", dict)
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "a.zip").write_text("")
    check("http://127.0.0.1:1/a.zip")


# --- what is printed


def printed(function, *arguments):
    text = io.StringIO()
    function(*arguments, Console(file=text, width=data_command.WIDTH, highlight=False))
    return text.getvalue()


def test_the_list_of_data(root):
    write_set(root, "pets", {"train": rows(7), "test": rows(4)})
    write_set(root, "kmnist", {"train": rows(3)}, like=TOY)
    lines = [line.rstrip() for line in printed(data_command.list_data, None).splitlines()]
    titles = ["bundled", f"prepared in {root}", "known, not prepared (hmcvi data prepare NAME)"]
    assert max(len(line) for line in lines if line not in titles) <= 100
    starts = [lines.index(title) for title in titles]
    assert lines[0].split("  ")[0] == "name"
    sections = []
    for start in starts:
        end = lines.index("", start)
        cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines[start + 1 : end]]
        sections.append({row[0]: row for row in cells})
    bundled, here, known = sections
    assert list(bundled) == list(BUNDLED)
    assert bundled["digits"] == ["digits", "1,797", "8x8 grey", "10"]
    assert bundled["wave"] == ["wave", "100 + 200", "1 feature", "regression"]
    assert here == {
        "kmnist": ["kmnist", "3", "2x2 grey", "3"],
        "pets": ["pets", "7 + 4", "various sizes, colour", "3"],
    }
    assert list(known) == [entry.name for entry in KNOWN if entry.name != "kmnist"]
    assert known["stl10"] == ["stl10", "5,000 + 8,000", "96x96 colour", "10"]
    assert ".parquet" in lines[-1]


def test_the_list_of_an_empty_folder(tmp_path):
    text = printed(data_command.list_data, tmp_path / "no [data]")
    assert f"prepared in {tmp_path}/no [data]\n  none\n" in text
    assert f"(hmcvi data prepare NAME --data-dir '{tmp_path}/no [data]')" in text


@pytest.mark.usefixtures("without_tensorflow", "builders")
def test_preparing_says_what_it_did(root):
    first = printed(data_command.prepare_data, "hmcvi_toy", None).splitlines()
    assert first == [
        f"hmcvi_toy is prepared: {root}/hmcvi_toy/1.2.3",
        "7 + 4 rows (train + test), 2x2 grey, 3 classes",
    ]
    again = printed(data_command.prepare_data, "hmcvi_toy", None).splitlines()
    assert again == [f"hmcvi_toy was prepared before: {root}/hmcvi_toy/1.2.3", first[1]]
