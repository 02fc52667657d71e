# shellcheck shell=sh
# What the scripts share: a Python, a virtual environment, and nothing written outside the
# checkout. Sourced with $root set to the checkout, as an absolute path.

cache=$root/.cache
venv=$root/.venv
# The oldest Python that mitmproxy 12 runs on, and the first one that it has no wheels for.
oldest=3.12
too_new=3.15

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Tools that would write into HOME or /tmp are given a place in the checkout.
keep_inside_the_checkout() {
    mkdir -p "$cache/tmp" || fail "Cannot write to $cache: mitmcontext keeps everything there, so the checkout must be writable."
    export XDG_CACHE_HOME="$cache/xdg" TMPDIR="$cache/tmp"
    export PIP_CACHE_DIR="$cache/pip" PIP_DISABLE_PIP_VERSION_CHECK=1
    export UV_CACHE_DIR="$cache/uv-cache" UV_PYTHON_INSTALL_DIR="$cache/python" UV_NO_CONFIG=1
    export RUFF_CACHE_DIR="$cache/ruff" MYPY_CACHE_DIR="$cache/mypy"
    export HYPOTHESIS_STORAGE_DIRECTORY="$cache/hypothesis"
    # pip asks rustc for its version, and rustup's stand-in for rustc writes into its home.
    export RUSTUP_HOME="$cache/rustup" CARGO_HOME="$cache/cargo" RUSTUP_AUTO_INSTALL=0
    # Another project's modules must not get in the way of ours.
    unset PYTHONPATH PYTHONHOME PYTHONPYCACHEPREFIX
}

# Runs pip by the Python $1. A person's own settings for where packages go would miss the
# environment they are meant for.
run_pip() {
    (
        unset PIP_TARGET PIP_PREFIX PIP_ROOT
        export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore
        cd "$root" || exit 1
        pip_python=$1
        shift
        "$pip_python" -m pip "$@" --quiet --no-input --require-hashes --only-binary :all:
    )
}

# Does $1 run, is it new enough, and can it make a virtual environment? Prints where it really is:
# a version manager's stand-in may point elsewhere tomorrow, and an activated environment may be the
# very one that is about to be made anew.
fitting_python() {
    "$1" -c '
import sys, ensurepip, ssl, sqlite3, venv
version = lambda text: tuple(map(int, text.split(".")))
if not version(sys.argv[1]) <= sys.version_info[:2] < version(sys.argv[2]):
    sys.exit(1)
print(getattr(sys, "_base_executable", sys.executable))
' "$oldest" "$too_new" 2>/dev/null </dev/null
}

# Folders that hold one Python per subfolder, whether or not it is activated.
python_collections() {
    if [ -n "${PYENV_ROOT:-}" ]; then
        printf '%s\n' "$PYENV_ROOT/versions"
    fi
    if [ -n "${HOME:-}" ]; then
        printf '%s\n' "$HOME/.pyenv/versions"
    fi
    for tool in pyenv python3; do
        # pyenv itself lies in bin, its stand-ins in shims, both next to versions.
        place=$(command -v "$tool" 2>/dev/null) || continue
        case $place in
        /*) printf '%s\n' "${place%/*/*}/versions" ;;
        esac
    done
    printf '%s\n' "$cache/python"
}

find_python() {
    for name in python3.13 python3.12 python3.14 python3; do
        fitting_python "$name" && return
    done
    python_collections | while IFS= read -r folder; do
        for version in 3.13 3.12 3.14; do
            for candidate in "$folder"/*"$version"*/bin/python"$version"; do
                if [ -x "$candidate" ] && fitting_python "$candidate"; then
                    return 0
                fi
            done
        done
    done | head -n 1 | grep .
}

# Puts uv into the checkout's cache, with whatever Python has pip, and prints where it is.
bring_uv() {
    if ! [ -x "$cache/uv/bin/uv" ]; then
        for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || continue
            pip_for_uv=$name
            if ! "$name" -m pip --version >/dev/null 2>&1; then
                # Debian's Python comes without pip, but may come with venv.
                "$name" -m venv "$cache/uv-venv" >/dev/null 2>&1 || continue
                pip_for_uv=$cache/uv-venv/bin/python
            fi
            rm -rf "$cache/uv"
            run_pip "$pip_for_uv" install --target "$cache/uv" \
                -r "$root/scripts/lib/uv-requirements.txt" >&2 && break
        done
    fi
    [ -x "$cache/uv/bin/uv" ] && printf '%s\n' "$cache/uv/bin/uv"
}

# The last resort where no Python fits: one of its own, inside the checkout.
bring_python() {
    say "No Python $oldest or newer found. Bringing one into the checkout ..."
    uv=$(bring_uv) || return 1
    "$uv" python install --no-bin "$(cat "$root/.python-version")" >&2 || return 1
    find_python
}

# What a finished environment was made from: changes whenever it must be made anew.
stamp_of() {
    cksum <"$1"
    "$venv/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null
}

is_ready() {
    [ -f "$venv/$1.stamp" ] && ! [ -e "$venv/unfinished" ] &&
        [ "$(stamp_of "$2")" = "$(cat "$venv/$1.stamp")" ]
}

# The stamp is written last, and "unfinished" stays behind when this is interrupted: whatever was
# left half done is then made anew.
install_locked() {
    : >"$venv/unfinished"
    run_pip "$venv/bin/python" install -r "$2" ||
        fail "Installing the packages failed; see above. Once the cause is gone, start this again."
    stamp_of "$2" >"$venv/$1.stamp"
    rm "$venv/unfinished"
}

make_environment() {
    python=$(find_python) || python=$(bring_python) ||
        fail "mitmcontext needs Python $oldest or newer (with venv) and could not get one by itself: install Python 3.13, then start this again."
    say "Setting up in $venv (once; about half a minute) ..."
    # With what a killed pip could not clear away.
    rm -rf "$venv" "$cache"/tmp/pip-*
    "$python" -m venv "$venv" ||
        fail "Making a virtual environment with $python failed; see above."
    install_locked run "$root/requirements.lock"
}

# Only one start at a time may work on the environment. The folder is the lock (making one is
# atomic), the process number in it tells whether whoever holds it is still there.
setup_lock=$cache/setup.lock

take_lock() {
    seconds=0
    until mkdir "$setup_lock" 2>/dev/null; do
        holder=$(cat "$setup_lock/pid" 2>/dev/null) || holder=
        if is_abandoned && take_over; then
            break
        fi
        if [ "$seconds" -eq 0 ]; then
            say "Waiting for another start to finish setting up ..."
        elif [ "$seconds" -ge 900 ]; then
            fail "Another start has been setting up for 15 minutes; if there is none, remove $setup_lock and start this again."
        fi
        seconds=$((seconds + 1))
        sleep 1
    done
    printf '%s\n' "$$" >"$setup_lock/pid"
    trap 'rm -rf "$setup_lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

is_abandoned() {
    if [ -n "$holder" ]; then
        ! kill -0 "$holder" 2>/dev/null
    else
        # Killed between making the folder and writing its number? That takes no ten seconds.
        [ "$seconds" -ge 10 ]
    fi
}

# Of several that find the lock abandoned, one gets it: the one that makes this folder while the
# dead holder's number is still there.
take_over() {
    mkdir "$setup_lock/after-$holder" 2>/dev/null || return 1
    if [ "$(cat "$setup_lock/pid" 2>/dev/null)" = "$holder" ]; then
        printf '%s\n' "$$" >"$setup_lock/pid"
        rmdir "$setup_lock/after-$holder"
    else
        rmdir "$setup_lock/after-$holder"
        return 1
    fi
}

release_lock() {
    rm -rf "$setup_lock"
    trap - EXIT INT TERM HUP
}

# Makes sure of what running needs.
ensure_ready_to_run() {
    keep_inside_the_checkout
    is_ready run "$root/requirements.lock" && return
    take_lock
    is_ready run "$root/requirements.lock" || make_environment
    release_lock
}

# Makes sure of what the tests need on top.
ensure_ready_to_test() {
    ensure_ready_to_run
    is_ready test "$root/tests/requirements.lock" && return
    take_lock
    if ! is_ready test "$root/tests/requirements.lock"; then
        is_ready run "$root/requirements.lock" || make_environment
        say "Installing what the tests need ..."
        install_locked test "$root/tests/requirements.lock"
    fi
    release_lock
}
