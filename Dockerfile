# syntax=docker/dockerfile:1
# BASE is a Debian 12 or Ubuntu 24.04 (or later) with its own Python. To pin it, give name and digest:
#   docker build --build-arg BASE=debian@sha256:... .
# TRUNKLINE_COMPILE=1 compiles the core with mypyc; empty leaves it pure Python, which does the same more slowly.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log

FROM python AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The compiler for the core, and `strip`: symbols are half of what compiled packages weigh.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# The locked dependencies come first: this layer is built again only when the locks change.
COPY requirements/image.lock requirements/compile.lock requirements/
RUN python3 -m venv /opt/trunkline \
    && /opt/trunkline/bin/python -m pip install --require-hashes -r requirements/image.lock \
    && python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes -r requirements/compile.lock
COPY . .
ARG TRUNKLINE_COMPILE=1
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/trunkline/bin/python -m pip install --no-deps /dist/*.whl \
    && /opt/trunkline/bin/python -m pip uninstall --yes pip setuptools \
    && find /opt/trunkline -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && mkdir /state

FROM python
LABEL org.opencontainers.image.title="Trunkline" \
      org.opencontainers.image.description="SIP back-to-back user agent between Twilio SIP trunks and the OpenAI Realtime SIP endpoint" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/trunkline /opt/trunkline
# The call store. It is the only place that is written to: the root may be read-only.
COPY --from=build --chown=10001:10001 /state /var/lib/trunkline
ENV PATH=/opt/trunkline/bin:$PATH \
    LANG=C.UTF-8 \
    STATE_DIRECTORY=/var/lib/trunkline \
    TMPDIR=/var/lib/trunkline \
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
