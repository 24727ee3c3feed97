# Shared by with-token and by the install and start scripts of the tokens; sourced, never run.
# shellcheck shell=bash

me=${0##*/}
[[ $me != start && $me != install ]] || me=ci/$(basename "$(dirname "$0")")/$me

# fail MESSAGE [HINT]
fail() {
	printf '%s: error: %s\n' "$me" "$1" >&2
	[[ $# -lt 2 ]] || printf '%s: hint: %s\n' "$me" "$2" >&2
	exit 1
}

# ---- packages

# install_packages [--check] -- PACKAGE...    where PACKAGE may be "new-name|old-name"
install_packages() {
	local check='' wanted missing=()
	[[ ${1-} != --check ]] || { check=yes; shift; }
	[[ ${1-} == -- ]] || fail "unknown argument: ${1-}" "the only option is --check"
	shift
	command -v dpkg-query >/dev/null || fail "not a Debian system" "install by hand what these packages hold: $*"
	for wanted in "$@"; do
		any_installed "$wanted" || missing+=("$(first_known "$wanted")")
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	local line="apt-get install -y --no-install-recommends ${missing[*]}"
	[[ -z $check ]] || fail "not installed: ${missing[*]}" "$line"
	[[ $(id -u) == 0 ]] || fail "not installed: ${missing[*]}" "sudo apt-get update && sudo $line"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >&2
	apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

any_installed() {
	local name
	for name in ${1//|/ }; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) != installed ]] || return 0
	done
	return 1
}

first_known() {
	local name
	for name in ${1//|/ }; do
		[[ -z $(apt-cache show --no-all-versions "$name" 2>/dev/null) ]] || { echo "$name"; return; }
	done
	echo "${1##*|}"
}

# ---- an instance

# with-token sources a start script and then looks after what it started; a start script that is run by hand
# prints the environment and leaves its daemon behind, with its pid in DIR/daemons.
supervised() { [[ ${supervisor_pid-} == "$$" ]]; }

daemons=()

# begin NAME DIR: the directory and the token's label
begin() {
	local name=$1
	[[ $# == 2 && -n $2 ]] || fail "a directory is missing" "usage: ci/$name/start DIR"
	umask 077
	mkdir -p -- "$2"
	instance=$(cd -- "$2" && pwd -P)
	[[ $instance != *[!A-Za-z0-9._/+@-]* ]] ||
		fail "the directory's name has characters that some module's configuration cannot hold: $instance" \
			"use letters, digits and . _ / + @ -"
	[[ -z $(ls -A -- "$instance") ]] || fail "the directory is not empty: $instance" "each instance gets a new one"
	supervised || trap stop_daemons EXIT
	give HSMBRIDGE_TEST_TOKEN "$name"
	give HSMBRIDGE_TEST_DIR "$instance"
	give PKCS11_TOKEN_LABEL "hsmb-$name-$(digits 6)"
}

# ready: the instance works
ready() {
	supervised && return
	trap - EXIT
	printf '%s\n' "${given[@]}"
}

given=()

# give NAME VALUE: a variable for the token's user; shell-quoted if printed
give() {
	export "$1=$2"
	given+=("export $1='${2//\'/\'\\\'\'}'")
}

digits() {
	local number
	number=$(od -An -N7 -tu8 /dev/urandom)
	printf '%0*d' "$1" $((number % 10 ** $1))
}

# quietly COMMAND...: its output is shown only if it fails
quietly() {
	"$@" >>"$instance/start.log" 2>&1 </dev/null && return
	cat -- "$instance/start.log" >&2
	fail "${1##*/} failed"
}

# library NAME [SUBDIRECTORY...]: the full path of a shared library
library() {
	local name=$1 base sub
	shift
	for base in "/usr/lib/$(uname -m)-linux-gnu" /usr/lib64 /usr/lib; do
		for sub in "$@" .; do
			[[ ! -e $base/$sub/$name ]] || { realpath -s "$base/$sub/$name"; return; }
		done
	done
	fail "$name is not installed" "run the install script beside start"
}

# tool ARGS...: pkcs11-tool on the instance
tool() {
	quietly pkcs11-tool --module "$PKCS11_JUDGE_MODULE" "$@"
}

# make_token: a blank token in the first slot becomes ours.  PINs pass through the environment, never argv.
make_token() {
	give PKCS11_PIN "$(digits 8)"
	give PKCS11_SO_PIN "$(digits 8)"
	tool --slot-index 0 --init-token --label "$PKCS11_TOKEN_LABEL" --so-pin env:PKCS11_SO_PIN
	tool --token-label "$PKCS11_TOKEN_LABEL" --login --login-type so --so-pin env:PKCS11_SO_PIN \
		--init-pin --pin env:PKCS11_PIN
}

# compile SOURCE OUTPUT -DNAME="string literal"...
compile() {
	local source=$1 output=$2
	shift 2
	quietly cc -std=c11 -Wall -Wextra -Werror -O2 -shared -fPIC -I/usr/include/p11-kit-1 "$@" -o "$output" "$source"
}

# ---- daemons

# start_daemon LOG COMMAND...: away from the terminal's signals, and gone with with-token even if that is killed
start_daemon() {
	local log=$1
	shift
	if supervised; then
		setsid setpriv --pdeathsig TERM -- "$@" >"$log" 2>&1 </dev/null &
	else
		setsid "$@" >"$log" 2>&1 </dev/null &
	fi
	daemons+=("$!")
	echo "$!" >>"$instance/daemons"
}

# wait_for LOG COMMAND...: until COMMAND succeeds; fails if the newest daemon ends or ten seconds pass
wait_for() {
	local log=$1 tries=200
	shift
	until "$@" >/dev/null 2>&1; do
		if ! kill -0 "${daemons[-1]}" 2>/dev/null || ((--tries == 0)); then
			cat -- "$log" >&2
			fail "the daemon did not come up"
		fi
		sleep 0.05
	done
}

stop_daemons() {
	local pid tries
	for pid in "${daemons[@]}"; do
		kill -TERM "$pid" 2>/dev/null || continue
		for ((tries = 100; tries > 0; tries--)); do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.02
		done
		((tries > 0)) || kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	daemons=()
}
