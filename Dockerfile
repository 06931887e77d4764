# One image for SageMaker's `docker run IMAGE train` and `docker run IMAGE serve`; docs/sagemaker.md says how to use it.
FROM python:3.12-slim

# Which wheels of torch are wanted, where PyPI's (CUDA) are not: --build-arg PIP_FLAGS="--extra-index-url ADDRESS"
ARG PIP_FLAGS=""

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/xray

# What is installed changes seldom and makes up nearly all of the image: a layer of its own, before the code.
# A volume that is mounted at /var/lib/xray for `serve --dicom-queue` begins as the folder is: user 1000's to write to.
COPY setup.cfg pyproject.toml requirements.txt requirements-dev.txt constraints.txt README.md LICENSE ./
COPY xray/__init__.py xray/__init__.py
RUN grep -hE "^[A-Za-z0-9._-]+==" requirements.txt requirements-dev.txt constraints.txt > /tmp/pins.txt \
    && pip install $PIP_FLAGS --constraint /tmp/pins.txt --editable ".[serve,dicom-out,dicomweb,remote]" \
    && rm /tmp/pins.txt \
    && install --directory --owner 1000 --group 1000 --mode 700 /var/lib/xray

COPY xray xray
COPY tools tools
COPY configs configs
COPY docker docker

# SageMaker tells the port by SAGEMAKER_BIND_TO_PORT where several containers stand behind one endpoint.
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=180s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('SAGEMAKER_BIND_TO_PORT', 8080)}/ping\", timeout=2)"]

# No USER: SageMaker runs containers as root and expects that they may write to /opt/ml. Elsewhere, serving only reads:
# docker run --user 1000:1000 -e HOME=/tmp -v RUNS:/opt/ml/model:ro -p 127.0.0.1:8080:8080 IMAGE serve
ENTRYPOINT ["python", "/opt/xray/docker/entrypoint.py"]
CMD ["serve"]
