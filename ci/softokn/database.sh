# What softokn's two tokens have in common; sourced by their start scripts after begin.
# shellcheck shell=bash disable=SC2154,SC2034 # instance comes from begin, database_args goes to start

softokn_sources=$(dirname -- "${BASH_SOURCE[0]}")

# make_database PIN: certutil reads the PIN from a pipe, so that no file holds it
make_database() {
	give PKCS11_PIN "$1"
	mkdir "$instance/db"
	quietly certutil -N -d "sql:$instance/db" -f <(printf '%s\n' "$PKCS11_PIN")
	database_args="configdir='sql:$instance/db' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
}

# make_judge: PKCS11_MODULE and its arguments as one module
make_judge() {
	compile "$softokn_sources/judge.c" "$instance/judge.so" \
		"-DTARGET_MODULE=\"$PKCS11_MODULE\"" "-DTARGET_ARGS=\"$PKCS11_MODULE_ARGS\""
	give PKCS11_JUDGE_MODULE "$instance/judge.so"
}
