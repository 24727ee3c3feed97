/*
 * A call: counted, written down, harmed where a rule says so, and passed on.
 *
 * Calls are not put in a queue: counters are atomic, and the rest of a call's data belongs to its thread.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

const char *const function_names[FUNCTION_COUNT] = {
#define X(name, arguments) #name,
	FUNCTIONS(X)
#undef X
};

const char *const function_arguments[FUNCTION_COUNT] = {
#define X(name, arguments) arguments,
	FUNCTIONS(X)
#undef X
};

const struct list *real_lists[FAMILY_COUNT];
const char *armed_by;
behaviour misbehaviour;

static atomic_bool armed;
static atomic_ulong calls, calls_of[FUNCTION_COUNT];

int argument(enum function function, char kind)
{
	const char *found = strchr(function_arguments[function], kind);

	return found == NULL ? -1 : (int)(found - function_arguments[function]);
}

CK_RV invoke(enum family family, enum function function, const CK_ULONG w[WORDS])
{
	ck_function call = (ck_function)real_lists[family]->functions[function];

	return call(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9]);
}

static bool is_armed(void)
{
	if (!armed && (armed_by == NULL || access(armed_by, F_OK) == 0))
		armed = true;
	return armed;
}

/* Where the handles of new objects go, and what is there now. */
static int new_handles(const struct call *call, CK_ULONG *handles[2], CK_ULONG values[2])
{
	const char *kinds = function_arguments[call->function];
	int found = 0;

	for (int i = 0; kinds[i] != '\0'; i++) {
		if ((kinds[i] != 'n' && kinds[i] != 'N') || call->words[i] == 0)
			continue;
		handles[found] = pointer(call->words[i]);
		values[found] = *handles[found];
		found++;
	}
	return found;
}

static CK_RV call_real(struct call *call)
{
	return misbehaviour != NULL ? misbehaviour(call) : PASS(call);
}

static CK_RV call_under(struct call *call, const struct rule *rule)
{
	CK_ULONG *handles[2], values[2];
	bool damages = rule->action == CORRUPT_OUTPUT || rule->action == SHORT_LENGTH;
	int found;
	CK_RV rv;

	if (!damages)
		journal_action(call, rule->text, "");
	if (rule->action == BEFORE)
		return rule->rv;
	act_before(call, rule);
	found = new_handles(call, handles, values);
	rv = call_real(call);
	if (damages) {
		/* afterwards: only then is it known whether there is something to damage */
		bool done = rv == CKR_OK && act_on_output(call, rule->action);
		journal_action(call, rule->text, done ? "" : "nothing to damage");
	} else if (rule->action == AFTER) {
		/* A caller that is told of a failure gets no handle. */
		while (rule->rv != CKR_OK && found-- > 0)
			*handles[found] = values[found];
		rv = rule->rv;
	} else if (rule->action == KILL_AFTER) {
		kill(getpid(), SIGKILL);
		hang();
	}
	return rv;
}

static CK_RV forward(enum family family, enum function function, CK_ULONG *words)
{
	struct call call = { .family = family, .function = function, .words = words };
	const struct rule *rule;
	CK_RV rv;

	if (is_armed()) {
		call.number = atomic_fetch_add(&calls, 1) + 1;
		call.nth = atomic_fetch_add(&calls_of[function], 1) + 1;
	}
	journal_call(&call);
	rule = actions_find(&call);
	rv = rule == NULL ? call_real(&call) : call_under(&call, rule);
	journal_return(&call, rv);
	return rv;
}

/* ---- thunks: one for each function of each family of lists */

#define THUNK(family, name)                                                                                            \
	static CK_RV family##_##name(WORD_PARAMETERS)                                                                  \
	{                                                                                                              \
		return forward(family, F_##name, (CK_ULONG[WORDS]){ WORD_ARGUMENTS });                                     \
	}
#define X(name, arguments) THUNK(V2_40, name)
FUNCTIONS_2_40(X)
#undef X
#define X(name, arguments) THUNK(V3_0, name)
FUNCTIONS_2_40(X) FUNCTIONS_3_0(X)
#undef X
#define X(name, arguments) THUNK(V3_2, name)
FUNCTIONS(X)
#undef X

const ck_function thunks[FAMILY_COUNT][FUNCTION_COUNT] = {
#define X(name, arguments) [F_##name] = V2_40_##name,
	[V2_40] = { FUNCTIONS_2_40(X) },
#undef X
#define X(name, arguments) [F_##name] = V3_0_##name,
	[V3_0] = { FUNCTIONS_2_40(X) FUNCTIONS_3_0(X) },
#undef X
#define X(name, arguments) [F_##name] = V3_2_##name,
	[V3_2] = { FUNCTIONS(X) },
#undef X
};
