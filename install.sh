#!/bin/sh
# Build git-mirror-push and install it, or show what it does.
set -eu

usage() {
    cat <<'USAGE'
usage: ./install.sh [--prefix DIR] [--destdir DIR]   build and install (default prefix: /usr/local)
       ./install.sh --uninstall [--prefix DIR] [--destdir DIR]
       ./install.sh --demo                           build, and mirror a repository before your eyes

Installed: bin/git-mirror-push, bin/git-remote-mirror, libexec/git-mirror-push/git-mirror-post-receive, manual pages,
completions for bash, zsh and fish, systemd units, an example of a configuration. Nothing is enabled, and no repository is touched.
USAGE
}

die() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

here=$(cd "$(dirname "$0")" && pwd -P)
prefix=/usr/local
destdir=
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --destdir)
            [ $# -ge 2 ] || die "$1 needs a directory" 129
            if [ "$1" = --prefix ]; then prefix=$2; else destdir=$2; fi
            shift
            ;;
        --prefix=*) prefix=${1#*=} ;;
        --destdir=*) destdir=${1#*=} ;;
        --uninstall) action=uninstall ;;
        --demo) action=demo ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 129 ;;
    esac
    shift
done
case $prefix in
    /*) ;;
    *) prefix=$(pwd -P)/$prefix ;;
esac

release=${CARGO_TARGET_DIR:-$here/target}/release

# root may have no cargo: what another user has built here is installed, unless the sources have changed since.
use_what_is_built() {
    for program in git-mirror-push git-remote-mirror git-mirror-post-receive; do
        [ -x "$release/$program" ] || die "cargo is not on PATH; install the Rust toolchain (https://rustup.rs)"
        set -- "$@" -newer "$release/$program"
    done
    # A change of one program's own file builds that program alone.
    changed=$(find "$here/src" "$here/hooks" -type f "$@")
    [ -z "$changed" ] || die "the sources have changed since $release was built, and cargo is not on PATH; run ./install.sh --demo as the user who has cargo"
    echo "install.sh: cargo is not on PATH; installing what is built in $release"
}

build() {
    if ! command -v cargo >/dev/null; then
        use_what_is_built
        return
    fi
    (
        cd "$here"
        cargo build --release --locked --bin git-mirror-push --bin git-remote-mirror
        # The hook runs at every push: without shared libraries it starts in little more than a third of the instructions. Where the C library is
        # not there for that, it is linked as any other program.
        hook='--release --locked --no-default-features --bin git-mirror-post-receive'
        # shellcheck disable=SC2086 # the arguments are meant to be split
        cargo rustc $hook -- -C target-feature=+crt-static || cargo build $hook
    )
}

units='git-mirror-push.service git-mirror-push.socket
git-mirror-push-drain.service git-mirror-push-drain.timer git-mirror-push-sync.service git-mirror-push-sync.timer
git-mirror-push-drain@.service git-mirror-push-drain@.path git-mirror-push-sync@.service git-mirror-push-sync@.timer'

# Every installed file, relative to the prefix.
files() {
    cat <<'FILES'
bin/git-mirror-push
bin/git-remote-mirror
libexec/git-mirror-push/git-mirror-post-receive
share/man/man1/git-mirror-push.1
share/man/man1/git-remote-mirror.1
share/man/man5/git-mirror-push-config.5
share/bash-completion/completions/git-mirror-push
share/zsh/site-functions/_git-mirror-push
share/fish/vendor_completions.d/git-mirror-push.fish
share/git-mirror-push/config.toml
share/git-mirror-push/nginx.conf
share/git-mirror-push/gerrit-ref-updated
share/git-mirror-push/grokmirror-updated
share/git-mirror-push/fetch-and-record
lib/sysusers.d/git-mirror-push.conf
lib/tmpfiles.d/git-mirror-push.conf
FILES
    for unit in $units; do
        echo "lib/systemd/system/$unit"
    done
}

# put MODE FILE DESTINATION: never half a file under the final name.
put() {
    mkdir -p "$(dirname "$root/$3")"
    cp "$2" "$root/$3.new"
    chmod "$1" "$root/$3.new"
    mv -f "$root/$3.new" "$root/$3"
}

install_all() {
    build
    root=$destdir$prefix
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    for page in git-mirror-push git-mirror-push-config git-remote-mirror; do
        "$release/git-mirror-push" man "$page" >"$tmp/$page"
    done
    for shell in bash zsh fish; do
        "$release/git-mirror-push" completions "$shell" >"$tmp/$shell"
    done
    put 755 "$release/git-mirror-push" bin/git-mirror-push
    put 755 "$release/git-mirror-post-receive" libexec/git-mirror-push/git-mirror-post-receive
    put 755 "$release/git-remote-mirror" bin/git-remote-mirror
    put 644 "$tmp/git-mirror-push" share/man/man1/git-mirror-push.1
    put 644 "$tmp/git-remote-mirror" share/man/man1/git-remote-mirror.1
    put 644 "$tmp/git-mirror-push-config" share/man/man5/git-mirror-push-config.5
    put 644 "$tmp/bash" share/bash-completion/completions/git-mirror-push
    put 644 "$tmp/zsh" share/zsh/site-functions/_git-mirror-push
    put 644 "$tmp/fish" share/fish/vendor_completions.d/git-mirror-push.fish
    put 644 "$here/dist/config.toml" share/git-mirror-push/config.toml
    put 644 "$here/dist/nginx.conf" share/git-mirror-push/nginx.conf
    for script in gerrit-ref-updated grokmirror-updated fetch-and-record; do
        put 755 "$here/dist/$script" "share/git-mirror-push/$script"
    done
    put 644 "$here/dist/sysusers.conf" lib/sysusers.d/git-mirror-push.conf
    put 644 "$here/dist/tmpfiles.conf" lib/tmpfiles.d/git-mirror-push.conf
    for unit in $units; do
        sed "s|@PREFIX@|$prefix|g" "$here/dist/$unit" >"$tmp/unit"
        put 644 "$tmp/unit" "lib/systemd/system/$unit"
    done
    printf 'installed below %s; now, in a bare repository: git mirror-push add NAME URL\n' "$root"
    case ":$PATH:" in
        *":$prefix/bin:"*) ;;
        *) printf 'note: %s is not on PATH\n' "$prefix/bin" ;;
    esac
}

uninstall_all() {
    root=$destdir$prefix
    files | while read -r file; do
        rm -f "$root/$file"
    done
    rmdir "$root/libexec/git-mirror-push" "$root/share/git-mirror-push" 2>/dev/null || true
    printf 'removed from %s; hooks in repositories are taken away with: git mirror-push uninstall-hook\n' "$root"
}

demo() {
    # The download cache of cargo stays in here too, unless nothing is to be downloaded, or the user's own cargo is configured in a
    # way that is needed.
    host=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')
    if [ -z "${CARGO_HOME:-}" ] && [ ! -e "$HOME/.cargo/config.toml" ] && [ ! -e "$HOME/.cargo/config" ] &&
        ! (cd "$here" && cargo fetch --locked --offline --target "$host") >/dev/null 2>&1; then
        export CARGO_HOME="$here/target/cargo-home"
    fi
    build
    demo=$here/demo
    rm -rf "$demo"
    mkdir "$demo"
    trap 'rm -rf "$demo"' EXIT
    cd "$demo"
    export HOME="$demo" GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="$demo/gitconfig" PATH="$release:$PATH"
    unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
    git config --global user.name Demo
    git config --global user.email demo@example.org
    git config --global init.defaultBranch main
    step() {
        printf '\n$ %s\n' "$*"
        "$@"
    }
    # Waits until the mirror has what the source has; the hook's drain works in the background.
    settle() {
        tries=0
        until [ "$(git --git-dir=source.git for-each-ref)" = "$(git --git-dir=mirror.git for-each-ref)" ] &&
            git mirror-push --git-dir source.git status -q >status.txt 2>&1; do
            tries=$((tries + 1))
            [ $tries -lt 300 ] || die "the mirror was not updated: $(cat status.txt)"
            sleep 0.1
        done
    }
    printf '\nA bare repository, and an empty one that is to be its mirror:\n'
    step git init -q --bare source.git
    step git init -q --bare mirror.git
    printf '\nOne command installs the hook and adds the mirror:\n'
    step git mirror-push --git-dir source.git add backup "$demo/mirror.git"
    printf '\nSomebody works and pushes, as always:\n'
    git clone -q source.git work 2>/dev/null
    echo hello >work/README
    git -C work add README
    step git -C work commit -q -m 'the first commit'
    git -C work tag v1.0
    step git -C work push -q origin main v1.0
    settle
    printf '\nThe mirror has it:\n'
    step git --git-dir mirror.git for-each-ref
    printf '\nA branch comes, is merged, and goes; history is rewritten:\n'
    git -C work checkout -q -b topic
    git -C work commit -q --allow-empty -m 'a topic'
    step git -C work push -q origin topic
    settle
    git -C work checkout -q main
    git -C work merge -q topic
    step git -C work push -q origin main :topic
    settle
    git -C work commit -q --amend --allow-empty -m 'a topic, better said'
    step git -C work push -q --force origin main
    settle
    step git mirror-push --git-dir source.git log
    step git mirror-push --git-dir source.git status
    step git --git-dir mirror.git for-each-ref
    printf '\nThe mirror equals the source. The repositories of this demo are removed; the build stays in target/.\n'
}

case $action in
    install) install_all ;;
    uninstall) uninstall_all ;;
    demo) demo ;;
esac
