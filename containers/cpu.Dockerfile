# docker build -f containers/cpu.Dockerfile -t lc_engine .
# docker run --rm -v "$PWD:/data" lc_engine score --model … --data …
FROM python:3.12-slim-bookworm AS build
# The base image is a release of Debian, in which a package keeps its interface.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY csrc csrc
COPY kernels kernels
COPY lc_engine lc_engine
# torch without CUDA comes from an index of its own: --build-arg TORCH_INDEX=…; without it the wheels
# of the default index are taken, which hold CUDA too.
ARG TORCH_INDEX=""
ARG EXTRAS="cli,hf,language,report,select,vision"
RUN python -m venv /opt/lc_engine \
    && if [ -n "$TORCH_INDEX" ]; then \
         /opt/lc_engine/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; \
       fi \
    && /opt/lc_engine/bin/pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]" \
    && /opt/lc_engine/bin/python -P -c "import lc_engine._native"

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 lc
COPY --from=build /opt/lc_engine /opt/lc_engine
USER 1000
WORKDIR /data
ENTRYPOINT ["/opt/lc_engine/bin/lc-engine"]
CMD ["--help"]
