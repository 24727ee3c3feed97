/*
 * Rules: WHEN=ACTION, separated by white space, commas or semicolons; of several that match, the first acts.
 *
 *   C_Name      every call of that function       @17      the 17th call in all
 *   C_Name#2    the second                        @17+     that one and all after it
 *   C_Name#2+   the second and all after it
 *
 *   before:CKR      return CKR; the real module does not hear of the call
 *   after:CKR       call, then return CKR; handles of new objects are kept from the caller
 *   kill-before     SIGKILL for the process, before or after the real call
 *   kill-after
 *   hang            never return
 *   logout          log the user out, or close the call's session; then call
 *   lose-session
 *   corrupt-output  call, then flip the lowest bit of the output's first byte
 *   short-length    call, then report one byte less
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

#define SEPARATORS " \t\r\n,;"
#define MAX_RULES 64

static struct rule rules[MAX_RULES];
static size_t rule_count;

static const struct {
	const char *name;
	enum action action;
} actions[] = {
	{ "before", BEFORE },	      { "after", AFTER },	    { "kill-before", KILL_BEFORE },
	{ "kill-after", KILL_AFTER }, { "hang", HANG },		    { "corrupt-output", CORRUPT_OUTPUT },
	{ "logout", LOGOUT },	      { "short-length", SHORT_LENGTH }, { "lose-session", LOSE_SESSION },
};

/* Digits up to the end of the text, decimal or 0x...; not zero unless that is allowed. */
static bool parse_number(const char *text, bool zero, CK_ULONG *number)
{
	char *end;

	errno = 0;
	*number = strtoul(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
	return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && (zero || *number != 0);
}

/* Cut a trailing + off. */
static bool take_plus(char *text)
{
	size_t length = strlen(text);

	if (length < 2 || text[length - 1] != '+')
		return false;
	text[length - 1] = '\0';
	return true;
}

static const char *parse_when(struct rule *rule, char *when)
{
	char *nth;
	int function;

	rule->onwards = take_plus(when);
	if (*when == '@') {
		rule->each = true;
		return parse_number(when + 1, false, &rule->at) ? NULL : "the call's number must be 1 or more";
	}
	nth = strchr(when, '#');
	if (nth != NULL) {
		*nth++ = '\0';
		if (!parse_number(nth, false, &rule->at))
			return "the number after # must be 1 or more";
	} else if (rule->onwards) {
		return "+ needs a number before it";
	}
	for (function = 0; function < FUNCTION_COUNT; function++) {
		if (strcmp(when, function_names[function]) == 0) {
			rule->function = (enum function)function;
			return NULL;
		}
	}
	return "there is no such function";
}

static const char *parse_action(struct rule *rule, char *action)
{
	char *rv = strchr(action, ':');
	bool takes_rv, on_output, on_session;

	if (rv != NULL)
		*rv++ = '\0';
	for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
		if (strcmp(action, actions[i].name) != 0)
			continue;
		rule->action = actions[i].action;
		takes_rv = rule->action == BEFORE || rule->action == AFTER;
		if (takes_rv && (rv == NULL || !parse_number(rv, true, &rule->rv)))
			return "a return value is missing, such as :0x30";
		if (!takes_rv && rv != NULL)
			return "the action takes no return value";
		on_output = rule->action == CORRUPT_OUTPUT || rule->action == SHORT_LENGTH;
		if (on_output && !rule->each && argument(rule->function, 'b') < 0 && argument(rule->function, 'A') < 0)
			return "the function has no output buffer";
		on_session = rule->action == LOGOUT || rule->action == LOSE_SESSION;
		if (on_session && !rule->each && argument(rule->function, 's') < 0)
			return "the function has no session";
		return NULL;
	}
	return "there is no such action";
}

static const char *parse_rule(struct rule *rule, const char *text, size_t length)
{
	char copy[sizeof rule->text];
	char *action;
	const char *wrong;

	if (length >= sizeof copy)
		return "the rule is too long";
	memcpy(copy, text, length);
	copy[length] = '\0';
	action = strchr(copy, '=');
	if (action == NULL)
		return "a rule is WHEN=ACTION";
	*action++ = '\0';
	memcpy(rule->text, action, strlen(action) + 1);
	wrong = parse_when(rule, copy);
	return wrong != NULL ? wrong : parse_action(rule, action);
}

bool actions_parse(const char *text)
{
	const char *wrong;
	size_t length;

	for (text += strspn(text, SEPARATORS); *text != '\0'; text += length, text += strspn(text, SEPARATORS)) {
		length = strcspn(text, SEPARATORS);
		wrong = rule_count == MAX_RULES ? "there are too many rules"
						: parse_rule(&rules[rule_count++], text, length);
		if (wrong != NULL) {
			complain("HSMBRIDGE_SHIM_ACTIONS: %.*s: %s", (int)length, text, wrong);
			return false;
		}
	}
	return true;
}

const struct rule *actions_find(const struct call *call)
{
	CK_ULONG count;

	if (call->number == 0)
		return NULL;
	for (const struct rule *rule = rules; rule < rules + rule_count; rule++) {
		if (!rule->each && rule->function != call->function)
			continue;
		count = rule->each ? call->number : call->nth;
		if (rule->at == 0 || count == rule->at || (rule->onwards && count > rule->at))
			return rule;
	}
	return NULL;
}

_Noreturn void hang(void)
{
	for (;;)
		pause();
}

/* What a rule does before the real call, other than replacing it. */
void act_before(const struct call *call, const struct rule *rule)
{
	int session = argument(call->function, 's');

	switch (rule->action) {
	case KILL_BEFORE:
		kill(getpid(), SIGKILL);
		hang();
	case HANG:
		hang();
	case LOGOUT:
		if (session >= 0)
			REAL(call, C_Logout, call->words[session]);
		break;
	case LOSE_SESSION:
		if (session >= 0)
			REAL(call, C_CloseSession, call->words[session]);
		break;
	default:
		break;
	}
}

/* The output of a successful call: its first byte, if there is a buffer, and its length; false if there is neither. */
static bool find_output(const struct call *call, unsigned char **data, CK_ULONG **length)
{
	int buffer = argument(call->function, 'b'), attributes = argument(call->function, 'A');
	struct ck_attribute *attribute;

	if (buffer >= 0) {
		*data = pointer(call->words[buffer]);
		*length = argument(call->function, 'l') < 0 ? pointer(call->words[buffer + 1]) : &call->words[buffer + 1];
		return *length != NULL && **length != 0;
	}
	if (attributes < 0)
		return false;
	/* the first attribute that has a value */
	attribute = pointer(call->words[attributes]);
	for (CK_ULONG i = 0; i < call->words[attributes + 1]; i++, attribute++) {
		if (attribute->length != 0 && attribute->length != CK_UNAVAILABLE_INFORMATION) {
			*data = attribute->value;
			*length = &attribute->length;
			return true;
		}
	}
	return false;
}

/* Damage the output of a successful call; false if there is nothing to damage, as in a size query. */
bool act_on_output(const struct call *call, enum action action)
{
	unsigned char *data;
	CK_ULONG *length;

	if (!find_output(call, &data, &length) || (action == CORRUPT_OUTPUT && data == NULL))
		return false;
	if (action == CORRUPT_OUTPUT) {
		data[0] ^= 1;
		return true;
	}
	*length -= 1;
	/* C_GenerateRandom reports no length: there the last byte is one that was never written. */
	if (data != NULL && argument(call->function, 'l') >= 0)
		data[*length] = 0;
	return true;
}
