# syntax=docker/dockerfile:1
# To pin the base image: --build-arg PYTHON_DIGEST=sha256:...
# To have another one: --build-arg PYTHON_IMAGE=...; it needs Python 3.11 or later as `python`, with venv.
ARG PYTHON_VERSION=3.11
ARG PYTHON_DIGEST=
ARG PYTHON_IMAGE=python:${PYTHON_VERSION}-slim-bookworm${PYTHON_DIGEST:+@${PYTHON_DIGEST}}

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# For `strip`: symbols are half of what compiled packages weigh.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
# The locked dependencies come first: this layer is built again only when the locks change.
COPY requirements/image.lock requirements/build.lock requirements/
RUN python -m venv /opt/trunkline \
    && /opt/trunkline/bin/python -m pip install --require-hashes -r requirements/image.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.lock
COPY . .
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/trunkline/bin/python -m pip install --no-deps /dist/*.whl \
    && /opt/trunkline/bin/python -m pip uninstall --yes pip setuptools \
    && find /opt/trunkline -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && mkdir /state

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Trunkline" \
      org.opencontainers.image.description="SIP back-to-back user agent between Twilio SIP trunks and the OpenAI Realtime SIP endpoint" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/trunkline /opt/trunkline
# The call store. It is the only place that is written to: the root may be read-only.
COPY --from=build --chown=10001:10001 /state /var/lib/trunkline
ENV PATH=/opt/trunkline/bin:$PATH \
    STATE_DIRECTORY=/var/lib/trunkline \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can check runAsNonRoot. The ports are above 1024: no capability is needed.
USER 10001:10001
WORKDIR /etc/trunkline
VOLUME ["/var/lib/trunkline"]
EXPOSE 5060/udp 5060/tcp 5061/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=5s --retries=3 \
    CMD ["trunkline", "ping", "sip:127.0.0.1:5060"]
ENTRYPOINT ["trunkline"]
CMD ["run"]
