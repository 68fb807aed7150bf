"""Import and use, in the image's build, what the roles import: it leaves the bytecode that a read-only root can't take.

A module missing here still works; its bytecode is made anew at every start of a container.
"""

# ruff: noqa: INP001, PLC0415, T201  a script of the build: in no package, it imports when asked and prints to its log

import ctypes
import importlib
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

MODULES = """
    argparse asyncio concurrent.futures csv ctypes curses difflib fcntl getpass gzip hashlib http.client http.server
    ipaddress json logging.handlers lzma multiprocessing pdb platform queue resource secrets shutil signal sqlite3 ssl
    statistics subprocess tarfile textwrap threading tomllib unittest.mock urllib.request uuid venv zipfile

    cryptography.hazmat.primitives.asymmetric.ec cryptography.hazmat.primitives.serialization cryptography.x509
    declearn.aggregator declearn.communication.websockets declearn.dataset.examples declearn.dataset.tensorflow
    declearn.dataset.utils declearn.main declearn.metrics declearn.model.sklearn declearn.model.tensorflow
    declearn.optimizer.modules declearn.optimizer.regularizers declearn.optimizer.schedulers declearn.quickrun
    declearn.secagg.joye_libert declearn.secagg.masking declearn.training declearn.utils jinja2 keras
    matplotlib.backends.backend_agg matplotlib.backends.backend_svg matplotlib.pyplot msgpack numpy pandas
    pydantic.dataclasses pydantic.fields pydantic.main pydantic.networks pydantic.type_adapter pydantic.types
    rich.live rich.progress sklearn.metrics starlette.applications starlette.responses starlette.routing
    starlette.staticfiles tensorboardX.summary tensorflow uvicorn.lifespan.on uvicorn.loops.asyncio
    uvicorn.protocols.http.auto
    uvicorn.protocols.http.h11_impl uvicorn.protocols.websockets.auto websockets.legacy.client
    websockets.legacy.server yaml
"""


def check_extensions() -> list[str]:
    """List the compiled modules that don't load, each tried in a process of its own.

    TensorFlow's are left to its import: they depend on one another. NVIDIA's want a driver, which no build has.
    """
    broken = []
    for path in sorted(Path(sysconfig.get_path("platlib")).rglob("*.so")):
        if {"nvidia", "tensorflow"} & set(path.parts) or path.parent.name.endswith(".libs"):
            continue
        child = os.fork()
        if child == 0:
            try:
                ctypes.CDLL(str(path))
            except OSError as exc:
                print(exc, flush=True)
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            broken.append(str(path))
    return broken


def main() -> int:
    """Check the extensions, import the modules, then train, save, load and plot once: much is imported at first use.

    Returns:
        0, or 1 where something is broken.
    """
    broken = check_extensions()
    for name in MODULES.split():
        try:
            importlib.import_module(name)
        except ImportError as exc:
            broken.append(f"{name}: {exc}")
    if broken:
        print("broken:", *broken, sep="\n", file=sys.stderr)
        return 1
    use()
    return 0


def use() -> None:
    """Train, save, load and plot once."""
    import keras
    import matplotlib.pyplot as plt
    import numpy as np

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(2, 3, strides=2, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(np.zeros((8, 28, 28, 1), "float32"), np.zeros(8, "int64"), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        keras.models.load_model(path)
        figure, axes = plt.subplots()
        axes.plot([0, 1], label="line")
        axes.imshow([[0, 1]])
        axes.legend()
        figure.savefig(Path(folder) / "figure.png")
        figure.savefig(Path(folder) / "figure.svg")


if __name__ == "__main__":
    sys.exit(main())
