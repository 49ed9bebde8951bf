#!/bin/bash
# Install webpd as a service of systemd on Debian 12 or later, or Ubuntu; and take it away again. May be run as often as one likes.
set -euo pipefail
umask 022

here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
settings=/etc/webpd.toml
secrets=/etc/webpd.env
units=/etc/systemd/system
prefix=/opt/webpd
roots=() user="" source="" wheel="" wheelhouse="" nginx=yes action=install purge=no

usage() {
    cat <<'END'
install.sh --root FOLDER [options]   install webpd as a service that keeps the sidecars of FOLDER
install.sh [options]                 the same again: a newer version, or after a change of roots or owner in /etc/webpd.toml
install.sh --remove [--purge]        take it away; --purge: settings, token, what it remembers, the SSHFS mount, too

  --root FOLDER       a tree of images, such as /var/www/cdn/upload/resize_cache; may be given several times
  --user USER         who runs it; default: the owner of the first root, or www-data where that is root
  --sshfs SOURCE      mount the root by SSHFS from USER@HOST:FOLDER, and keep it mounted
  --no-nginx          write nothing below /etc/nginx
  --wheel FILE        install this wheel; default: the checkout that this script is in
  --wheelhouse DIR    take every Python package from DIR, none from the network
  --prefix DIR        where the program goes; default: /opt/webpd

Exit code: 0 done, 2 wrong usage, 3 the machine is not fit.
END
}

say() { printf 'webpd: %s\n' "$*"; }
warn() { printf 'webpd: %s\n' "$*" >&2; }
fail() { warn "${@:2}"; exit "$1"; }

read_arguments() {
    while (($#)); do
        case $1 in
            --root | --user | --sshfs | --wheel | --wheelhouse | --prefix)
                [[ -n ${2-} ]] || fail 2 "$1 wants a value; see --help" ;;&
            --root) roots+=("$(realpath -ms "$2")"); shift ;;
            --user) user=$2; shift ;;
            --sshfs) source=$2; shift ;;
            --wheel) wheel=$(realpath -e "$2"); shift ;;
            --wheelhouse) wheelhouse=$(realpath -e "$2"); shift ;;
            --prefix) prefix=$(realpath -ms "$2"); shift ;;
            --no-nginx) nginx=no ;;
            --remove) action=remove ;;
            --purge) purge=yes ;;
            --help | -h) usage; exit 0 ;;
            *) fail 2 "$1: there is no such option; see --help" ;;
        esac
        shift
    done
    [[ $purge == no || $action == remove ]] || fail 2 "--purge goes with --remove"
    [[ -z $source || ${#roots[@]} -eq 1 ]] || fail 2 "--sshfs wants exactly one --root: the folder to mount it at"
    refuse_odd_names
    ((EUID == 0)) || fail 3 "run this as root: sudo $0 …"
    [[ $action == install ]] || return 0
    [[ -e $settings ]] || ((${#roots[@]})) || fail 2 "which folder? --root FOLDER; see --help"
    local root
    for root in ${roots[@]+"${roots[@]}"}; do
        [[ -n $source || -d $root ]] || fail 3 "--root $root: there is no such folder (is it mounted?)"
    done
    refuse_unknown_user
    # Where the program is not there yet, or can't read the settings, write_settings finds out.
    if [[ -e $settings && -x $prefix/bin/webpd ]] && option roots >/dev/null 2>&1; then refuse_other_roots; fi
}

# --- what is ours -----------------------------------------------------------------------------------------------------------

# A list of the files and folders that this script made, in the order in which it did.
manifest() { printf '%s/installed' "$prefix"; }

is_ours() { grep -qxF -- "$1" "$(manifest)" 2>/dev/null; }

claim() { is_ours "$1" || printf '%s\n' "$1" >>"$(manifest)"; }

make_folder() {
    [[ -d $1 ]] && return
    make_folder "$(dirname "$1")"
    mkdir -m 755 "$1"
    claim "$1"
}

# Write standard input to a file, if there is none or it is ours.
put() {
    local file=$1 mode=${2:-644}
    if [[ -e $file || -L $file ]] && ! is_ours "$file"; then
        cat >/dev/null
        warn "$file is not of this script and stays as it is: compare it with the one that docs/install.md describes"
        return
    fi
    make_folder "$(dirname "$file")"
    claim "$file"
    install -m "$mode" /dev/stdin "$file"
}

link() {
    if [[ -e $2 || -L $2 ]] && ! is_ours "$2"; then
        warn "$2 is not of this script and stays as it is"
        return
    fi
    make_folder "$(dirname "$2")"
    claim "$2"
    ln -sfn "$1" "$2"
}

has_systemd() { [[ -d /run/systemd/system ]]; }

# --- installing -------------------------------------------------------------------------------------------------------------

install_packages() {
    local wanted=(python3 python3-venv libseccomp2) missing=()
    [[ -z $source ]] || wanted+=(sshfs)
    for package in "${wanted[@]}"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null ||
        fail 3 "this is for Debian and Ubuntu; elsewhere by pip or Docker: docs/install.md, docs/install.ru.md"
    say "apt-get install ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_program() {
    local pip=("$prefix/bin/pip" --quiet --disable-pip-version-check) from=(-c "$checkout/constraints.txt")
    [[ ! -e $prefix || -e $(manifest) || -z $(ls -A "$prefix") ]] ||
        fail 3 "$prefix is not empty and not of this script: take it away, or choose another --prefix"
    mkdir -p "$prefix"
    touch "$(manifest)"
    # Debian's own: another one, such as in somebody's home, is not for www-data to run.
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail 3 "Python 3.11 or later is needed, as Debian 12 and Ubuntu 24.04 have; here is $(/usr/bin/python3 --version)"
    [[ -x $prefix/bin/pip ]] || /usr/bin/python3 -m venv "$prefix"
    [[ -f $checkout/constraints.txt ]] || from=()
    [[ -z $wheelhouse ]] || from+=(--no-index --find-links "$wheelhouse")
    say "installing ${wheel:-$checkout} into $prefix"
    "${pip[@]}" install "${from[@]}" --upgrade "${wheel:-$checkout}"
    # The same version may have changed since: pip would think that there is nothing to do.
    "${pip[@]}" install "${from[@]}" --force-reinstall --no-deps "${wheel:-$checkout}"
    link "$prefix/bin/webpd" /usr/local/bin/webpd
    local share=$prefix/share shared
    while IFS= read -r -d '' shared; do
        link "$share/$shared" "/usr/local/share/$shared"
    done < <(cd "$share" && find man bash-completion zsh fish -type f -printf '%p\0' 2>/dev/null)
}

webpd() { "$prefix/bin/webpd" "$@"; }

option() { # one line for each value of an option, as webpd itself reads it
    webpd config --json | "$prefix/bin/python" -c '
import json, sys
print(*next(row["value"] for row in json.load(sys.stdin) if row["option"] == sys.argv[1]).split(","), sep="\n")' "$1"
}

refuse_odd_names() {
    local root
    for root in ${roots[@]+"${roots[@]}"}; do
        [[ $root != *[,:\"\\[:cntrl:]]* ]] || fail 2 "$root: a service's folder has no comma, colon, quote or \\ in its name"
    done
}

refuse_other_roots() {
    local root known
    known=$(option roots)
    for root in ${roots[@]+"${roots[@]}"}; do
        grep -qxF -- "$root" <<<"$known" || fail 2 "$settings is there and has no root $root: add it there first"
    done
}

refuse_unknown_user() { [[ -z $user ]] || id -u -- "$user" >/dev/null 2>&1 || fail 2 "--user $user: there is no such user"; }

write_settings() {
    local root quoted=()
    if [[ -e $settings ]]; then
        refuse_other_roots
    else
        for root in "${roots[@]}"; do quoted+=("\"$root\""); done
        (IFS=,; cat >"$settings" <<END
# Settings of webpd; \`webpd config\` prints all there are. After a change: systemctl reload webpd;
# after one of roots or owner: deploy/systemd/install.sh once more.
roots = [${quoted[*]}]
# Sidecars belong to the user that runs the service.
owner = "keep"
END
        )
    fi
    if [[ ! -e $secrets ]]; then
        (umask 077 && printf '# Read by systemd for webpd.service alone. After a change: systemctl restart webpd.\nWEBPD_TOKEN=%s\n' \
            "$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n')" >"$secrets")
    fi
    mapfile -t roots < <(option roots)
    refuse_odd_names
}

choose_user() {
    local before="$units/webpd.service.d/install.conf"
    [[ -n $user || ! -e $before ]] || user=$(sed -n 's/^User=//p' "$before")
    [[ -n $user ]] || user=$(timeout 10 stat -c %U -- "${roots[0]}" 2>/dev/null || true)
    [[ -n $user && $user != root && $user != UNKNOWN ]] || user=www-data
    refuse_unknown_user
}

# The folder that the service may write below: the one above a root, or above the mount that a root is on. Bound at the place of
# the mount itself, systemd's own bind mount would hide whatever is mounted there later.
writable_above() {
    local point
    point=$(awk -v path="$1/" '$3 ~ /^(fuse|nfs|cifs|smb|autofs)/ && index(path, $2 "/") == 1 && (!n || length($2) < n) {
        n = length($2); print $2 }' /proc/mounts | tail -n 1)
    point=$(dirname "${point:-$1}")
    [[ $point != / ]] && printf '%s' "$point" || printf '%s' "$1"
}

write_units() {
    local lines=() root above
    for root in "${roots[@]}"; do
        above=$(writable_above "$root")
        above=${above//%/%%}
        lines+=("ReadWritePaths=\"-$above\"")
        case $above/ in
            /home/* | /root/* | /run/user/*) lines+=("ProtectHome=tmpfs" "BindPaths=\"-$above\"") ;;
        esac
    done
    local owner
    owner=$(option owner)
    if [[ $owner != keep && $owner != "$(id -u "$user"):$(id -g "$user")" ]]; then
        lines+=("CapabilityBoundingSet=CAP_CHOWN" "AmbientCapabilities=CAP_CHOWN" "SystemCallFilter=fchown")
    fi
    put "$units/webpd.service" < <(sed "s|^ExecStart=/opt/webpd/|ExecStart=$prefix/|" "$here/webpd.service")
    put "$units/webpd.service.d/install.conf" <<END
# Written by install.sh, from $settings.
[Service]
User=$user
Group=$(id -gn "$user")
$(printf '%s\n' "${lines[@]}")
END
    put /etc/sysctl.d/60-webpd.conf <"$here/60-webpd.conf"
}

write_mount() {
    local name suffix root=${roots[0]}
    name=$(systemd-escape --path "$root")
    for suffix in mount automount; do
        put "$units/$name.$suffix" < <(sed -e "/^[A-Z][A-Za-z]*=/{s|SOURCE|${source//%/%%}|;s|FOLDER|${root//%/%%}|}" \
            -e "s|USERID|$(id -u "$user")|;s|GROUPID|$(id -g "$user")|" "$here/sshfs/webpd-tree.$suffix")
    done
    for suffix in service timer; do
        put "$units/webpd-mount-check@.$suffix" <"$here/sshfs/webpd-mount-check@.$suffix"
    done
    systemctl --quiet enable "$name.mount" "webpd-mount-check@$name.timer"
    if has_systemd; then
        systemctl daemon-reload
        systemctl start "webpd-mount-check@$name.timer"
        systemctl start "$name.mount" ||
            warn "$root: $source could not be mounted: see \`journalctl -u $name.mount\`; it is tried again every minute"
    fi
}

write_nginx() {
    [[ $nginx == yes && -d /etc/nginx ]] && command -v nginx >/dev/null || return 0
    local part file kept
    kept=$(mktemp -d)
    for part in http server; do
        file=$(nginx_file "$part")
        [[ ! -e $file ]] || cp -a "$file" "$kept/$part"
        webpd nginx --part "$part" >"$kept/new"
        put "$file" <"$kept/new"
    done
    if nginx -t -q; then
        reload_nginx
    else
        for part in http server; do
            file=$(nginx_file "$part")
            if [[ -e $kept/$part ]]; then cp -a "$kept/$part" "$file"; elif is_ours "$file"; then rm -f "$file"; fi
        done
        warn "nginx refuses its configuration: the two files for it are as they were before"
    fi
    rm -r "$kept"
    [[ -n $(nginx_users) ]] ||
        say "one line is yours to add, in the server { } of the site: include snippets/webpd.conf;"
}

# The http part before every site: nginx wants a log format told before it is used, and reads conf.d in the order of names.
nginx_file() { case $1 in http) echo /etc/nginx/conf.d/00-webpd.conf ;; server) echo /etc/nginx/snippets/webpd.conf ;; esac; }

# What nginx itself reads, wherever it is and through whatever links; where nginx refuses that, all that it might read.
nginx_users() {
    local all
    if all=$(nginx -T 2>/dev/null); then
        awk '/^# configuration file / { file = $4; next } /^[^#]*snippets\/webpd\.conf/ { print file $0 }' <<<"$all"
    else
        grep -Rsn '^[^#]*snippets/webpd\.conf' /etc/nginx || true
    fi
}

reload_nginx() {
    if has_systemd && systemctl --quiet is-active nginx; then
        systemctl reload nginx || warn "nginx could not be reloaded: see \`nginx -t\`"
    fi
}

start() {
    systemctl --quiet enable webpd.service
    if ! has_systemd; then
        say "systemd does not run here: webpd.service is installed and enabled, but not started; nor are limits of the kernel set"
        return
    fi
    systemctl daemon-reload
    sysctl -q -p /etc/sysctl.d/60-webpd.conf || warn "the limits in /etc/sysctl.d/60-webpd.conf could not be set here"
    systemctl restart webpd.service || fail 3 "it does not start: see \`journalctl -u webpd\`"
    say "webpd.service runs: \`webpd status\`, http://$(option health_address)/"
}

check_roots() {
    local root
    for root in "${roots[@]}"; do
        if [[ ! -d $root ]] || waits_for_mount "$root"; then
            warn "$root is not there, or not mounted (yet)"
        elif ! timeout 30 setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups test -w "$root"; then
            warn "$root: $user can't write there: give --user the owner of the folder, or $user the right to write"
        fi
    done
}

waits_for_mount() {
    [[ -e $units/$(systemd-escape --path "$1").mount ]] && ! timeout 10 mountpoint -q "$1"
}

# --- removing ---------------------------------------------------------------------------------------------------------------

remove() {
    local users unit
    users=$(nginx_users)
    [[ -z $users ]] || ! is_ours "$(nginx_file server)" ||
        fail 3 "the site still includes what is to go: take this line out first: $users"
    take_from_nginx
    local path found=() kept=()
    while IFS= read -r path; do
        if [[ $purge == no ]] && is_of_mount "$path"; then kept+=("$path"); else found+=("$path"); fi
    done < <(tac "$(manifest)" 2>/dev/null)
    for unit in ${found[@]+"${found[@]}"}; do
        case $unit in
            "$units"/webpd.service | "$units"/*.mount | "$units"/*.automount) disable "$(basename "$unit")" ;;&
            "$units"/*.mount) say "$(mount_point "$unit") is no longer mounted: nobody reaches its images here" ;;
            "$units"/webpd-mount-check@.timer) disable_checks ;;
        esac
    done
    for path in ${found[@]+"${found[@]}"}; do
        if [[ -d $path && ! -L $path ]]; then rmdir --ignore-fail-on-non-empty -- "$path"; else rm -f -- "$path"; fi
    done
    if has_systemd; then systemctl daemon-reload; fi
    if [[ " ${found[*]-} " == *" $(nginx_file http) "* ]]; then reload_nginx; fi
    [[ ! -e $(manifest) ]] || rm -rf -- "$prefix"
    local left="Debian packages and the sidecars in the tree stay (docs/install.md, docs/install.ru.md)"
    if [[ $purge == yes ]]; then
        rm -rf -- "$settings" "$secrets" /var/lib/webpd
        say "removed, with settings and state; $left"
        return
    fi
    say "removed; $settings, $secrets, /var/lib/webpd, $left"
    keep_mount ${kept[@]+"${kept[@]}"}
}

# Take the two files away from nginx, if it can do without. One that refuses its configuration with them is no worse without.
take_from_nginx() {
    local part file kept said
    { command -v nginx && nginx -t -q; } >/dev/null 2>&1 || return 0
    kept=$(mktemp -d)
    for part in http server; do
        file=$(nginx_file "$part")
        if [[ -e $file ]] && is_ours "$file"; then mv -- "$file" "$kept/$part"; fi
    done
    said=$(nginx -t -q 2>&1) || {
        for part in http server; do
            [[ ! -e $kept/$part ]] || mv -- "$kept/$part" "$(nginx_file "$part")"
        done
        rm -r "$kept"
        fail 3 "nothing is removed: nginx would refuse its configuration then: $said"
    }
    rm -r "$kept"
}

is_of_mount() {
    case $1 in "$units"/*.mount | "$units"/*.automount | "$units"/webpd-mount-check@.*) ;; *) return 1 ;; esac
}

mount_point() { sed -n '/^Where=/{s///;s/%%/%/g;p}' "$1"; }

# The site's images come by the mount, with webpd or without: it stays, and the list that --purge finds it by.
keep_mount() {
    (($#)) || return 0
    mkdir -p "$prefix"
    printf '%s\n' "$@" >"$(manifest)"
    local unit
    for unit in "$@"; do
        [[ $unit != *.mount ]] ||
            say "$(mount_point "$unit") stays mounted, for the site's images come by it; --remove --purge takes that away too"
    done
}

disable() {
    if has_systemd && systemctl cat -- "$1" >/dev/null 2>&1; then
        systemctl --quiet stop -- "$1" || warn "$1 could not be stopped"
    fi
    systemctl --quiet disable -- "$1" 2>/dev/null || true
}

disable_checks() {
    local link
    for link in "$units"/timers.target.wants/webpd-mount-check@*.timer; do
        [[ ! -L $link ]] || disable "$(basename "$link")"
    done
}

read_arguments "$@"
if [[ $action == remove ]]; then
    remove
    exit 0
fi
install_packages
install_program
write_settings
choose_user
[[ -z $source ]] || write_mount
write_units
check_roots
start
write_nginx
