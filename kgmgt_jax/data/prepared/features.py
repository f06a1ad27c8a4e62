"""What an example of a frame and of a slice consists of, and its bytes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Complex64
from tensorflow_datasets.core import example_serializer

from kgmgt_jax.data.prepared.records import array_bytes

__all__ = ["FRAME", "SLICE", "frame_records", "serialise"]

_BYTES = np.object_  # TFDS's dtype of a string of bytes

FRAME = tfds.features.FeaturesDict(
    {
        "images": tfds.features.Tensor(shape=(), dtype=_BYTES, doc="(n, h, w), complex64"),
        "shape": tfds.features.Tensor(shape=(3,), dtype=np.int64, doc="n, h, w"),
        "slice": tfds.features.Text(doc="id of the slice"),
        "t": tfds.features.Scalar(np.int64, doc="number of the frame"),
    }
)
SLICE = tfds.features.FeaturesDict(
    {
        "id": tfds.features.Text(doc="16 hexadecimal digits from the place in the source"),
        "name": tfds.features.Text(doc="of the slice in its file"),
        "subject": tfds.features.Text(doc="who was scanned"),
        "view": tfds.features.Text(doc="cardiac view, empty where unknown"),
        "shape": tfds.features.Tensor(shape=(4,), dtype=np.int64, doc="t, n, h, w"),
        "scale": tfds.features.Scalar(np.float32, doc="what the images were divided by"),
        "sens": tfds.features.Tensor(shape=(), dtype=_BYTES, doc="complex64"),
        "sens_shape": tfds.features.Tensor(
            shape=(4,), dtype=np.int64, doc="1 or t, n, h, w; zeros for a single coil"
        ),
        "meta": tfds.features.Text(doc="JSON: source, orientation, simulation and more"),
    }
)


def serialise(features: tfds.features.FeaturesDict, example: Mapping[str, Any]) -> bytes:
    """An example as bytes that depend on nothing but its values.

    Args:
        features: What it consists of.
        example: Its values by name.
    """
    specification: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specification)
    message = serializer.get_tf_example(features.encode_example(example))
    return message.SerializeToString(deterministic=True)


def frame_records(name: str, images: Complex64[np.ndarray, "t n h w"]) -> Iterator[bytes]:
    """Records of the frames of a slice.

    Args:
        name: Identifier of the slice.
        images: Its coil images.
    """
    for t, frame in enumerate(images):
        example = {"images": array_bytes(frame), "shape": frame.shape, "slice": name, "t": t}
        yield serialise(FRAME, example)
