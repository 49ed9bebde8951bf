#!/bin/sh
# Mounts SSHFS_SOURCE (user@host:folder) at SSHFS_TARGET for the other containers, and ends with the mount. SSHFS_UID and
# SSHFS_GID are whom the files shall belong to here. docs/sshfs-nfs.md has the reason of each option.
set -eu
: "${SSHFS_SOURCE:?is not set: name what to mount in .env, as user@host:/folder}"

# What an sshfs that was killed has left answers nothing but errors.
while grep -qF " $SSHFS_TARGET fuse.sshfs " /proc/mounts; do
    umount --lazy "$SSHFS_TARGET"
done
mkdir -p "$SSHFS_TARGET"

exec sshfs -f "$SSHFS_SOURCE" "$SSHFS_TARGET" \
    -p "$SSHFS_PORT" \
    -o IdentityFile=/run/secrets/sshfs_key,UserKnownHostsFile=/run/secrets/sshfs_known_hosts,StrictHostKeyChecking=yes \
    -o reconnect,ServerAliveInterval=15,ServerAliveCountMax=3,ConnectTimeout=10,BatchMode=yes \
    -o "allow_other,default_permissions,uid=$SSHFS_UID,gid=$SSHFS_GID,dcache_timeout=20"
