#!/bin/sh
# Starts Redis with the configuration of deploy/redis; its ACL file gets the hash of REDIS_PASSWORD. What differs in a
# container: where it keeps its data, and that others reach it, those of its network alone.
set -eu
hash=$(printf %s "$REDIS_PASSWORD" | sha256sum | cut -d ' ' -f 1)
sed "s/PUT-THE-SHA256-OF-THE-PASSWORD-HERE/$hash/" /etc/redis/users.acl.in > /run/redis/users.acl
unset REDIS_PASSWORD
exec redis-server /etc/redis/redis.conf --bind '*' --dir /data --aclfile /run/redis/users.acl
