# The `dop` command with the versions of constraints.txt, installed as in continuous integration.
#
#   docker build -t dop .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/files" -w /files dop recover photo.png --out restored
#
# GPU: select a CUDA build of PyTorch with the argument TORCH (a requirement with options of pip; the installation page of
# PyTorch lists the index of each CUDA version), and give the container access to the devices. The base image does not
# need CUDA, because the packages of PyTorch include it. The host needs the NVIDIA driver and container toolkit.
#
#   docker build -t dop:gpu --build-arg TORCH="torch --index-url URL_OF_THE_CUDA_BUILDS" .
#   docker run --rm --gpus all -v "$PWD:/files" -w /files dop:gpu recover photo.png --out restored
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY . .

ARG TORCH=torch
ENV PIP_NO_CACHE_DIR=1
RUN make setup TORCH="${TORCH}"

ENV PATH="/app/.venv/bin:${PATH}"
ENTRYPOINT ["dop"]
