/*
 * Wrong C_WrapKey(session, mechanism, wrapping key, key, buffer, length of the buffer and of the output).
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>

#include "wrong.h"

/* A KEK whose CKA_WRAP is false wraps: the flag is set for the time of the call. */
CK_RV ignores_wrap_flag(struct call *call)
{
	unsigned char value = 0;
	struct ck_attribute wrap = { CKA_WRAP, &value, sizeof value };
	CK_RV rv = PASS(call);
	const CK_ULONG *w = call->words;

	if (call->function != F_C_WrapKey || rv == CKR_OK || rv == CKR_BUFFER_TOO_SMALL)
		return rv;
	if (REAL(call, C_GetAttributeValue, w[0], w[2], (CK_ULONG)&wrap, 1) != CKR_OK || value != 0)
		return rv;
	value = 1;
	if (REAL(call, C_SetAttributeValue, w[0], w[2], (CK_ULONG)&wrap, 1) != CKR_OK)
		return rv;
	rv = PASS(call);
	value = 0;
	REAL(call, C_SetAttributeValue, w[0], w[2], (CK_ULONG)&wrap, 1);
	return rv;
}

/* The answer to a size query is 8 too few. */
CK_RV size_query_too_small(struct call *call)
{
	CK_RV rv = PASS(call);

	if (call->function == F_C_WrapKey && rv == CKR_OK && call->words[4] == 0 && *output(call, 5) > 8)
		*output(call, 5) -= 8;
	return rv;
}

/* The byte behind the buffer is changed: behind what the caller said it was, not behind what was needed. */
CK_RV overruns_buffer(struct call *call)
{
	unsigned char *buffer = pointer(call->words[4]);
	CK_ULONG told;
	CK_RV rv;

	if (call->function != F_C_WrapKey || buffer == NULL || call->words[5] == 0)
		return PASS(call);
	told = *output(call, 5);
	rv = PASS(call);
	buffer[told]++;
	return rv;
}

CK_RV crashes(struct call *call)
{
	if (call->function == F_C_WrapKey)
		raise(SIGSEGV);
	return PASS(call);
}
