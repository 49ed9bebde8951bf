#!/bin/bash
# Install what webpd's make targets need and is not there yet: Debian packages, and a virtual environment in the checkout.
#   tools/setup.sh run|sample|test|check|bench
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A packages=(
    [run]="python3 python3-venv libseccomp2"
    [sample]=""
    [check]=""
    [test]="chromium fonts-dejavu-core webp libjpeg-turbo-progs imagemagick pngcrush libgs-common libvips42 libatomic1 procps mount faketime openssh-server sshfs fuse3 redis-server prometheus prometheus-alertmanager nginx rsync php-cli openssl systemd systemd-container shellcheck man-db debootstrap"
    [bench]="webp nodejs npm findutils openssh-server sshfs fuse3 mount redis-server nginx wrk"
)
declare -A extras=([run]="" [sample]="sample" [check]="check,test,bench" [test]="test" [bench]="bench,cluster")

say() { printf 'setup: %s\n' "$*" >&2; }

install_packages() {
    local missing=()
    for package in "$@"; do
        # Any program of that name will do: a python3 or node from elsewhere is as good as Debian's.
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || command -v "$package" >/dev/null ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    local sudo=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || { say "missing Debian packages: ${missing[*]}; install them as root"; exit 3; }
        sudo=(sudo)
    fi
    say "apt-get install ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_environment() {
    local stamp=".venv/.installed-$1" extra=${extras[$1]}
    if [[ -f $stamp && $stamp -nt pyproject.toml && $stamp -nt constraints.txt ]]; then return; fi
    if [[ ! -x .venv/bin/pip ]]; then
        say "python3 -m venv .venv"
        python3 -m venv .venv
    fi
    say "pip install -e .${extra:+[$extra]}"
    .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extra:+[$extra]}"
    touch "$stamp"
}

# shellcheck disable=SC2086 # the lists are words
install_packages ${packages[run]} ${packages[$1]}
install_environment "$1"
