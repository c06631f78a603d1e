"""Keras: transfer learning as its guide has it, without a teacher; Keras has no weights of EfficientNet-Lite.

A new head is trained on the frozen network, then all layers at a low learning rate with frozen normalization, each with
early stopping by the best val accuracy. MobileNet v1 ×0.25 gets the ImageNet weights that all tools start from,
converted and checked against the features that timm's network gives.
"""

import os
import random
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from common import SIZE, Job, Photo
from safetensors.numpy import load_file

BATCH = 32
HEAD_SHARE = 0.3
"""Of the time, with the frozen network."""
HEAD_LR, FINE_LR = 1e-3, 1e-5
"""Of the guide."""
EPSILON = 1e-5
"""Of timm's normalization."""


def network(job: Job) -> Any:
    """MobileNet v1 ×0.25 with the weights of student.safetensors, pooled."""
    net = keras.applications.MobileNet(
        input_shape=(SIZE, SIZE, 3), alpha=0.25, include_top=False, weights=None, pooling="avg"
    )
    state = load_file(job.work / "student.safetensors")
    blocks = sorted({tuple(map(int, name.split(".")[1:3])) for name in state if name.startswith("blocks.")})

    def normalization(layer: str, name: str) -> None:
        net.get_layer(layer).epsilon = EPSILON
        parts = ("weight", "bias", "running_mean", "running_var")
        net.get_layer(layer).set_weights([state[f"{name}.{part}"] for part in parts])

    net.get_layer("conv1").set_weights([state["conv_stem.weight"].transpose(2, 3, 1, 0)])
    normalization("conv1_bn", "bn1")
    for number, (stage, block) in enumerate(blocks, 1):
        name = f"blocks.{stage}.{block}"
        net.get_layer(f"conv_dw_{number}").set_weights([state[f"{name}.conv_dw.weight"].transpose(2, 3, 0, 1)])
        normalization(f"conv_dw_{number}_bn", f"{name}.bn1")
        net.get_layer(f"conv_pw_{number}").set_weights([state[f"{name}.conv_pw.weight"].transpose(2, 3, 1, 0)])
        normalization(f"conv_pw_{number}_bn", f"{name}.bn2")
    probe = np.load(job.work / "probe.npz", allow_pickle=False)
    found = net.predict(probe["pixels"].transpose(0, 2, 3, 1), verbose=0)
    assert np.abs(found - probe["features"]).max() < 1e-3, "the weights were not converted right"
    return net


def dataset(photos: list[Photo], *, training: bool, seed: int) -> Any:
    """Batches of whole photos at the student's size, 0…255."""
    paths, labels = [str(path) for path, _ in photos], [label for _, label in photos]

    def load(path: Any, label: Any) -> Any:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        return tf.image.resize(image, (SIZE, SIZE), antialias=True), label

    data = tf.data.Dataset.from_tensor_slices((paths, labels))
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE).cache()
    data = data.shuffle(len(photos), seed=seed) if training else data
    return data.batch(BATCH).prefetch(tf.data.AUTOTUNE)


class UntilSeconds(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends `fit` when the time is over, and keeps the weights with the best val accuracy."""

    def __init__(self, over: Callable[[], bool]) -> None:
        super().__init__()
        self.over, self.best, self.weights = over, -1.0, None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.over():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs["val_accuracy"] >= self.best:
            self.best, self.weights = logs["val_accuracy"], self.model.get_weights()


def fit(model: Any, lr: float, photos: tuple[Any, Any], over: Callable[[], bool]) -> float:
    """Train until the time is over; the model has the weights that are best on val."""
    model.compile(
        optimizer=keras.optimizers.Adam(lr),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    train, val = photos
    until = UntilSeconds(over)
    model.fit(train, validation_data=val, epochs=100_000, verbose=0, callbacks=[until])
    model.set_weights(until.weights)
    return float(until.best)


def main() -> None:
    """Head, then all layers."""
    job = Job()
    random.seed(job.seed)
    keras.utils.set_random_seed(job.seed)
    net = network(job)
    job.started = time.perf_counter()  # converting weights is not training
    net.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = net(x, training=False)
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(inputs, keras.layers.Dense(len(job.classes))(x))
    train = dataset(job.photos("train"), training=True, seed=job.seed)
    val = dataset(job.photos("val"), training=False, seed=0)
    fit(model, HEAD_LR, (train, val), lambda: job.elapsed > HEAD_SHARE * job.seconds)
    net.trainable = True
    best = fit(model, FINE_LR, (train, val), lambda: job.elapsed > job.seconds)
    test = dataset(job.photos("test"), training=False, seed=0)
    settings = (
        f"no teacher; head {HEAD_SHARE:.0%} of the time (Adam {HEAD_LR:g}), then all layers with frozen normalization "
        f"(Adam {FINE_LR:g}), flip and rotation, dropout 0.2, batch {BATCH}, labeled photos only, best epoch on val"
    )
    found = model.predict(test, verbose=0).argmax(-1)
    job.finish(found.tolist(), ["keras", "tensorflow-cpu"], settings, val=best)


if __name__ == "__main__":
    main()
