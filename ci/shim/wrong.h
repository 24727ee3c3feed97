/*
 * The wrong behaviours, and what they share.
 */
#ifndef HSMBRIDGE_SHIM_WRONG_H
#define HSMBRIDGE_SHIM_WRONG_H

#include "shim.h"

/* Each is called in place of the real module's function, whichever that is. */
CK_RV accepts_flipped_bits(struct call *call);
CK_RV crashes(struct call *call);
CK_RV destroy_does_nothing(struct call *call);
CK_RV destroys_neighbour(struct call *call);
CK_RV hangs(struct call *call);
CK_RV ignores_destroyable(struct call *call);
CK_RV ignores_extractable(struct call *call);
CK_RV ignores_wrap_flag(struct call *call);
CK_RV leaves_debris(struct call *call);
CK_RV loses_attributes(struct call *call);
CK_RV overruns_buffer(struct call *call);
CK_RV pads_lengths(struct call *call);
CK_RV readable_sensitive(struct call *call);
CK_RV reuses_handles(struct call *call);
CK_RV settable_local(struct call *call);
CK_RV size_query_too_small(struct call *call);
CK_RV unwrap_does_nothing(struct call *call);
CK_RV wrong_login(struct call *call);

/* What an argument points at. */
static inline CK_ULONG *output(const struct call *call, int argument)
{
	return pointer(call->words[argument]);
}

/* ---- templates.c */

#define MAX_ATTRIBUTES 64

/* Handles that are worth remembering. */
struct handles {
	CK_ULONG list[1024];
	size_t count; /* of all that were ever put in: the oldest are forgotten */
};

void handles_add(struct handles *handles, CK_ULONG handle);
void handles_remove(struct handles *handles, CK_ULONG handle);
bool handles_have(struct handles *handles, CK_ULONG handle);

/* Copy the template that begins at this argument; returns the number of attributes,
 * 0 for a template that is longer than any. */
CK_ULONG template_copy(const struct call *call, int argument, struct ck_attribute copy[MAX_ATTRIBUTES]);
struct ck_attribute *template_find(struct ck_attribute *list, CK_ULONG count, CK_ULONG type);
bool template_says(struct ck_attribute *list, CK_ULONG count, CK_ULONG type, bool value);
CK_ULONG template_drop(struct ck_attribute *list, CK_ULONG count, CK_ULONG type);

/* The call with another template. */
CK_RV pass_with(struct call *call, int argument, struct ck_attribute *list, CK_ULONG count);

#endif
