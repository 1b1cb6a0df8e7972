# Packages of another Debian release, without root rights and without touching the
# system: a private apt root with its own sources, lists, cache and (empty) status.
# Sourced by the scripts beside it.
#
# The archive is the one that the system's own apt uses, or $DEBIAN_MIRROR; what it
# signs is checked with Debian's keyring, or $DEBIAN_KEYRING.

debian_mirror() {
    if [[ -n ${DEBIAN_MIRROR:-} ]]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    # RELEASE COMPONENT URI of every index that the system's sources name: that of its
    # own release, or else any that looks like a whole archive.
    local release found
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    found=$(apt-get indextargets --no-release-info \
        --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' |
        awk -v release="$release" '
            $1 == release && $2 == "main" && !own { own = $3 }
            $3 ~ /\/debian\/?$/ && !any           { any = $3 }
            END                                   { print own ? own : any }')
    if [[ -z $found ]]; then
        echo "no Debian archive in the system's apt sources: set DEBIAN_MIRROR" >&2
        return 1
    fi
    echo "$found"
}

debian_keyring() {
    local keyring
    for keyring in ${DEBIAN_KEYRING:+"$DEBIAN_KEYRING"} \
        /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
        if [[ -f $keyring ]]; then
            echo "$keyring"
            return
        fi
    done
    echo "no Debian keyring: apt install debian-archive-keyring, or set DEBIAN_KEYRING" >&2
    return 1
}

# private_apt FOLDER SUITE...: make the private root in FOLDER and read the lists.
private_apt() {
    local suite mirror keyring
    APT_ROOT=$1
    shift
    mirror=$(debian_mirror)
    keyring=$(debian_keyring)
    mkdir -p "$APT_ROOT"/{lists,cache/archives}/partial "$APT_ROOT/none"
    : >"$APT_ROOT/status"
    for suite; do
        echo "deb [signed-by=$keyring] $mirror $suite main"
    done >"$APT_ROOT/sources.list"
    local options=(-q=2
        -o "Dir::State=$APT_ROOT" -o "Dir::State::lists=$APT_ROOT/lists"
        -o "Dir::State::status=$APT_ROOT/status" -o "Dir::Cache=$APT_ROOT/cache"
        -o "Dir::Etc::sourcelist=$APT_ROOT/sources.list"
        -o "Dir::Etc::sourceparts=$APT_ROOT/none"
        -o "Dir::Etc::preferences=/dev/null" -o "Dir::Etc::preferencesparts=$APT_ROOT/none"
        -o "Acquire::Languages=none" -o "Debug::NoLocking=1")
    if [[ $(id -u) == 0 ]]; then
        options+=(-o APT::Sandbox::User=root) # or its own user could not read our folder
    fi
    APT=(apt-get "${options[@]}")
    APT_CACHE=(apt-cache "${options[@]}")
    "${APT[@]}" update
}

# fetch_with_needs SUITE PACKAGE...: download packages of SUITE and all that they depend
# on.
fetch_with_needs() {
    "${APT[@]}" install --yes --download-only --no-install-recommends -t "$@" >/dev/null
}

# unpack_all FOLDER: unpack everything that was downloaded.
unpack_all() {
    local deb
    mkdir -p "$1"
    for deb in "$APT_ROOT"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar --extract --directory "$1" --keep-directory-symlink --no-same-owner
    done
}
