# One image for every role: surefoot api | worker | migrate. Nothing is compiled and nothing is installed at run time;
# the file system may be read-only (only /tmp is written). The embedded servers and the tools for development stay out.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What changes rarely comes first: these layers are kept while only the code changes.
COPY requirements.runtime.lock requirements.build.lock ./
RUN python -m venv /opt/surefoot \
 && /opt/surefoot/bin/pip install --require-hashes --only-binary=:all: -r requirements.runtime.lock
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r requirements.build.lock

COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY migrations migrations
RUN /opt/build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir dist . \
 && /opt/surefoot/bin/pip install --no-deps --no-index dist/surefoot-*.whl \
 && /opt/surefoot/bin/pip check


FROM python:3.11-slim
LABEL org.opencontainers.image.title="Surefoot" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/surefoot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SUREFOOT_HOST=0.0.0.0 \
    SUREFOOT_LOG_JSON=true

# A number, so that Kubernetes can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin surefoot
COPY --from=build /opt/surefoot /opt/surefoot
COPY examples /opt/surefoot/examples
USER 10001:10001
WORKDIR /opt/surefoot

EXPOSE 8080
# SIGTERM drains a worker and lets the API finish its answers; the process is PID 1, so no shell stands in between.
STOPSIGNAL SIGTERM
ENTRYPOINT ["surefoot"]
CMD ["api"]
