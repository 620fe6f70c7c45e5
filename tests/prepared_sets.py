"""Small TFDS sets on disk, written by TFDS itself without TensorFlow, so that tests read real ones."""

import io
import struct

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter


def png(pixels):
    """An image (height, width, channel) as the bytes of a PNG."""
    return encoded(Image.fromarray(np.squeeze(pixels, -1) if pixels.shape[-1] == 1 else pixels))


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=0)
    return file.getvalue()


def features(shape=(None, None, 3), names=("a", "b", "c"), **others):
    """Image and label as TFDS features; `others` replace them, or are added."""
    return tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=list(names))} | others
    )


def write_set(root, name, splits, *, like=None, shards=1, version="1.0.0", file_format="array_record"):
    """Write ROOT/NAME/VERSION as TFDS leaves it.

    Args:
        root: the TFDS folder.
        name: NAME or NAME/CONFIG.
        splits: rows by the split's name; a row is (PNG bytes, label), or a dict of all features.
        like: the features; `features()` by default.
        shards: how many files each split is written to.
        version: the folder's name.
        file_format: "array_record" or "tfrecord".

    Returns:
        The folder of the version.
    """
    like = features() if like is None else like
    folder = root / name / version
    folder.mkdir(parents=True)
    infos = []
    for split, rows in splits.items():
        examples = [row if isinstance(row, dict) else {"image": io.BytesIO(row[0]), "label": row[1]} for row in rows]
        records = [like.serialize_example(example) for example in examples]
        parts = [list(part) for part in np.array_split(np.arange(len(records)), shards)]
        for number, part in enumerate(parts):
            file = f"{name.partition('/')[0]}-{split}.{file_format}-{number:05}-of-{shards:05}"
            write = ArrayRecordFileAdapter.write_examples if file_format == "array_record" else _write_tfrecord
            write(folder / file, [(int(row), records[row]) for row in part])
        lengths = [len(part) for part in parts]
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=sum(map(len, records))))
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=like,
        split_infos=infos,
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
    )
    return folder


def _write_tfrecord(path, rows):
    checksum = b"\0\0\0\0"  # of the length, and of the record: not read
    path.write_bytes(b"".join(struct.pack("<Q", len(row)) + checksum + row + checksum for _, row in rows))
