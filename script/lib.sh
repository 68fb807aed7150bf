# What the scripts share: steps that show their time, exit codes, package-index settings, the pinned uv, the
# Python environment.
# shellcheck shell=bash

if ((BASH_VERSINFO[0] < 5)); then
    printf '%s: bash is %s; wanted 5 or later; use a newer one, or run docker compose yourself\n' "${0##*/}" "$BASH_VERSION" >&2
    exit 13
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The codes of services/errors.py that scripts end with.
export EXIT_USAGE=2 EXIT_NETWORK=5 EXIT_STORAGE=6 EXIT_STOPPED=11 EXIT_SETUP=13

# at_exit COMMAND: run it at the end of this script. A child that is ended in the moment of its birth still has its
# parent's traps, and is not the one to clean up.
at_exit() {
    # shellcheck disable=SC2064 # the command is known now
    trap "[[ \$BASHPID != \$\$ ]] || $1" EXIT
}

log_folder=.cache/log
mkdir -p "$log_folder"
scratch=$(mktemp -d)
remove_scratch() { rm -rf "$scratch"; }
at_exit remove_scratch
uv=.cache/uv/bin/uv
python=.venv/bin/python

# A script that calls another hands the count over, so that a person sees one sequence.
steps_done=${STEPS_DONE:-0}
steps_total=${STEPS_TOTAL:-1}
job="" job_dots="" job_watch=""

# outcome WORDS: what a step did, shown on its line.
outcome() { printf '%s' "$*" >"$scratch/outcome"; }

# fail CODE LINE: end with that code and this one line as the reason, inside a step or outside.
fail() {
    local code=$1
    shift
    if [[ -n ${IN_STEP:-} ]]; then
        printf '%s\n' "$*" >"$scratch/reason"
    else
        printf '%s: %s\n' "${0##*/}" "$*" >&2
    fi
    exit "$code"
}

# end_group PID…: end process groups that this script started.
end_group() {
    local pid
    for pid in "$@"; do
        [[ -z $pid ]] || kill -- "-$pid" 2>/dev/null || true
    done
}

end_step() {
    end_group "$job" "$job_dots" "$job_watch"
    job="" job_dots="" job_watch=""
}

# attempt TITLE SECONDS COMMAND…: one line at the start, dots while it lasts, the outcome and the seconds at its end; its
# output goes to a log. The command is ended, with its children, after SECONDS. Returns the command's code.
attempt() {
    local title=$1 limit=$2 log began=$EPOCHREALTIME code=0
    shift 2
    log=$log_folder/$(tr -c 'a-zA-Z0-9\n' '-' <<<"$title").log
    steps_done=$((steps_done + 1))
    printf '[%d/%d] %s … ' "$steps_done" "$steps_total" "$title"
    : >"$scratch/outcome"
    : >"$scratch/reason"
    set -m # a process group for each, so that children end with it
    (IN_STEP=1 && "$@") >"$log" 2>&1 </dev/null &
    job=$!
    (while sleep 5; do printf '.'; done) 2>/dev/null &
    job_dots=$!
    (sleep "$limit" && printf 'gave up after %s s\n' "$limit" >"$scratch/reason" && end_group "$job") >/dev/null 2>&1 &
    job_watch=$!
    set +m
    wait "$job" || code=$?
    job=""
    end_step
    wait 2>/dev/null || true
    if ((code == 0)); then
        printf '%s in %s s\n' "$(outcome_or "done")" "$(seconds_since "$began")"
        return 0
    fi
    printf 'failed in %s s\n' "$(seconds_since "$began")"
    if [[ -s $scratch/reason ]]; then
        printf '%s: %s\n' "${0##*/}" "$(<"$scratch/reason")" >&2
    else
        tail --lines=25 "$log" | sed 's/^/    /' >&2
        printf '%s: %s failed with code %d; all of its output is in %s\n' "${0##*/}" "$title" "$code" "$log" >&2
    fi
    return "$code"
}

# step TITLE SECONDS COMMAND…: the same, and the script ends with the command's code where it fails.
step() { attempt "$@" || exit; }

outcome_or() { if [[ -s $scratch/outcome ]]; then cat "$scratch/outcome"; else printf '%s' "$1"; fi; }

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { s = to - from; printf(s < 10 ? "%.1f" : "%.0f", s) }'; }

# setting KEY: its value in the environment, else in .env.
setting() {
    local key=$1
    if [[ -n ${!key+set} ]]; then
        printf '%s' "${!key}"
    else
        sed --quiet "s/^$key=//p" .env | tail --lines=1
    fi
}

# pip_setting KEY: pip's setting (as index-url) from the environment, else from pip's configuration files.
pip_setting() {
    local key=$1 variable file
    variable=PIP_$(tr 'a-z-' 'A-Z_' <<<"$key")
    if [[ -n ${!variable:-} ]]; then
        printf '%s' "${!variable}"
        return
    fi
    for file in "${PIP_CONFIG_FILE:-}" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" ~/.pip/pip.conf /etc/pip.conf; do
        [[ -r $file ]] || continue
        awk -F ' *= *' -v key="$key" '/^\[/ { on = /^\[(global|install)\]/ } on && $1 == key { print $2; exit }' "$file"
    done | head --lines=1
}

# Drop addresses that exist on this host only: a build can't see them.
reachable_addresses() {
    local address
    for address in $1; do
        [[ $address == file:* || $address == /* ]] || printf '%s ' "$address"
    done | sed 's/ $//'
}

# Export CA_BUNDLE and INDEX_SETTINGS, which docker-compose.yml hands to the build as secrets: the certificates this host
# trusts (a proxy that opens TLS signs with one of them), and the package index where one is set (it may hold a password).
build_settings() {
    local file index extra trusted
    for file in "${CA_BUNDLE:-}" "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        # BuildKit takes secrets of up to 500 kB.
        if [[ -f $file && $(stat --format %s "$file") -le 500000 ]]; then
            export CA_BUNDLE=$file
            break
        fi
    done
    index=$(reachable_addresses "${UV_DEFAULT_INDEX:-$(pip_setting index-url)}")
    extra=$(reachable_addresses "${UV_INDEX:-$(pip_setting extra-index-url)}")
    trusted=${UV_INSECURE_HOST:-$(pip_setting trusted-host)}
    export INDEX_SETTINGS=$scratch/index
    (
        umask 077
        {
            [[ -z $index ]] || printf 'export PIP_INDEX_URL=%q UV_DEFAULT_INDEX=%q\n' "$index" "$index"
            [[ -z $extra ]] || printf 'export PIP_EXTRA_INDEX_URL=%q UV_INDEX=%q\n' "$extra" "$extra"
            [[ -z $trusted ]] || printf 'export PIP_TRUSTED_HOST=%q UV_INSECURE_HOST=%q\n' "$trusted" "$trusted"
        } >"$INDEX_SETTINGS"
    )
}

# A person's own rights where they are enough, else sudo.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo --non-interactive "$@"; fi
}

# ask_for_root WHY: make sure as_root works, asking for the password here, before a step hides the terminal.
may_be_root() {
    ((EUID == 0)) || sudo --non-interactive true 2>/dev/null || { [[ -t 0 ]] && command -v sudo >/dev/null && sudo --validate; }
}

is_debian_like() { command -v apt-get >/dev/null && grep --quiet --extended-regexp '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release; }

apt_install() {
    as_root apt-get update --quiet
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "$@"
}

# ensure_uv: the pinned uv in .cache/uv.
ensure_uv() {
    local stamp
    stamp=$(sha256sum requirements/tools.txt)
    if [[ -x $uv && $(cat .cache/uv/.stamp 2>/dev/null) == "$stamp" ]]; then
        outcome "found"
        return
    fi
    command -v python3 >/dev/null || need_python python3 python3-venv
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$EXIT_SETUP" "python3 is $(python3 --version | cut -d ' ' -f 2); wanted 3.11 or later; put one on PATH"
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_python python3-venv
    rm -rf .cache/uv
    python3 -m venv .cache/uv
    # shellcheck source=/dev/null
    [[ -z ${INDEX_SETTINGS:-} ]] || source "$INDEX_SETTINGS"
    .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --requirement requirements/tools.txt
    printf '%s' "$stamp" >.cache/uv/.stamp
    outcome "installed"
}

# ensure_environment: the locked development requirements and, by reference, this package in .venv; installed again only when they change.
ensure_environment() {
    local stamp
    stamp=$(sha256sum requirements/dev.txt pyproject.toml)
    if [[ -x $python && $(cat .venv/.stamp 2>/dev/null) == "$stamp" ]]; then
        outcome "found"
        return
    fi
    # shellcheck source=/dev/null
    [[ -z ${INDEX_SETTINGS:-} ]] || source "$INDEX_SETTINGS"
    [[ -x $python ]] || "$uv" venv --no-config --python .cache/uv/bin/python .venv
    UV_INDEX_STRATEGY=unsafe-best-match "$uv" pip sync --no-config --python "$python" --require-hashes \
        --only-binary :all: requirements/dev.txt
    "$uv" pip install --no-config --python "$python" --no-deps --no-index --no-build-isolation --editable .
    printf '%s' "$stamp" >.venv/.stamp
    outcome "installed"
}

need_python() {
    if is_debian_like && may_be_root; then
        apt_install "$@"
    else
        fail "$EXIT_SETUP" "$* missing; wanted Python 3.11 or later with venv; install it with this system's package manager"
    fi
}

# build_image: what docker-compose.yml builds, with the settings that build_settings has made.
build_image() {
    docker compose --progress plain build || exit
    outcome "$(docker image inspect --format '{{.Size}}' "$(setting IMAGE | grep . || printf 'fed')" | awk '{ printf "%.2f GB", $1 / 1e9 }')"
}
