#!/usr/bin/env bash
# Try both commands of the README as a new user would: a clone of what is committed, in a Debian 12
# that has make, git and CA certificates, and nothing else. What a developer's machine hides shows here.
#
# Needs root and debootstrap, and a network that reaches Debian's packages and PyPI. Environment:
#   FRESH_TARGETS   what to make, "run test" by default
#   FRESH_MIRROR    Debian's mirror
# pip's own settings (PIP_*) and proxies of the environment hold inside too.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "make fresh: skipped, because $1" >&2
    exit 0
}

[ "$(id -u)" -eq 0 ] || skip "only root can make a root directory of its own"
command -v debootstrap >/dev/null || skip "debootstrap is not installed (apt-get install debootstrap)"
command -v unshare >/dev/null || skip "unshare is not installed (apt-get install util-linux)"

targets=${FRESH_TARGETS:-run test}
root=$(mktemp -d /var/tmp/hypergpu-fresh.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT

chmod 755 "$root"  # it becomes /, which every user may enter

echo "== a bare Debian 12 in $root"
debootstrap --variant=minbase --include=make,git,ca-certificates bookworm "$root" \
    "${FRESH_MIRROR:-http://deb.debian.org/debian}" >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
git clone --quiet --no-hardlinks . "$root/srv/hypergpu"
cp /etc/resolv.conf "$root/etc/resolv.conf"

settings=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
while IFS= read -r pair; do settings+=("$pair"); done < <(env | grep -E '^(PIP_|https?_proxy=|no_proxy=|HTTPS?_PROXY=|NO_PROXY=|SSL_CERT_FILE=)' || true)

# A mount namespace of its own: what is mounted inside disappears with it, also after kill -9.
FRESH_ROOT=$root FRESH_TARGETS=$targets unshare --mount --pid --fork --kill-child bash -s -- "${settings[@]}" <<'INSIDE'
set -euo pipefail
mount --make-rprivate /
mount -t proc proc "$FRESH_ROOT/proc"
mount --rbind /dev "$FRESH_ROOT/dev"
mount --rbind /sys "$FRESH_ROOT/sys"
mount -t tmpfs tmpfs "$FRESH_ROOT/tmp"
# Folders of wheels and certificates that pip's settings name.
for pair in "$@"; do
    case $pair in
    PIP_FIND_LINKS=/* | PIP_CERT=/* | SSL_CERT_FILE=/*)
        path=${pair#*=}
        if [ -d "$path" ]; then
            mkdir -p "$FRESH_ROOT$path"
        else
            mkdir -p "$(dirname "$FRESH_ROOT$path")"
            touch "$FRESH_ROOT$path"
        fi
        mount --bind "$path" "$FRESH_ROOT$path"
        ;;
    esac
done
for target in $FRESH_TARGETS; do
    echo "== make $target"
    began=$SECONDS
    chroot "$FRESH_ROOT" /usr/bin/env -i "$@" make -C /srv/hypergpu "$target" </dev/null
    echo "== make $target took $((SECONDS - began)) s"
done
INSIDE
