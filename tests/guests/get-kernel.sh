#!/usr/bin/env bash
# get-kernel.sh FOLDER
#
# Unpacks the kernel that Debian 13 (trixie) has for x86-64 machines in clouds into FOLDER,
# as it is: FOLDER/vmlinuz, and FOLDER/modules with what depmod says of them. The system is
# not touched; no root rights are needed. A FOLDER that is complete is kept.
#
# Needs apt, dpkg and kmod, the network, and 130 MB. For $DEBIAN_MIRROR see debian.sh.
set -euo pipefail
if (($# != 1)); then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
. "$(dirname "$(readlink -f "$0")")/debian.sh"

folder=$(realpath -m "$1")
[[ -f $folder/vmlinuz && -f $folder/modules/modules.dep ]] && exit

PATH=$PATH:/usr/sbin:/sbin
if ! command -v depmod >/dev/null; then
    echo "depmod is not on this machine: apt install kmod" >&2
    exit 1
fi

# Built beside it and moved at the end, so that what is there is whole.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT

private_apt "$work/apt" trixie
# What the newest depends on is called after its version.
package=$("${APT_CACHE[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p')
(cd "$work" && "${APT[@]}" download "$package")
dpkg-deb --extract "$work/$package"_*.deb "$work/root"
version=${package#linux-image-}
ln -sfn usr/lib "$work/root/lib"
depmod --basedir "$work/root" "$version"

mkdir "$work/done"
mv "$work/root/boot/vmlinuz-$version" "$work/done/vmlinuz"
mv "$work/root/usr/lib/modules/$version" "$work/done/modules"
chmod 755 "$work/done"
rm -rf "$folder"
mv "$work/done" "$folder"
