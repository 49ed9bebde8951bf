# webpd in a container (docs/docker.md). compose.yaml builds it; by hand:
#
#   docker build -t webpd .
#   docker build -t webpd --build-arg EXTRAS=[cluster] .     with the queue for several hosts

FROM python:3.13-slim-bookworm AS build
ARG EXTRAS=""
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docs/man docs/man
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
    && python -m venv --without-pip /opt/webpd \
    && pip --python /opt/webpd/bin/python install --no-cache-dir -c constraints.txt "$(ls /dist/*.whl)${EXTRAS}"


FROM python:3.13-slim-bookworm
# Whom the container runs as, and who owns its volumes: who may write the tree, and WEBPD_OWNER. 33 is www-data.
ARG UID=33
ARG GID=33
# No pip is left; libseccomp2 seals the codec processes.
# No version of a Debian package lasts: the mirrors keep the latest of the release alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y libseccomp2 \
    && rm -rf /var/lib/apt/lists/* \
    && pip uninstall -y --root-user-action=ignore pip \
    && install -d -o "$UID" -g "$GID" /var/lib/webpd /run/webpd /etc/webpd-nginx
COPY --from=build /opt/webpd /opt/webpd
# 0.0.0.0: a container is reached from outside of it alone. Reading the page takes the token then.
ENV PATH=/opt/webpd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    WEBPD_STATE_DIR=/var/lib/webpd \
    WEBPD_HEALTH_ADDRESS=0.0.0.0:8088 \
    WEBPD_METRICS_ADDRESS=0.0.0.0:9101
USER $UID:$GID
EXPOSE 8088 9101
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8088/readyz', timeout=8)"]
ENTRYPOINT ["webpd"]
CMD ["run"]
