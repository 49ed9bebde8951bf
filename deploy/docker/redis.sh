#!/bin/sh
# Starts Redis with the configuration of deploy/redis; its ACL file gets the hash of REDIS_PASSWORD. What differs in a
# container: where it keeps its data, and that others reach it, those of its network alone. The folder is exchanged in the
# file: Redis enters the one named there when it reads it, and the image has none of that name.
set -eu
hash=$(printf %s "$REDIS_PASSWORD" | sha256sum | cut -d ' ' -f 1)
sed "s/PUT-THE-SHA256-OF-THE-PASSWORD-HERE/$hash/" /etc/redis/users.acl.in > /run/redis/users.acl
unset REDIS_PASSWORD
sed 's|^dir .*|dir /data|' /etc/redis/redis.conf > /run/redis/redis.conf
exec redis-server /run/redis/redis.conf --bind '*' --aclfile /run/redis/users.acl
