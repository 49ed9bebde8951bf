# The sidecar that mounts the tree of a Bitrix server by SSHFS (docs/docker.md).
FROM debian:bookworm-slim
# No version of a Debian package lasts: the mirrors keep the latest of the release alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y openssh-client sshfs \
    && rm -rf /var/lib/apt/lists/*
COPY --chmod=0755 deploy/docker/sshfs.sh /usr/local/bin/mount-tree
ENTRYPOINT ["mount-tree"]
