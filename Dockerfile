# One image for the API, the worker and the one-shot migration; they differ in their command.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# Experts and model files live in volumes; the code below is never written to.
RUN useradd --system --uid 10001 --home-dir /var/lib/lethe --shell /usr/sbin/nologin lethe \
 && mkdir -p /var/lib/lethe/experts /var/lib/lethe/cache /var/lib/lethe/models /srv/lethe \
 && chown -R lethe /var/lib/lethe
WORKDIR /srv/lethe

# torch: the CPU build if the package indexes in use hold one (PyTorch publishes an index of CPU wheels:
# --build-arg TORCH_INDEX=URL), else the default build. For a GPU: --build-arg TORCH=2.13.0
ARG TORCH=2.13.0+cpu
ARG TORCH_INDEX=
COPY constraints.txt ./
RUN pip install -q -c constraints.txt "torch==${TORCH}" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
 || pip install -q -c constraints.txt "torch==${TORCH%+*}"

# Dependencies before code and README, so that a change of these does not install them again. Extras, such as s3 or
# s3,otel: --build-arg EXTRAS=s3
ARG EXTRAS=
COPY pyproject.toml ./
RUN mkdir app workers migrations && touch app/__init__.py workers/__init__.py migrations/__init__.py README.md LICENSE \
 && pip install -q -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" && pip uninstall -q -y lethe && rm -rf app workers migrations build *.egg-info

COPY alembic.ini README.md LICENSE ./
COPY migrations migrations
COPY workers workers
COPY app app
RUN pip install -q --no-deps -c constraints.txt -e .

# Threads spin only briefly at barriers: API and worker share the machine's cores.
ENV LETHE_EXPERTS_DIR=/var/lib/lethe/experts LETHE_EXPERTS_CACHE=/var/lib/lethe/cache HF_HOME=/var/lib/lethe/models OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=20000
USER lethe
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["python", "-m", "app.serve", "--host", "0.0.0.0", "--port", "8000"]
