# An image that runs the demo, or any other run:
#   make image
#   docker run --rm reprise
#   docker run --rm -v "$PWD/outputs:/reprise/outputs" reprise run.py paper=spider dataset=breast_cancer
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 1000 --create-home reprise
WORKDIR /reprise
RUN chown reprise:reprise /reprise
USER reprise

# wheels of torch for the CPU are a tenth of those for a GPU
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=${TORCH_INDEX} WANDB_MODE=offline

# what is installed depends on these alone, so that a change of the code installs nothing anew
COPY --chown=reprise:reprise Makefile pyproject.toml README.md LICENSE ./
RUN mkdir common papers && make setup

COPY --chown=reprise:reprise . .
# folders that a run writes to, ready to be mounted
RUN mkdir -p data outputs

# no words: the demo; or a command with its words: run.py paper=..., claims.py, report.py
ENTRYPOINT ["/bin/sh", "-c", "if [ $# -eq 0 ]; then exec make demo; else exec .venv/bin/python \"$@\"; fi", "reprise"]
