# The workflow in a container, of the pins of requirements.txt; on a machine with NVIDIA's container toolkit:
#   docker build -t snakernel .
#   docker run --gpus all -v "$PWD/results:/snakernel/results" -v /path/to/dataset:/dataset:ro -e OPENAI_API_KEY \
#     snakernel --config dataset_root=/dataset
# Apptainer takes the same image: apptainer build snakernel.sif docker-daemon://snakernel:latest
# With nvcc, for baseline solutions that are compiled when they are first called (as for Modal: docs/modal.md).
FROM nvidia/cuda:13.1.0-devel-ubuntu24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt /snakernel/
RUN python3 -m venv /opt/venv && pip install --no-cache-dir --requirement /snakernel/requirements.txt
WORKDIR /snakernel
COPY . .
ENTRYPOINT ["snakemake"]
