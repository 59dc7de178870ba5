# syntax=docker/dockerfile:1
# To pin the base image: --build-arg PYTHON_DIGEST=sha256:...
ARG PYTHON_VERSION=3.11
ARG PYTHON_DIGEST=
ARG PYTHON_IMAGE=python:${PYTHON_VERSION}-slim-bookworm${PYTHON_DIGEST:+@${PYTHON_DIGEST}}

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The locked dependencies come first: this layer is built again only when the locks change.
COPY requirements/runtime.lock requirements/build.lock requirements/
RUN python -m venv /opt/trunkline \
    && /opt/trunkline/bin/python -m pip install --require-hashes -r requirements/runtime.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.lock
COPY . .
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/trunkline/bin/python -m pip install --no-deps /dist/*.whl \
    && /opt/trunkline/bin/python -m pip uninstall --yes pip setuptools

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Trunkline" \
      org.opencontainers.image.description="SIP back-to-back user agent between Twilio SIP trunks and the OpenAI Realtime SIP endpoint" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/trunkline /opt/trunkline
ENV PATH=/opt/trunkline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can check runAsNonRoot. The ports are above 1024: no capability is needed.
USER 10001:10001
WORKDIR /etc/trunkline
EXPOSE 5060/udp 5060/tcp 5061/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=5s --retries=3 \
    CMD ["trunkline", "ping", "sip:127.0.0.1:5060"]
ENTRYPOINT ["trunkline"]
CMD ["run"]
