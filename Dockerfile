# One image for the three roles: `init`, `server`, `client` are arguments of its command `fed`.
# Target `tensorboard`: a small one, built only where it is asked for.
#
# Build secrets, each optional: `ca` (certificates to trust besides the base image's) and `index` (settings of pip and uv).
ARG BASE_IMAGE=python:3.11-slim-bookworm

# What only the build needs: uv to install, strip to shrink.
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS tools
RUN --mount=type=bind,source=requirements/tools.txt,target=/build/tools.txt \
    --mount=type=bind,source=script/image/tools,target=/build/tools \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=index \
    sh /build/tools

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS tensorboard
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin fed
RUN --mount=type=bind,from=tools,source=/,target=/tools \
    --mount=type=bind,source=requirements/tensorboard.txt,target=/build/tensorboard.txt \
    --mount=type=bind,source=script/image,target=/build/image \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=index \
    sh /build/image/tensorboard \
    && /tools/opt/tools/bin/python /build/image/sbom.py /opt/venv/sbom.cdx.json fed-tensorboard
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
COPY script/image/board.py /opt/board.py
USER 10001:10001
ENTRYPOINT ["python", "/opt/board.py"]

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin fed \
    # mount points: a named volume takes over the owner of the folder it covers
    && install -d -o fed -g fed /fed /fed/data /fed/data/raw /fed/data/shards /fed/data/test \
        /fed/certs /fed/certs/clients /fed/results

# Which lock is installed: gpu.txt has TensorFlow's build for NVIDIA's GPUs (deploy/gpu.yml).
ARG REQUIREMENTS=runtime.txt
# Installed here and not copied from a stage: a copy would write 1.2 GB a second time.
RUN --mount=type=bind,from=tools,source=/,target=/tools \
    --mount=type=bind,source=requirements/runtime.txt,target=/build/runtime.txt \
    --mount=type=bind,source=requirements/gpu.txt,target=/build/gpu.txt \
    --mount=type=bind,source=script/image,target=/build/image \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=index \
    sh /build/image/requirements

# The bill of materials, for scanners: docker run --rm --entrypoint cat fed /opt/venv/sbom.cdx.json
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/tools \
    --mount=type=bind,source=script/image/sbom.py,target=/build/sbom.py \
    /tools/bin/python /build/sbom.py /opt/venv/sbom.cdx.json fed

# PYTHONDONTWRITEBYTECODE: the root is read-only at run time; what is imported has its bytecode from the build.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/fed \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/tmp/keras \
    HOME=/tmp \
    FED_ROOT=/fed
WORKDIR /fed
# Where no folder is mounted to read from, as on the nodes of a cluster, `init` finds MNIST here.
COPY data/mnist_raw data/mnist_raw
COPY --chmod=755 script/image/fed /usr/local/bin/fed
COPY services services
RUN python -m compileall -q services
USER 10001:10001
ENTRYPOINT ["fed"]
