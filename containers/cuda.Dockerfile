# docker build -f containers/cuda.Dockerfile -t lc_engine:cuda .
# docker run --rm --gpus all -v "$PWD:/data" lc_engine:cuda score --model … --data …
# torch's wheels bring CUDA; Triton needs a C compiler when it first launches a kernel.
FROM python:3.12-slim-bookworm
# The base image is a release of Debian, in which a package keeps its interface.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 lc
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY csrc csrc
COPY kernels kernels
COPY lc_engine lc_engine
ARG EXTRAS="cli,hf,language,report,select,vision"
RUN python -m venv /opt/lc_engine \
    && /opt/lc_engine/bin/pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]" \
    && /opt/lc_engine/bin/python -P -c "import lc_engine._native" \
    && rm -rf /src
USER 1000
WORKDIR /data
ENTRYPOINT ["/opt/lc_engine/bin/lc-engine"]
CMD ["--help"]
