/*
 * Wrong behaviours, by name: what a bad module does, done on purpose, so that a test can be seen to notice it.
 *
 * A behaviour gets each call in place of the real module, and passes on what it has no interest in.  It changes as
 * little as it can, so that it fails the checks that it is made for and no others.  None touches an object that it
 * did not see being made.
 */
#include <string.h>

#include "wrong.h"

static const struct {
	const char *name;
	behaviour behaviour;
} behaviours[] = {
	{ "accepts-flipped-bits", accepts_flipped_bits },
	{ "crashes", crashes },
	{ "destroy-does-nothing", destroy_does_nothing },
	{ "destroys-neighbour", destroys_neighbour },
	{ "hangs", hangs },
	{ "ignores-destroyable", ignores_destroyable },
	{ "ignores-extractable", ignores_extractable },
	{ "ignores-wrap-flag", ignores_wrap_flag },
	{ "leaves-debris", leaves_debris },
	{ "loses-attributes", loses_attributes },
	{ "overruns-buffer", overruns_buffer },
	{ "pads-lengths", pads_lengths },
	{ "readable-sensitive", readable_sensitive },
	{ "reuses-handles", reuses_handles },
	{ "settable-local", settable_local },
	{ "size-query-too-small", size_query_too_small },
	{ "unwrap-does-nothing", unwrap_does_nothing },
	{ "wrong-login", wrong_login },
};

behaviour wrong_find(const char *name)
{
	char known[400] = "";

	for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++) {
		if (strcmp(name, behaviours[i].name) == 0)
			return behaviours[i].behaviour;
		strncat(known, " ", sizeof known - strlen(known) - 1);
		strncat(known, behaviours[i].name, sizeof known - strlen(known) - 1);
	}
	complain("HSMBRIDGE_SHIM_WRONG: no behaviour is called %s; there are:%s", name, known);
	return NULL;
}
